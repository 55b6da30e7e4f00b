"""The values of groups, and where the groups are, for the page to look up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from captum_pse.pixel_decomposition import PixelDecomposition
from captum_pse.report.colours import KINDS, Array
from captum_pse.report.pictures import shown_size

#: With more groups, a page would grow to hundreds of megabytes.
MOST_GROUPS = 4096


@dataclass(frozen=True)
class GroupValues:
    """What the page needs to say which group is at a place, and what it does.

    Attributes:
        places (dict): ``height`` and ``width`` of the picture, and ``planes``: one, or
            one for each channel where the groups differ between them. A plane has its
            different ``rows`` as runs ``[group, length, group, length, ...]``, with -1
            for no group, and ``row``: which of them each line of the picture is.
        values (dict): By column, the value of each group.
    """

    places: dict[str, Any]
    values: dict[str, list[Any]]

    @classmethod
    def of(cls, result: PixelDecomposition, example: int) -> GroupValues | None:
        """Of one image; None where it has more than :data:`MOST_GROUPS` groups."""
        if len(result.groups) > MOST_GROUPS:
            return None
        channels, height, width = result.inputs[0].shape[1:]
        index = result.groups.index[0]
        mine = index[example if len(index) > 1 else 0].expand(channels, height, width)
        planes = mine.cpu().numpy()
        if (planes == planes[:1]).all():
            planes = planes[:1]
        shown = shown_size(height, width)
        lines, columns = (
            np.arange(small) * large // small
            for small, large in zip(shown, (height, width), strict=True)
        )
        places = {
            "height": shown[0],
            "width": shown[1],
            "planes": [_plane(plane[lines][:, columns]) for plane in planes],
        }
        kinds = result.type[example].long() + 1
        kinds[result.inactive[example]] = KINDS.index("inactive")
        values: dict[str, list[Any]] = {
            "id": result.groups.ids.tolist(),
            "type": [KINDS[kind] for kind in kinds.tolist()],
        }
        for name in ("promotion", "suppression", "ratio"):
            column = getattr(result, name)[example].tolist()
            values[name] = [float(f"{value:.4g}") for value in column]
        return cls(places, values)


def _plane(plane: Array) -> dict[str, Any]:
    rows, row = np.unique(plane, axis=0, return_inverse=True)
    return {"rows": [_runs(line) for line in rows], "row": row.flatten().tolist()}


def _runs(line: Array) -> list[int]:
    starts = np.concatenate([[0], np.flatnonzero(np.diff(line)) + 1])
    lengths = np.diff(np.concatenate([starts, [len(line)]]))
    runs: list[int] = np.stack([line[starts], lengths], axis=1).flatten().tolist()
    return runs
