"""The measurements of the study on one pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pse._io.files import plain
from captum_pse._statistics import rank_correlation, without_rounding
from captum_pse.groups.types import TYPES
from captum_pse.pairs.labels import warnings_in_records
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.rankings import group_rankings
from captum_pse.pixels.refine import refine_scored
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.regions.result import RegionDecomposition
from captum_pse.studies.score_agreement import score_agreement

Array = npt.NDArray[np.float64]

#: The ways to count groups, see :func:`type_shares`.
WEIGHTS = ("all", "above_median", "by_effect")
#: What an interpretability score reads: promotion on the map of the attack label,
#: suppression on that of the true label.
READINGS = ("promotion", "suppression")


def study_pair(
    pixels: PromotionSuppression,
    maps: AdversarialCAM[Tensor, RegionDecomposition],
    pair: AdversarialPair,
    mask: Tensor,
    *,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Measures one pair by its pixel groups and its regions.

    Args:
        pixels (PromotionSuppression): The method for the pixel groups.
        maps (AdversarialCAM): The method for the regions, of the same model.
        pair (AdversarialPair): A pair of one example.
        mask (Tensor): The feature mask of the pixel groups.
        batch_size (int): Images in one forward pass.
        seed (int): Seed of the random ranking.

    Returns:
        *dict*: Plain JSON, with None for numbers that do not exist:

        - ``labels``: the labels and the model's predictions and scores
        - ``engine``: the engine that evaluated the pixel groups
        - ``types``: see :func:`type_shares`
        - ``scores``: see :func:`captum_pse.studies.score_agreement.score_agreement`
        - ``correlation``: Spearman's rho of effect and mean ``|delta|`` over groups;
          None if ``|delta|`` is the same in all groups
        - ``refinement``, by ranking: at each fraction, whether the attack ``reaches``
          its label and ``leaves`` the true label, and the ``L2`` norm of the rest; and
          the ``smallest_fraction`` on which the attack succeeds
        - ``interpretability``, by reading: ``score``, ``expected`` score, ``lift`` and
          ``rank``
    """
    model: nn.Module = pixels.forward_func
    with warnings_in_records():
        by_score = pixels.decompose_by_score(
            *pair, feature_mask=mask, perturbations_per_eval=batch_size
        )
        found = by_score[pixels.score]
        regions = maps.decompose(*pair)
        summary = regions.summary()[0]
        generator = torch.Generator().manual_seed(seed)
        refined = {
            name: refine_scored(model, found.pair, scores=scores, feature_mask=mask)
            for name, scores in group_rankings(found, regions, generator).items()
        }
    delta = found.inputs[0] - found.baselines[0]
    # If an attack changes all pixels equally, sizes differ by rounding only.
    sizes = without_rounding(
        _array(found.groups.means((delta.abs(),), found.inputs)[0]),
        2 * torch.finfo(delta.dtype).eps,
    )
    return {
        "labels": {
            name: value
            for name, value in summary.items()
            if name != "example" and "_is" not in name
        },
        "engine": found.engine,
        "types": type_shares(_array(found.effect[0]), _array(found.type_codes[0])),
        "scores": score_agreement(found, by_score),
        "correlation": plain(rank_correlation(_array(found.effect[0]), sizes)),
        "refinement": {
            name: {
                "reaches": [float(v) for v in r.reaches[:, 0]],
                "leaves": [float(v) for v in r.leaves[:, 0]],
                "L2": r.norms["L2"][:, 0].tolist(),
                "smallest_fraction": plain(float(r.smallest_fraction[0])),
            }
            for name, r in refined.items()
        },
        "interpretability": {
            reading: {
                "score": summary[f"{reading}_is"],
                "expected": summary[f"{reading}_is_expected"],
                "lift": summary[f"{reading}_is_lift"],
                "rank": summary[f"{reading}_is_rank"],
            }
            for reading in READINGS
        },
    }


def type_shares(effect: Array, codes: Array) -> dict[str, dict[str, float | None]]:
    """The fraction of each type of groups, counted in three ways.

    - ``all``: the fraction of all groups
    - ``above_median``: the fraction of the groups with an effect above the median
    - ``by_effect``: the fraction of the sum of effects

    Args:
        effect (Array): Effect of each group, ``(n,)``.
        codes (Array): Type of each group, ``(n,)``; see
            :func:`captum_pse.groups.types.group_types`.

    Returns:
        *dict*: By the way to count, the fraction of each type; None if the denominator
        is 0.
    """
    weights = {
        "all": np.ones_like(effect),
        "above_median": (effect > np.median(effect)).astype(float),
        "by_effect": effect,
    }
    return {
        name: {
            kind.name: float(w[codes == kind.code].sum() / w.sum()) if w.sum() else None
            for kind in TYPES
        }
        for name, w in weights.items()
    }


def _array(x: Tensor) -> Array:
    values: Array = x.detach().cpu().double().numpy()
    return values
