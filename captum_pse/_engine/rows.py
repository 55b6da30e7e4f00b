"""Maps as rows, one for each position, and the row numbers of windows.

Row numbers depend only on the windows. A plan computes those of all its copies once, on
the map's device; a batch of copies takes a slice, so that no batch waits for the CPU.
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
        self._parts: dict[torch.device, list[Tensor]] = {}

    def of(self, chunk: slice, device: torch.device) -> Tensor:
        """int64 ``(B, area)`` of some copies; at least ``OUTSIDE`` beyond the map."""
        if device not in self._parts:
            self._parts[device] = self._compute(device)
        first, *others = (part[chunk] for part in self._parts[device])
        for part in others:
            first = first + part
        return first.reshape(-1, self.area)

    def _compute(self, device: torch.device) -> list[Tensor]:
        parts, n_axes = [], len(self.size)
        for a, n in enumerate(self._extent):
            at = self._windows.origin[:, a, None] + np.arange(self.size[a])
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
