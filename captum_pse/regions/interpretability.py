"""The interpretability score: how much of a perturbation lies inside a map's mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pse._model.checks import check_percentile

#: Positions of a map at or above this percentile belong to its mask.
PERCENTILE = 70.0


@dataclass(frozen=True, eq=False, repr=False)
class InterpretabilityScore:
    """The interpretability scores of N perturbations on N maps.

    Returned by :func:`interpretability_score` and
    :meth:`captum_pse.RegionDecomposition.interpretability`.

    Attributes:
        score (Tensor): ``(N,)``, ``||B o delta||_2 / ||delta||_2``, in [0, 1]; 0 if
            delta is 0 everywhere.
        area (Tensor): ``(N,)``, the fraction of positions in the mask B, in (0, 1].
        expected (Tensor): ``(N,)``, ``sqrt(area)``: the root mean square score of
            random masks of the same area.
        lift (Tensor): ``(N,)``, ``score / expected``. Above 1, delta is concentrated in
            the mask.
        mask (Tensor): bool, the mask B, of the maps' shape.

    Examples::

        >>> from captum_pse import AdversarialCAM
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = AdversarialCAM(load_model(), "features.conv5")
        >>> result = method.decompose(*make_pairs(2)).interpretability("natural_true")
        >>> result.mask.shape, [round(area, 1) for area in result.area.tolist()]
        (torch.Size([2, 1, 64, 64]), [0.3, 0.3])
        >>> bool((result.lift > 1).all())
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
    r"""The interpretability score: how much of a perturbation lies inside a map's mask.

    .. math::
        IS = \frac{\lVert B \circ \delta \rVert_2}{\lVert \delta \rVert_2}, \qquad
        B = [F \ge \text{the } q\text{-th percentile of } F]

    The percentile is taken over all positions of the map, with linear interpolation.
    Positions with equal values are all inside or all outside, so the mask may cover
    more than ``100 - q`` percent. A constant map, such as 0 everywhere, has a mask of
    all positions, score 1 and lift 1. For this reason the area and the expected score
    of random masks are reported as well.

    Source: Xu et al., arXiv:1904.02057.

    Args:
        maps (Tensor): The maps F: the shape of the perturbation, or with 1 in place of
            its channels, such as ``(N, 1, H, W)`` or ``(N, T, 1)``.
        perturbation (Tensor): The perturbation delta, such as ``(N, C, H, W)``,
            ``(N, T, F)`` or ``(N, F)``.
        percentile (float, optional): The percentile q, in [0, 100]. Default: 70

    Returns:
        *InterpretabilityScore*: The scores and the masks.

    Raises:
        TypeError, ValueError: Shapes do not match, ``percentile`` is not a number in
            [0, 100], or values are not finite.

    Examples::

        >>> maps = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> result = interpretability_score(maps, torch.ones(1, 3, 2, 2), percentile=50)
        >>> result.mask.flatten().tolist(), round(float(result.score), 4)
        ([False, False, True, True], 0.7071)
    """
    check_percentile("percentile", percentile)
    shape = tuple(perturbation.shape)
    valid = [shape]
    if len(shape) > 2:
        valid += [(shape[0], 1, *shape[2:]), (*shape[:-1], 1)]
    if len(shape) < 2 or tuple(maps.shape) not in valid:
        raise ValueError(
            f"maps: got shape {tuple(maps.shape)}, want {' or '.join(map(str, valid))} "
            f"for perturbations {shape}, (N, ...)"
        )
    for name, values in (("maps", maps), ("perturbation", perturbation)):
        if not values.isfinite().all():
            raise ValueError(f"{name}: got NaN or infinite values, want finite ones")
    exact = torch.promote_types(maps.dtype, torch.float32)
    flat = maps.to(exact).flatten(1)
    # One map at a time: torch.quantile accepts at most 16 million values.
    thresholds = torch.stack([torch.quantile(row, percentile / 100) for row in flat])
    mask = (flat >= thresholds.unsqueeze(1)).reshape(maps.shape)
    delta = perturbation.to(exact)
    whole = delta.flatten(1).norm(dim=1)
    inside = (delta * mask).flatten(1).norm(dim=1)
    score = torch.where(whole > 0, inside / whole, 0)
    area = mask.flatten(1).to(exact).mean(dim=1)
    expected = area.sqrt()
    return InterpretabilityScore(score, area, expected, score / expected, mask)
