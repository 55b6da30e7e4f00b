"""The values of groups or cells, and where each one lies, for the page to look up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from captum_pse._drawing.images import Array
from captum_pse.groups.types import TYPES
from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import REGION_COMPONENTS, RegionDecomposition
from captum_pse.reports.page.pictures import shown_size

#: The most groups whose values are on the page. More would make it hundreds of
#: megabytes large.
MOST_GROUPS = 4096


@dataclass(frozen=True)
class Column:
    """One property of all groups.

    Attributes:
        name (str): The name of the property.
        values (list): One value for each group.
        unit (str): The unit of the values. Default: ""
    """

    name: str
    values: list[Any]
    unit: str = ""

    @classmethod
    def of(cls, name: str, values: Tensor, unit: str = "") -> Column:
        """A column of numbers ``(n_groups,)``, with four digits."""
        return cls(name, [float(f"{value:.4g}") for value in values.tolist()], unit)


@dataclass(frozen=True)
class GroupValues:
    """Which group lies at each position of a picture, and the values of each group.

    A group is a group of pixels, or a cell of the layer whose maps are shown.

    Attributes:
        layout (dict): ``height`` and ``width`` of the picture, and ``planes``: one
            plane, or one for each channel if the groups differ between channels. A
            plane has its distinct ``rows`` as runs ``[group, length, group, length,
            ...]``, with -1 for no group, and ``row``, the index into ``rows`` for each
            line of the picture.
        columns (list[Column]): The properties of the groups. The first names the group.
    """

    layout: dict[str, Any]
    columns: list[Column]

    @classmethod
    def of_groups(cls, result: PixelDecomposition, example: int) -> GroupValues | None:
        """The pixel groups of one image; None for more than :data:`MOST_GROUPS`."""
        if len(result.groups) > MOST_GROUPS:
            return None
        channels, height, width = result.inputs[0].shape[1:]
        index = result.groups.index[0]
        mine = index[example if len(index) > 1 else 0].expand(channels, height, width)
        planes = mine.cpu().numpy()
        if (planes == planes[:1]).all():
            planes = planes[:1]
        types = {kind.code: kind.name for kind in TYPES}
        unit = result.pair.kind.plural
        units = {"promotion": unit, "suppression": unit, "ratio": "octaves"}
        columns = [
            Column("group", result.groups.ids.tolist()),
            *(
                Column.of(name, getattr(result, name)[example], unit)
                for name, unit in units.items()
            ),
            Column(
                "type", [types[code] for code in result.type_codes[example].tolist()]
            ),
        ]
        return cls(_layout(planes, shown_size(height, width)), columns)

    @classmethod
    def of_cells(cls, result: RegionDecomposition, example: int) -> GroupValues | None:
        """The cells of one image's maps, which have the size of the layer; None for
        more than :data:`MOST_GROUPS`."""
        height, width = result.natural_true.shape[2:]
        if height * width > MOST_GROUPS:
            return None
        cells = np.arange(height * width).reshape(1, height, width)
        names = [
            f"row {row + 1}, column {column + 1}"
            for row in range(height)
            for column in range(width)
        ]
        columns = [
            Column("cell", names),
            *(
                Column.of(name, result.attribution(name)[example].sum(0).flatten())  # type: ignore[arg-type]
                for name in REGION_COMPONENTS
            ),
        ]
        return cls(_layout(cells, shown_size(*result.inputs[0].shape[2:])), columns)


def _layout(planes: Array, shown: tuple[int, int]) -> dict[str, Any]:
    """The layout of groups ``(planes, H, W)`` on pictures of the size ``shown``."""
    lines, columns = (
        np.arange(small) * large // small
        for small, large in zip(shown, planes.shape[1:], strict=True)
    )
    return {
        "height": shown[0],
        "width": shown[1],
        "planes": [_plane(plane[lines][:, columns]) for plane in planes],
    }


def _plane(plane: Array) -> dict[str, Any]:
    rows, row = np.unique(plane, axis=0, return_inverse=True)
    return {"rows": [_runs(line) for line in rows], "row": row.flatten().tolist()}


def _runs(line: Array) -> list[int]:
    starts = np.concatenate([[0], np.flatnonzero(np.diff(line)) + 1])
    lengths = np.diff(np.concatenate([starts, [len(line)]]))
    runs: list[int] = np.stack([line[starts], lengths], axis=1).flatten().tolist()
    return runs
