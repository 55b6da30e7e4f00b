"""What the study measures on one pair."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pse._io.files import plain
from captum_pse._statistics import rank_correlation
from captum_pse.groups.types import TYPES
from captum_pse.pairs.labels import PredictionWarning
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.rankings import group_rankings
from captum_pse.pixels.refine import refine
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.regions.result import RegionDecomposition

Array = npt.NDArray[np.float64]

#: How groups are counted, see :func:`type_shares`.
WEIGHTS = ("all", "above_median", "by_effect")
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
    """One pair by its pixel groups and its regions, as plain numbers.

    Args:
        pixels (PromotionSuppression): Of a model.
        maps (AdversarialCAM): Of the same model.
        pair (AdversarialPair): Of one example.
        mask (Tensor): Its feature mask.
        batch_size (int): How many images one pass holds.
        seed (int): Of the random ranking.

    Returns:
        *dict*: ``labels`` (what the model says), ``types`` (shares, see
        :func:`type_shares`), ``correlation`` (of effect and mean ``|delta|``, over
        groups), ``refinement`` (by ranking: at each fraction whether the attack
        ``reaches`` its label and ``leaves`` the true one, the ``L2`` norm left, and the
        ``smallest_fraction``), and ``interpretability`` (by what it reads: score,
        expected score, lift). None stands for a number that does not exist.
    """
    model: nn.Module = pixels.forward_func
    with warnings.catch_warnings():
        # Recorded with the labels.
        warnings.simplefilter("ignore", PredictionWarning)
        found = pixels.decompose(
            *pair, feature_mask=mask, perturbations_per_eval=batch_size
        )
        regions = maps.decompose(*pair)
        summary = regions.summary()[0]
        generator = torch.Generator().manual_seed(seed)
        refined = {
            name: refine(model, found.pair, scores=scores, feature_mask=mask)
            for name, scores in group_rankings(found, regions, generator).items()
        }
    delta = found.inputs[0] - found.baselines[0]
    sizes = found.groups.means((delta.abs(),), found.inputs)[0]
    return {
        "labels": {
            name: value
            for name, value in summary.items()
            if name != "example" and "_is" not in name
        },
        "engine": found.engine,
        "types": type_shares(_array(found.effect[0]), _array(found.type_codes[0])),
        "correlation": plain(rank_correlation(_array(found.effect[0]), _array(sizes))),
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
            reads: {
                "score": summary[f"{reads}_is"],
                "expected": summary[f"{reads}_is_expected"],
                "lift": summary[f"{reads}_is_lift"],
            }
            for reads in READINGS
        },
    }


def type_shares(effect: Array, codes: Array) -> dict[str, dict[str, float | None]]:
    """The share of each type of group, counted in three ways.

    ``all``: of all groups; ``above_median``: of the groups whose effect is above the
    median; ``by_effect``: of the sum of effects, None where that is 0.

    Args:
        effect (Array): ``(n,)``, of the groups.
        codes (Array): ``(n,)``, see :func:`captum_pse.groups.types.group_types`.
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
