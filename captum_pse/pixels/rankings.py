"""What pixel groups are ranked by, to keep a perturbation on the first of them."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import RegionDecomposition

#: The rankings of :func:`group_rankings`.
RANKINGS = ("effect", "|delta|", "CAM", "random")


def group_rankings(
    pixels: PixelDecomposition, regions: RegionDecomposition, generator: torch.Generator
) -> dict[str, Tensor]:
    """The scores to rank groups by, for :func:`captum_pse.refine`.

    Args:
        pixels (PixelDecomposition): Of one image input.
        regions (RegionDecomposition): Of the same pairs.
        generator (torch.Generator): Of the random scores.

    Returns:
        *dict[str, Tensor]*: By :data:`RANKINGS`, of shapes that broadcast to the
        input's: the effect, the size of the perturbation, the class activation map of
        the attack label on the adversarial image, and random numbers.
    """
    (x,), (x0,) = pixels.inputs, pixels.baselines
    (effect,) = pixels.groups.spread(pixels.effect, pixels.inputs)
    return {
        "effect": effect,
        "|delta|": (x - x0).abs(),
        "CAM": regions.on_inputs("adversarial_attack"),
        "random": torch.rand(x.shape, generator=generator).to(x.device),
    }
