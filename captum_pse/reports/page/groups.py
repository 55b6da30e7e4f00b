"""The values of groups or cells, and where they are, for the page to look up."""

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

#: With more groups, a page would grow to hundreds of megabytes.
MOST_GROUPS = 4096


@dataclass(frozen=True)
class Column:
    """One thing that the page says of a group.

    Attributes:
        name (str): What it is.
        values (list): Of each group.
        unit (str): Of the values. Default: ""
    """

    name: str
    values: list[Any]
    unit: str = ""

    @classmethod
    def of(cls, name: str, values: Tensor, unit: str = "") -> Column:
        """Of numbers ``(n_groups,)``, in four digits."""
        return cls(name, [float(f"{value:.4g}") for value in values.tolist()], unit)


@dataclass(frozen=True)
class GroupValues:
    """What the page needs to say which group is at a place, and what it does.

    A group is one of pixels, or a cell of the layer whose maps are shown.

    Attributes:
        places (dict): ``height`` and ``width`` of the picture, and ``planes``: one, or
            one for each channel where the groups differ between them. A plane has its
            different ``rows`` as runs ``[group, length, group, length, ...]``, with -1
            for no group, and ``row``: which of them each line of the picture is.
        columns (list[Column]): What is said of each; the first names it.
    """

    places: dict[str, Any]
    columns: list[Column]

    @classmethod
    def of_groups(cls, result: PixelDecomposition, example: int) -> GroupValues | None:
        """Of one image; None where it has more than :data:`MOST_GROUPS` groups."""
        if len(result.groups) > MOST_GROUPS:
            return None
        channels, height, width = result.inputs[0].shape[1:]
        index = result.groups.index[0]
        mine = index[example if len(index) > 1 else 0].expand(channels, height, width)
        planes = mine.cpu().numpy()
        if (planes == planes[:1]).all():
            planes = planes[:1]
        types = {kind.code: kind.name for kind in TYPES}
        units = {"promotion": "logits", "suppression": "logits", "ratio": "octaves"}
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
        return cls(_places(planes, shown_size(height, width)), columns)

    @classmethod
    def of_cells(cls, result: RegionDecomposition, example: int) -> GroupValues | None:
        """Of one image, by the cells of maps of the layer's own size; None where they
        are more than :data:`MOST_GROUPS`."""
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
        return cls(_places(cells, shown_size(*result.inputs[0].shape[2:])), columns)


def _places(planes: Array, shown: tuple[int, int]) -> dict[str, Any]:
    """Of groups ``(planes, H, W)``, on pictures of the size ``shown``."""
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
