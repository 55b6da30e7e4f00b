"""The interpretability score: how much of a perturbation lies inside a map's mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pse._model.checks import check_percentile

#: Positions of a map at or above this percentile belong to its mask.
PERCENTILE = 70.0

#: Squared scores that differ by less are equal. Images in single precision give a
#: constant |delta| up to rounding: of 1/255, up to one part in 60000.
_SAME_SCORE = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class InterpretabilityScore:
    """The interpretability scores of N perturbations on N maps.

    Returned by :func:`interpretability_score` and
    :meth:`captum_pse.RegionDecomposition.interpretability`.

    Attributes:
        score (Tensor): ``(N,)``, ``||B o delta||_2 / ||delta||_2``, in [0, 1]; 0 if
            delta is 0 everywhere.
        area (Tensor): ``(N,)``, the fraction of positions in the mask B, in (0, 1].
        expected (Tensor): ``(N,)``, the mean score over all cyclic shifts of the mask.
        lift (Tensor): ``(N,)``, ``score / expected``. Above 1, delta is concentrated in
            the mask; NaN if delta is 0 everywhere.
        rank (Tensor): ``(N,)``, the fraction of the shifts whose score is lower, in
            [0, 1]; an equal score counts one half. NaN if delta is 0 everywhere. If
            the mask could as well be anywhere, every rank is equally likely, and the
            mean is 0.5. A mask and a delta that both lie in the middle of their images
            rank higher.
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
    rank: Tensor
    mask: Tensor

    def __repr__(self) -> str:
        means = (
            f"{name} {float(getattr(self, name).mean()):.2f}"
            for name in ("score", "lift", "rank")
        )
        return f"InterpretabilityScore({len(self.score)} pair(s), {', '.join(means)})"


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
    all positions and score 1.

    What a score is by chance depends on the area of the mask and on how even delta is.
    So the score is compared with those of all cyclic shifts of the mask over the
    positions, which keep the structure of mask and delta. Features ``(N, F)`` are
    shifted in their order. Maps in the shape of delta are read as ``(N, C, ...)``, and
    all channels are shifted together. A constant map, like a constant ``|delta|``, has
    lift 1 and rank 0.5.

    Source: Xu et al., arXiv:1904.02057; the comparison with shifts is this package's.

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
    found = [_among_shifts(*pair) for pair in zip(mask, delta, strict=True)]
    expected, rank = torch.tensor(found, dtype=exact, device=score.device).T
    return InterpretabilityScore(score, area, expected, score / expected, rank, mask)


def _among_shifts(mask: Tensor, delta: Tensor) -> tuple[float, float]:
    """The mean score over all cyclic shifts of a mask, and the rank of the one that is
    not shifted.

    Args:
        mask (Tensor): bool, in the shape of delta, or with 1 in place of its channels.
        delta (Tensor): The perturbation, ``(C, ...)``, ``(T, F)`` or ``(F,)``.
    """
    mask, energy = mask.cpu().double(), delta.detach().cpu().double().square()
    if mask.dim() == 2 and mask.shape[1] == 1:
        # One channel, (T, 1).
        mask, energy = mask.T, energy.sum(dim=1, keepdim=True).T
    elif mask.dim() == 1 or mask.shape != energy.shape:
        # One mask for all channels, whose dimension may now be any.
        mask, energy = mask.unsqueeze(0), energy.sum_to_size(mask.shape).unsqueeze(0)
    if not energy.any():
        return math.nan, math.nan
    axes = tuple(range(1, mask.dim()))
    # The sums over all positions, for every shift, are a circular correlation.
    spectrum = (
        torch.fft.rfftn(energy, dim=axes) * torch.fft.rfftn(mask, dim=axes).conj()
    )
    sums = torch.fft.irfftn(spectrum.sum(dim=0), s=mask.shape[1:]).flatten()
    squared = sums / energy.sum()
    lower = (squared < squared[0] - _SAME_SCORE).double().mean()
    higher = (squared > squared[0] + _SAME_SCORE).double().mean()
    return float(squared.clamp(min=0).sqrt().mean()), float((1 + lower - higher) / 2)
