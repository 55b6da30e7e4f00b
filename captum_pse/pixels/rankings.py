"""Scores that rank pixel groups for refinement."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import RegionDecomposition

#: The names of the rankings of :func:`group_rankings`.
RANKINGS = ("effect", "|delta|", "CAM", "random")


def group_rankings(
    pixels: PixelDecomposition, regions: RegionDecomposition, generator: torch.Generator
) -> dict[str, Tensor]:
    """Scores that rank groups, as ``scores`` of :func:`captum_pse.refine`.

    Args:
        pixels (PixelDecomposition): Result on one image input.
        regions (RegionDecomposition): Result on the same pairs.
        generator (torch.Generator): Generator of the random scores.

    Returns:
        *dict[str, Tensor]*: One tensor for each of :data:`RANKINGS`, which broadcasts
        to the input: the effect, the absolute perturbation, the class activation map of
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
