"""What the study measures on one pair."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pse.adversarial_cam import AdversarialCAM
from captum_pse.pair import AdversarialPair
from captum_pse.pair_labels import PredictionWarning
from captum_pse.pixel_decomposition import PixelDecomposition
from captum_pse.promotion_suppression import PromotionSuppression
from captum_pse.refinement import refine
from captum_pse.region_decomposition import RegionDecomposition

Array = npt.NDArray[np.float64]

#: The types of groups, and those that have none: their effect is next to nothing.
TYPES = ("suppression", "balanced", "promotion", "inactive")
#: How groups are counted, see :func:`type_shares`.
WEIGHTS = ("all", "above_median", "by_effect")
RANKINGS = ("effect", "|delta|", "CAM", "random")
READINGS = ("promotion", "suppression")


def study_pair(
    pixels: PromotionSuppression,
    maps: AdversarialCAM,
    pair: AdversarialPair,
    mask: Tensor,
    *,
    batch: int,
    seed: int,
) -> dict[str, Any]:
    """One pair by its pixel groups and its regions, as plain numbers.

    Args:
        pixels (PromotionSuppression): Of a model.
        maps (AdversarialCAM): Of the same model.
        pair (AdversarialPair): Of one example.
        mask (Tensor): Its feature mask.
        batch (int): How many images one pass holds.
        seed (int): Of the random ranking.

    Returns:
        *dict*: ``labels`` (what the model says), ``types`` (shares, see
        :func:`type_shares`), ``correlation`` (of effect and mean ``|delta|``, over
        groups), ``refinement`` (by ranking: at each fraction whether the attack
        ``reaches`` its label and ``leaves`` the true one, the ``L2`` norm left, and the
        ``smallest`` fraction), and ``interpretability`` (by what it reads: score,
        baseline, lift). None stands for a number that does not exist.
    """
    model: nn.Module = pixels.forward_func
    with warnings.catch_warnings():
        # Recorded with the labels.
        warnings.simplefilter("ignore", PredictionWarning)
        found = pixels.decompose(*pair, feature_mask=mask, perturbations_per_eval=batch)
        regions = maps.decompose(*pair)
        summary = regions.summary()[0]
        scores = _rankings(found, regions, seed)
        refined = {
            name: refine(model, *pair, scores=scores[name], feature_mask=mask)
            for name in RANKINGS
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
        "types": type_shares(
            _array(found.effect[0]), _array(found.type[0]), _array(found.inactive[0])
        ),
        "correlation": rank_correlation(_array(found.effect[0]), _array(sizes)),
        "refinement": {
            name: {
                "reaches": [float(v) for v in r.reaches[:, 0]],
                "leaves": [float(v) for v in r.leaves[:, 0]],
                "L2": r.norms["L2"][:, 0].tolist(),
                "smallest": None if r.smallest[0].isnan() else float(r.smallest[0]),
            }
            for name, r in refined.items()
        },
        "interpretability": {
            reads: {
                "score": summary[f"{reads}_is"],
                "baseline": summary[f"{reads}_is_baseline"],
                "lift": summary[f"{reads}_is_lift"],
            }
            for reads in READINGS
        },
    }


def type_shares(
    effect: Array, types: Array, inactive: Array
) -> dict[str, dict[str, float | None]]:
    """The share of each of ``TYPES``, counted in three ways.

    ``all``: of all groups; ``above_median``: of the groups whose effect is above the
    median; ``by_effect``: of the sum of effects, None where that is 0.

    Args:
        effect (Array): ``(n,)``, of the groups.
        types (Array): ``(n,)``: -1, 0 and 1.
        inactive (Array): ``(n,)``, whether a group has no type.
    """
    kind = np.where(inactive.astype(bool), 2, types).astype(int)
    number = {"suppression": -1, "balanced": 0, "promotion": 1, "inactive": 2}
    weights = {
        "all": np.ones_like(effect),
        "above_median": (effect > np.median(effect)).astype(float),
        "by_effect": effect,
    }
    return {
        name: {
            of: float(w[kind == number[of]].sum() / w.sum()) if w.sum() > 0 else None
            for of in TYPES
        }
        for name, w in weights.items()
    }


def rank_correlation(x: Array, y: Array) -> float | None:
    """Spearman's rho; None where one of them is the same everywhere."""
    from scipy.stats import spearmanr

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)


def _rankings(
    found: PixelDecomposition, regions: RegionDecomposition, seed: int
) -> dict[str, Tensor]:
    (x,), (x0,) = found.inputs, found.baselines
    generator = torch.Generator().manual_seed(seed)
    (effect,) = found.groups.spread(found.effect, found.inputs)
    return {
        "effect": effect,
        "|delta|": (x - x0).abs(),
        "CAM": regions.on_inputs("adversarial_attack"),
        "random": torch.rand(x.shape, generator=generator).to(x.device),
    }


def _array(x: Tensor) -> Array:
    values: Array = x.detach().cpu().double().numpy()
    return values
