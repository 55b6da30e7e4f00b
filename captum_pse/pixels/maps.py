"""Pixel groups as maps ``(H, W)``, for figures and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from captum_pse.groups.types import group_types, log_ratio

if TYPE_CHECKING:
    from captum_pse.pixels.result import PixelDecomposition


class PixelMaps(NamedTuple):
    """The groups of one image as maps ``(H, W)``, NaN where no channel is in a group.

    If groups differ between channels, promotion and suppression are means over the
    channels that are in a group. The other maps are computed from these means.

    Attributes:
        promotion, suppression, effect (Tensor): Maps in score units.
        ratio (Tensor): Map in octaves.
        types (Tensor): Codes; see :func:`captum_pse.groups.types.group_types`.
    """

    promotion: Tensor
    suppression: Tensor
    effect: Tensor
    ratio: Tensor
    types: Tensor


def pixel_maps(result: PixelDecomposition, example: int) -> PixelMaps:
    """The maps of one image; see :class:`PixelMaps`."""
    promotion, suppression = (
        mean_over_channels(result, values, example)
        for values in (result.promotion, result.suppression)
    )
    return PixelMaps(
        promotion,
        suppression,
        promotion + suppression,
        log_ratio(promotion, suppression, result.eps),
        group_types(promotion, suppression, result.eps, result.threshold),
    )


def mean_over_channels(
    result: PixelDecomposition, values: Tensor, example: int
) -> Tensor:
    """Values ``(N, n)`` of the groups as a map; NaN where no channel is in a group."""
    spread = result.groups.spread(values, result.inputs)[0][example]
    index = result.groups.index[0].expand_as(result.inputs[0])[example]
    return torch.where(index >= 0, spread, torch.nan).nanmean(0)
