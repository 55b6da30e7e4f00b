"""The values by which the units of a layer are ranked for masking."""

from __future__ import annotations

from torch import Tensor

from captum_pse.dissection.result import Dissection
from captum_pse.units.sensitivity import UnitSensitivity


def unit_rankings(
    sensitivity: UnitSensitivity, dissection: Dissection | None = None
) -> dict[str, Tensor]:
    """The values by which to rank a layer's units, for
    :func:`captum_pse.evaluate_masking`.

    Args:
        sensitivity (UnitSensitivity): Sensitivity of the layer's units.
        dissection (Dissection, optional): A dissection that contains the same layer.
            Default: None

    Returns:
        *dict[str, Tensor]*: ``(K,)`` each: ``sensitive``; with a dissection,
        ``interpretable``, the largest IoU; and ``least sensitive``.
    """
    rankings = {"sensitive": sensitivity.mean}
    if dissection is not None:
        rankings["interpretable"] = dissection.best(sensitivity.layer)[0]
    rankings["least sensitive"] = -sensitivity.mean
    return rankings


def units_in(fraction: float, n_units: int) -> int:
    """A fraction of the units as a number: at least 1, unless the fraction is 0."""
    return max(1, round(fraction * n_units)) if fraction else 0


def order_of(values: Tensor) -> Tensor:
    """The units in the order of their values ``(K,)``, the largest first; equal ones
    are ordered by index."""
    return values.argsort(descending=True, stable=True)
