"""Where a value differs from that of the unperturbed input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from captum_pse._engine.ops.local_op import Axes
from captum_pse._engine.reads import Read, read
from captum_pse._engine.rows import RowIndex
from captum_pse._engine.windows import Boxes, Windows


class Anywhere:
    """A change that is not confined to a box."""


@dataclass(frozen=True, eq=False)
class Windowed:
    """A change of a map that is confined to one box in each copy.

    Attributes:
        axes (Axes): The spatial dimensions of the map.
        extent (tuple[int, ...]): Its spatial size.
        boxes (Boxes): Where the copies change it.
        windows (Windows): What is computed of it.
    """

    axes: Axes
    extent: tuple[int, ...]
    boxes: Boxes
    windows: Windows

    @property
    def is_whole(self) -> bool:
        return self.windows.size == self.extent

    @cached_property
    def index(self) -> RowIndex:
        """The rows of the windows in the map."""
        return RowIndex(self.windows, self.extent)

    @cached_property
    def whole(self) -> Read:
        """How the whole map is read."""
        region = Windows.whole(len(self.windows.origin), self.extent)
        return read(self.axes, self.windows, region, None)


Change: TypeAlias = Windowed | Anywhere
