"""Where the proportions of an image tell the dimension of a map's units."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def by_proportions(output: Tensor, inputs: Sequence[Tensor]) -> int | None:
    """The dimension of the units of a map ``(N, K, h, w)`` or ``(N, h, w, K)`` of an
    image ``(N, C, H, W)``: the only one with equal strides, ``H/h`` and ``W/w``. They
    are rounded, but a map of a square image must be square."""
    sizes = {tuple(x.shape[2:]) for x in inputs if x.dim() == 4}
    if output.dim() != 4 or len(sizes) != 1 or 0 in output.shape:
        return None
    ((height, width),) = sizes
    _, a, b, c = output.shape
    fitting = [
        axis
        for axis, (h, w) in ((1, (b, c)), (3, (a, b)))
        if (h == w if height == width else _stride(height, h) == _stride(width, w))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _stride(size: int, smaller: int) -> int:
    """How many pixels a position covers; negative for how many positions one pixel."""
    return round(size / smaller) if size >= smaller else -round(smaller / size)
