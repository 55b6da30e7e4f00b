"""Window arithmetic: where a change of the input changes each map of a network.

Ablating one group of pixels changes a window of every early map. The rest of the map
stays the same. Along one axis, take a kernel of ``k`` taps with dilation ``d``, stride
``s`` and padding ``p``. Output ``o`` reads the inputs
``o s - p, ..., o s - p + d (k - 1)``. So a change of the inputs ``lo..hi`` changes the
outputs ``ceil((lo + p - d (k - 1)) / s) .. floor((hi + p) / s)``::

    input    . . . . . . # # # # . . . . . .      # changed: 6..9
                       \\ \\ | | / /                 k = 3, s = 2, p = 1, d = 1
    output   . . . # # # . .                      # changed: 3..5 = ceil(5/2)..5

    to compute outputs 3..5, read inputs 5..11:
    input    . . . . . o # # # # o o . . . .      o is copied from the unperturbed map

Every copy of the input has its own group ablated, and so its own box of changes. The
windows of a batch all have the size of the largest box, so that they form one tensor.
A window may be larger than its box: recomputing unchanged positions gives the same
values. For the same reason, windows are shifted to lie inside their map.

Boxes of M copies are int64 arrays ``(M, A)`` over the A spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Kernel(NamedTuple):
    """Which inputs each output of an operation reads, axis by axis."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> Ints:
        """Distance from the first to the last input that an output reads."""
        return np.array(self.dilation) * (np.array(self.size) - 1)


@dataclass(frozen=True)
class Boxes:
    """What changed in a map, for each of M copies: ``lo`` to ``hi``, both included."""

    lo: Ints
    hi: Ints

    def union(self, other: Boxes) -> Boxes:
        return Boxes(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def through(self, kernel: Kernel, extent: Sequence[int]) -> Boxes:
        """The boxes in the output of an operation; ``extent`` is its spatial size.

        If the stride skips the whole change, the box is one unchanged output.
        """
        stride, padding = np.array(kernel.stride), np.array(kernel.padding)
        last = np.array(extent) - 1
        lo = np.clip(-((kernel.reach - padding - self.lo) // stride), 0, last)
        hi = np.clip((self.hi + padding) // stride, lo, last)
        return Boxes(lo, hi)

    def windows(self, extent: Sequence[int], whole_from: float) -> Windows:
        """Windows of one size around the boxes, inside a map of size ``extent``.

        A window covering at least the fraction ``whole_from`` of the map becomes the
        whole map.
        """
        size = (self.hi - self.lo).max(axis=0) + 1
        if size.prod() >= whole_from * np.prod(extent):
            size = np.array(extent)
        origin = np.minimum(self.lo, np.array(extent) - size)
        return Windows(origin, tuple(size.tolist()))


@dataclass(frozen=True, eq=False)
class Windows:
    """Regions of a map, all of one ``size``, with their ``origin (M, A)``.

    A region that an operation reads may extend beyond the map, into its padding.
    """

    origin: Ints
    size: tuple[int, ...]

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Windows)
            and self.size == other.size
            and np.array_equal(self.origin, other.origin)
        )

    @classmethod
    def whole(cls, m: int, extent: Sequence[int]) -> Windows:
        return cls(np.zeros((m, len(extent)), np.int64), tuple(extent))

    def read_by(self, kernel: Kernel) -> Windows:
        """The regions that an operation reads to compute these windows."""
        origin = self.origin * np.array(kernel.stride) - np.array(kernel.padding)
        size = (np.array(self.size) - 1) * np.array(kernel.stride) + kernel.reach + 1
        return Windows(origin, tuple(size.tolist()))

    def relative_to(self, other: Windows) -> Windows:
        """The same windows, with origins counted from those of other regions."""
        return Windows(self.origin - other.origin, self.size)

    def inside(self, extent: Sequence[int]) -> bool:
        """Whether all of them lie inside a map or region of size ``extent``."""
        return bool(
            (self.origin >= 0).all()
            and (self.origin + np.array(self.size) <= np.array(extent)).all()
        )

    def one_offset(self) -> tuple[int, ...] | None:
        """The origin, if it is the same in all copies."""
        first = self.origin[0]
        return tuple(first.tolist()) if (self.origin == first).all() else None
