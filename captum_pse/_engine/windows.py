"""Window arithmetic: where a change of the input shows in each map of a network.

Erasing one group of pixels changes a window of every early map, and leaves the rest of
the map as it was. Along one axis, with a kernel of ``k`` taps, ``d`` apart, that steps
by ``s`` over a map padded by ``p``, output ``o`` looks at the inputs
``o s - p, ..., o s - p + d (k - 1)``. So a change of the inputs ``lo..hi`` shows in the
outputs ``ceil((lo + p - d (k - 1)) / s) .. floor((hi + p) / s)``::

    input    . . . . . . # # # # . . . . . .      # changed: 6..9
                       \\ \\ | | / /                 k = 3, s = 2, p = 1, d = 1
    output   . . . # # # . .                      # changed: 3..5 = ceil(5/2)..5

    to compute outputs 3..5, read inputs 5..11:
    input    . . . . . o # # # # o o . . . .      o is copied from the unchanged map

Every copy of the input, with its own group erased, has its own box of changes; the
windows of a batch have one size, that of the largest box, so that they are one tensor.
A window that holds more than its box is no error: what is computed there is what was
there before. For the same reason, windows are shifted to lie inside their map.

Boxes of M copies are int64 arrays ``(M, A)`` over the A spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


class Kernel(NamedTuple):
    """How an operation's output looks at its input, axis by axis."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> Ints:
        """How far behind its first input an output looks."""
        return np.array(self.dilation) * (np.array(self.size) - 1)


@dataclass(frozen=True)
class Boxes:
    """What changed in a map, for each of M copies: ``lo`` to ``hi``, both included."""

    lo: Ints
    hi: Ints

    def union(self, other: Boxes) -> Boxes:
        return Boxes(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def through(self, kernel: Kernel, extent: Sequence[int]) -> Boxes:
        """The boxes in the output, of spatial size ``extent``, of an operation.

        Where a stride steps over the whole change, the box is one output that stays as
        it was.
        """
        stride, padding = np.array(kernel.stride), np.array(kernel.padding)
        last = np.array(extent) - 1
        lo = np.clip(-((kernel.reach - padding - self.lo) // stride), 0, last)
        hi = np.clip((self.hi + padding) // stride, lo, last)
        return Boxes(lo, hi)

    def windows(self, extent: Sequence[int], whole_from: float) -> Windows:
        """Windows of one size around the boxes, inside a map of size ``extent``.

        They are the whole map where they would hold that share of it, or more.
        """
        size = (self.hi - self.lo).max(axis=0) + 1
        if size.prod() >= whole_from * np.prod(extent):
            size = np.array(extent)
        origin = np.minimum(self.lo, np.array(extent) - size)
        return Windows(origin, tuple(size.tolist()))


@dataclass(frozen=True, eq=False)
class Windows:
    """Regions of one ``size`` of a map, with their ``origin (M, A)``.

    A region that an operation reads may reach beyond the map, into its padding.
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

    def __getitem__(self, chunk: slice) -> Windows:
        return Windows(self.origin[chunk], self.size)

    def read_by(self, kernel: Kernel) -> Windows:
        """What an operation reads to compute these windows."""
        origin = self.origin * np.array(kernel.stride) - np.array(kernel.padding)
        size = (np.array(self.size) - 1) * np.array(kernel.stride) + kernel.reach + 1
        return Windows(origin, tuple(size.tolist()))

    def rows(self, extent: Sequence[int], outside: int = 0) -> Tensor:
        """Where each place stands in the rows of a map: int64, flat, copy after copy.

        The row of place ``(y, x)`` is ``y W + x``; places outside of the map have the
        row ``outside``.
        """
        index: Ints | int = 0
        inside: NDArray[np.bool_] | bool = True
        for a, n in enumerate(extent):
            at = self.origin[:, a, None] + np.arange(self.size[a])
            at = at.reshape(-1, *(self.size[a] if a == b else 1 for b in _axes(extent)))
            index = index * n + at
            if at.min() < 0 or at.max() >= n:
                inside = inside & (at >= 0) & (at < n)
        if inside is not True:
            index = np.where(inside, index, outside)
        return torch.from_numpy(np.ascontiguousarray(index).reshape(-1))

    def offset_in(self, other: Windows) -> tuple[int, ...] | None:
        """Where these stand in the others, if that is the same for all copies."""
        offsets = self.origin - other.origin
        first = offsets[0]
        return tuple(first.tolist()) if (offsets == first).all() else None


def contains(outer: Sequence[int], offset: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a box of that size and place lies inside one of size ``outer``."""
    return all(
        o >= 0 and o + n <= whole
        for whole, o, n in zip(outer, offset, size, strict=True)
    )


def _axes(extent: Sequence[int]) -> range:
    return range(len(extent))
