"""What the units of a layer are ranked by, to mask the first of them."""

from __future__ import annotations

from torch import Tensor

from captum_pse.dissection.result import Dissection
from captum_pse.units.sensitivity import UnitSensitivity


def unit_rankings(
    sensitivity: UnitSensitivity, dissection: Dissection | None = None
) -> dict[str, Tensor]:
    """The values to rank a layer's units by, for :func:`captum_pse.evaluate_masking`.

    Args:
        sensitivity (UnitSensitivity): Of the layer.
        dissection (Dissection, optional): Of the same layer, among others.
            Default: None

    Returns:
        *dict[str, Tensor]*: ``(K,)`` each: ``sensitive``; with a dissection,
        ``interpretable``, by the largest IoU; and ``least sensitive``.
    """
    rankings = {"sensitive": sensitivity.mean}
    if dissection is not None:
        rankings["interpretable"] = dissection.best(sensitivity.layer)[0]
    rankings["least sensitive"] = -sensitivity.mean
    return rankings


def units_in(fraction: float, n_units: int) -> int:
    """How many units a fraction of them is: at least one, unless the fraction is 0."""
    return max(1, round(fraction * n_units)) if fraction else 0
