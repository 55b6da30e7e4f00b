"""What a type checker makes of the public interface; ``mypy`` reads this file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

from captum_pse import (
    AdversarialCAM,
    DissectionSensitivity,
    PixelDecomposition,
    PromotionSuppression,
    RegionDecomposition,
    UnitDecomposition,
    UnitSensitivity,
)
from captum_pse.demo import load_model, make_pairs


def interface() -> None:
    """Never called."""
    model, pairs, layer = load_model(), make_pairs(2), "features.conv4"
    x, x0 = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)

    pixels = PromotionSuppression(model)
    assert_type(pixels.attribute(x, x0), Tensor)
    assert_type(
        pixels.attribute((x, x), (x0, x0)), tuple[Tensor, Tensor] | tuple[Tensor, ...]
    )
    assert_type(pixels.decompose(*pairs), PixelDecomposition)

    maps = AdversarialCAM(model, layer)
    assert_type(maps.attribute(x, x0), Tensor)
    assert_type(maps.decompose(x, x0), RegionDecomposition)
    by_layer = AdversarialCAM(model, [layer, "features.conv5"])
    assert_type(by_layer.attribute(x, x0), list[Tensor])
    assert_type(by_layer.decompose(x, x0), list[RegionDecomposition])
    sequential: nn.Module = nn.Sequential(nn.Identity())
    assert_type(AdversarialCAM(model, sequential).attribute(x, x0), Tensor)

    units = DissectionSensitivity(model, layer)
    assert_type(units.attribute(x, x0), Tensor)
    assert_type(units.decompose(x, x0), UnitDecomposition)
    assert_type(units.over(pairs), UnitSensitivity)
    units_by_layer = DissectionSensitivity(model, [layer])
    assert_type(units_by_layer.unit_sensitivity(x, x0), list[Tensor])
    assert_type(units_by_layer.over(pairs), list[UnitSensitivity])
