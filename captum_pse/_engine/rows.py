"""Maps as rows, one for each position, and the row numbers of windows.

Row numbers depend only on the windows. A plan computes those of its copies once, in
blocks, on the map's device; a batch of copies takes a slice, so that it does not wait
for the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from captum_pse._engine.ops.local_op import Axes
from captum_pse._engine.windows import Windows

#: Stands for the row of a position beyond the map; larger than any map.
OUTSIDE = 1 << 40
#: Copies whose row numbers are kept at a time. More would take as much memory as maps.
BLOCK = 1024


class RowIndex:
    """The row number of every position of windows, for a map as rows.

    The row of position ``(y, x)`` is ``y W + x``. The parts ``y W`` and ``x`` are kept
    apart: for M windows of h by w positions, these are M (h + w) numbers rather than
    M h w. Those of one batch are added when they are used.

    Args:
        windows (Windows): The windows of all copies.
        extent (sequence): The spatial size of the map.
    """

    def __init__(self, windows: Windows, extent: Sequence[int]) -> None:
        self.size = windows.size
        self.area = math.prod(self.size)
        self.is_inside = windows.inside(extent)
        self._windows, self._extent = windows, tuple(extent)
        self._blocks: dict[torch.device, tuple[range, list[Tensor]]] = {}

    def of(self, chunk: slice, device: torch.device) -> Tensor:
        """int64 ``(B, area)`` of some copies; at least ``OUTSIDE`` beyond the map."""
        start, stop, _ = chunk.indices(len(self._windows.origin))
        block, parts = self._blocks.get(device, (range(0), []))
        if start < block.start or stop > block.stop or not parts:
            block = self._block(start, stop)
            parts = self._compute(block, device)
            self._blocks[device] = block, parts
        some = slice(start - block.start, stop - block.start)
        first, *others = (part[some] for part in parts)
        for part in others:
            first = first + part
        return first.reshape(-1, self.area)

    def _block(self, start: int, stop: int) -> range:
        """The copies to compute at once: all if they are few, else those from here."""
        m = len(self._windows.origin)
        if m <= BLOCK:
            return range(m)
        return range(start, max(stop, min(start + BLOCK, m)))

    def _compute(self, block: range, device: torch.device) -> list[Tensor]:
        parts, n_axes = [], len(self.size)
        origin = self._windows.origin[block.start : block.stop]
        for a, n in enumerate(self._extent):
            at = origin[:, a, None] + np.arange(self.size[a])
            rows = at * math.prod(self._extent[a + 1 :])
            rows = np.where((at >= 0) & (at < n), rows, OUTSIDE)
            shape = [self.size[a] if a == b else 1 for b in range(n_axes)]
            parts.append(torch.from_numpy(rows.reshape(-1, *shape)).to(device))
        return parts


class Rows:
    """A map of one example as rows, one for each position.

    Two rows of padding follow: zeros, and the least value of the dtype.

    Args:
        value (Tensor): The map, with one example.
        axes (Axes): Its spatial dimensions.
    """

    def __init__(self, value: Tensor, axes: Axes) -> None:
        by_position = value[0].movedim([a - 1 for a in axes], list(range(len(axes))))
        self.extent = by_position.shape[: len(axes)]
        #: The shape of the map at one position.
        self.shape = by_position.shape[len(axes) :]
        rows = by_position.reshape(self.extent.numel(), -1)
        padding = rows.new_zeros(2, rows.shape[1])
        if rows.is_floating_point():
            padding[1] = -torch.inf
        elif rows.dtype != torch.bool:
            padding[1] = torch.iinfo(rows.dtype).min
        self.table = torch.cat([rows, padding])

    @property
    def map(self) -> Tensor:
        """The rows without the padding."""
        return self.table[:-2]

    @cached_property
    def mean(self) -> Tensor:
        """The mean over all positions."""
        return self.map.mean(dim=0)

    def padding(self, fill: float) -> int:
        """The number of the row that has this value."""
        return len(self.table) - (2 if fill == 0 else 1)

    def numbers(self, index: RowIndex, chunk: slice, fill: float = 0.0) -> Tensor:
        """int64, flat: the rows of windows; beyond the map, the row of ``fill``."""
        numbers = index.of(chunk, self.table.device).flatten()
        return numbers if index.is_inside else numbers.clamp(max=self.padding(fill))
