"""How a step reads regions of a map, decided once for all copies of a plan.

A batch of copies holds windows of a map. A region is either a part of them, or it is
assembled: read from the unperturbed map, with the windows pasted into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from captum_pse._engine.ops.local_op import Axes
from captum_pse._engine.rows import RowIndex, Rows
from captum_pse._engine.windows import Windows


@dataclass(frozen=True)
class Crop:
    """A region that is the same part of the window in every copy.

    Attributes:
        axes (Axes): The spatial dimensions of the map.
        offset (tuple[int, ...]): Where the region starts in the window.
        size (tuple[int, ...]): The size of the region.
    """

    axes: Axes
    offset: tuple[int, ...]
    size: tuple[int, ...]

    def of(self, windows: Tensor) -> Tensor:
        """The region, from the windows of a batch."""
        if all(
            windows.shape[a] == n for a, n in zip(self.axes, self.size, strict=True)
        ):
            return windows
        return windows[_box(windows.dim(), self.axes, self.offset, self.size)]


@dataclass(frozen=True)
class Assembly:
    """A region of which the windows are a part, another part in each copy.

    Attributes:
        axes (Axes): The spatial dimensions of the map.
        size (tuple[int, ...]): The size of the region.
        region (RowIndex, optional): The rows of the map; None: all of them.
        paste (RowIndex or tuple[int, ...], optional): Where the windows are in the
            region: their rows, or one offset for all copies. None: no copy changes the
            map.
        fill (float): The value of positions outside of the map.
    """

    axes: Axes
    size: tuple[int, ...]
    region: RowIndex | None
    paste: RowIndex | tuple[int, ...] | None
    fill: float

    def of(self, windows: Tensor | None, rows: Rows, chunk: slice) -> Tensor:
        """The region, from the windows of a batch and the unperturbed map."""
        n, area = chunk.stop - chunk.start, torch.Size(self.size).numel()
        table = rows.table
        # Positions of windows outside of the region are pasted into the last row.
        flat = table.new_empty(n * area + 1, table.shape[1])
        if self.region is None:
            flat[:-1].unflatten(0, (n, area)).copy_(rows.map)
        else:
            numbers = rows.numbers(self.region, chunk, self.fill)
            torch.index_select(table, 0, numbers, out=flat[:-1])
        patch = flat[:-1].view(n, *self.size, *rows.shape)
        spatial = tuple(range(1, 1 + len(self.axes)))
        if windows is not None:
            windows = windows.movedim(self.axes, spatial)
            if isinstance(self.paste, RowIndex):
                at = self.paste.of(chunk, table.device)
                at = at + area * torch.arange(n, device=table.device)[:, None]
                at = at.flatten().clamp(max=n * area)
                flat.index_copy_(0, at, windows.reshape(len(at), -1))
            elif self.paste is not None:
                size = windows.shape[1 : 1 + len(spatial)]
                patch[_box(patch.dim(), spatial, self.paste, size)] = windows
        return patch.movedim(spatial, self.axes)


Read: TypeAlias = Crop | Assembly


def read(
    axes: Axes,
    windows: Windows | None,
    region: Windows,
    index: RowIndex | None,
    fill: float = 0.0,
) -> Read:
    """How a region is read.

    Args:
        axes (Axes): The spatial dimensions of the map.
        windows (Windows, optional): Those that a batch holds; None: the map does not
            change.
        region (Windows): What is read.
        index (RowIndex, optional): Its rows in the map; None: all of them.
        fill (float, optional): The value of positions outside of the map. Default: 0.0
    """
    paste: RowIndex | tuple[int, ...] | None = None
    if windows is not None:
        part = region.relative_to(windows)
        offset = part.one_offset()
        if offset is not None and part.inside(windows.size):
            return Crop(axes, offset, region.size)
        part = windows.relative_to(region)
        offset = part.one_offset()
        if offset is not None and part.inside(region.size):
            paste = offset
        else:
            paste = RowIndex(part, region.size)
    return Assembly(axes, region.size, index, paste, fill)


def _box(
    n_dims: int, axes: Axes, offset: Sequence[int], size: Sequence[int]
) -> tuple[slice, ...]:
    box = [slice(None)] * n_dims
    for a, o, n in zip(axes, offset, size, strict=True):
        box[a] = slice(o, o + n)
    return tuple(box)
