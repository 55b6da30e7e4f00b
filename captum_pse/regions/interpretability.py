"""How much of a perturbation lies where a map says the model looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: The percentile of a map from which on a position belongs to its mask.
PERCENTILE = 70.0


@dataclass(frozen=True, eq=False, repr=False)
class InterpretabilityScore:
    """The interpretability score of N perturbations on N maps.

    Made by :func:`interpretability_score` and
    :meth:`captum_pse.RegionDecomposition.interpretability`.

    Attributes:
        score (Tensor): ``(N,)``, ``||B o delta||_2 / ||delta||_2``, in [0, 1]; 0 where
            delta is 0 everywhere.
        area (Tensor): ``(N,)``, the share of positions in the mask B, in (0, 1].
        expected (Tensor): ``(N,)``, ``sqrt(area)``: the root of the squared score that
            a random mask of the same area has in expectation.
        lift (Tensor): ``(N,)``, ``score / expected``; above 1, delta keeps to the mask.
        mask (Tensor): bool, B, of the maps' shape.

    Examples::

        >>> from captum_pse import AdversarialCAM
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = AdversarialCAM(load_model(), "features.conv5")
        >>> found = method.decompose(*make_pairs(2)).interpretability("natural_true")
        >>> found.mask.shape, [round(area, 1) for area in found.area.tolist()]
        (torch.Size([2, 1, 64, 64]), [0.3, 0.3])
        >>> bool((found.lift > 1).all())
        True
    """

    score: Tensor
    area: Tensor
    expected: Tensor
    lift: Tensor
    mask: Tensor

    def __repr__(self) -> str:
        mean, lift = float(self.score.mean()), float(self.lift.mean())
        n = len(self.score)
        return f"InterpretabilityScore({n} pair(s), mean {mean:.2f}, lift {lift:.2f})"


def interpretability_score(
    maps: Tensor, perturbation: Tensor, percentile: float = PERCENTILE
) -> InterpretabilityScore:
    r"""The share of a perturbation inside the most important region of a map.

    .. math::
        IS = \frac{\lVert B \circ \delta \rVert_2}{\lVert \delta \rVert_2}, \qquad
        B = [F \ge \text{the } q\text{-th percentile of } F]

    The percentile is of all positions of the map, linearly interpolated. Ties belong to
    the mask together, so that it may be larger than ``100 - q`` percent: a map that is
    constant, 0 for example, has the mask of everything, score 1 and lift 1. That is why
    the area and the expected score are reported.

    Source: Xu et al., arXiv:1904.02057.

    Args:
        maps (Tensor): F, shape ``(N, 1, ...)`` of the perturbation's spatial size, or
            with a value for each feature of the perturbation.
        perturbation (Tensor): delta, shape ``(N, C, ...)`` or ``(N, F)``.
        percentile (float, optional): q, in [0, 100]. Default: 70

    Returns:
        *InterpretabilityScore*: The score, and the mask that it is of.

    Raises:
        ValueError: Shapes that do not fit, a percentile out of range, or values that
            are not finite.

    Examples::

        >>> maps = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> result = interpretability_score(maps, torch.ones(1, 3, 2, 2), percentile=50)
        >>> result.mask.flatten().tolist(), round(float(result.score), 4)
        ([False, False, True, True], 0.7071)
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: got {percentile}, want 0 to 100")
    shape = tuple(perturbation.shape)
    of_positions = (shape[0], 1, *shape[2:]) if len(shape) > 2 else shape
    if len(shape) < 2 or tuple(maps.shape) not in (of_positions, shape):
        raise ValueError(
            f"maps: got shape {tuple(maps.shape)}, want {of_positions} or {shape} for "
            f"perturbations {shape}, (N, C, ...) or (N, F)"
        )
    for name, values in (("maps", maps), ("perturbation", perturbation)):
        if not values.isfinite().all():
            raise ValueError(f"{name}: got NaN or infinite values, want finite ones")
    exact = torch.promote_types(maps.dtype, torch.float32)
    flat = maps.to(exact).flatten(1)
    # One at a time: torch.quantile takes 16 million values at most.
    thresholds = torch.stack([torch.quantile(row, percentile / 100) for row in flat])
    mask = (flat >= thresholds.unsqueeze(1)).reshape(maps.shape)
    delta = perturbation.to(exact)
    whole = delta.flatten(1).norm(dim=1)
    inside = (delta * mask).flatten(1).norm(dim=1)
    score = torch.where(whole > 0, inside / whole, 0)
    area = mask.flatten(1).to(exact).mean(dim=1)
    expected = area.sqrt()
    return InterpretabilityScore(score, area, expected, score / expected, mask)
