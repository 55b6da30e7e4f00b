"""The images of a pair as arrays for drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_pse.pairs.scored import PairResult, ScoredPair

Array = npt.NDArray[Any]


def to_numpy(x: Tensor) -> Array:
    """``x`` as a float32 array on the CPU."""
    return x.detach().to("cpu", torch.float32).numpy()


def display_pair(
    result: ScoredPair | PairResult, example: int
) -> tuple[Array, Array, str]:
    """The natural and the adversarial image ``(H, W, 3)``, and a note for their titles.

    If values lie outside [0, 1], both images are rescaled by the same factor and the
    note states their range. Otherwise the note is empty.

    Raises:
        ValueError: The result has other inputs than one image ``(N, C, H, W)``.
    """
    if len(result.inputs) != 1 or result.inputs[0].dim() != 4:
        shapes = [tuple(x.shape) for x in result.inputs]
        raise ValueError(
            f"result: got inputs of shapes {shapes}, want one (N, C, H, W)"
        )
    pair = torch.stack([result.baselines[0][example], result.inputs[0][example]])
    pixels = to_numpy(pair)
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.shape[1] != 3:
        pixels = np.repeat(pixels.mean(1, keepdims=True), 3, axis=1)
    note = ""
    if low < 0 or high > 1:
        note = f"\n(rescaled from [{low:.2g}, {high:.2g}])"
        pixels = (pixels - low) / max(high - low, 1e-12)
    natural, adversarial = np.moveaxis(pixels, 1, -1)
    return natural, adversarial, note


def perturbation(result: ScoredPair | PairResult, example: int) -> tuple[Array, float]:
    """The perturbation ``(H, W)``, and the upper limit of its colour scale.

    Each pixel has the change of the channel that changed most. The scale is symmetric
    about 0 and covers 99.5 % of the pixels.
    """
    delta = (result.inputs[0] - result.baselines[0])[example]
    values = to_numpy(strongest_channel(delta))
    sizes = np.abs(values)
    return values, positive(float(np.quantile(sizes, 0.995)), float(sizes.max()))


def strongest_channel(delta: Tensor) -> Tensor:
    """A change ``(C, H, W)`` as ``(H, W)``: in each pixel, the channel that changed
    most."""
    delta = delta.float()
    return delta.gather(0, delta.abs().argmax(0, keepdim=True))[0]


def positive(*limits: float) -> float:
    """The first positive limit of a colour scale, or 1 if there is none."""
    return next((limit for limit in limits if limit > 0), 1.0)
