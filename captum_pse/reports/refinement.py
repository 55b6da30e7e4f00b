"""Refines a set of attacks by several rankings and writes what it finds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_pse._io.files import atomic_results, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._model.layers import last_spatial_layer
from captum_pse.groups.masks import image_mask
from captum_pse.pairs.labels import PredictionWarning
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.pixels.figure import plot_refinements
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.rankings import group_rankings
from captum_pse.pixels.refine import refine
from captum_pse.pixels.refinement import Refinement, join
from captum_pse.regions.adversarial_cam import AdversarialCAM


def refine_pairs(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    cell: int | None = None,
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> dict[str, Refinement]:
    """Keeps each perturbation on part of its pixel groups, ranked in four ways.

    By ``effect`` (:class:`captum_pse.PromotionSuppression`), by ``|delta|``, by ``CAM``
    (the map of the attack label on the adversarial image,
    :class:`captum_pse.AdversarialCAM`), and at ``random`` (seed 0), to compare with.

    Puts into ``out``, all at once when all is done: ``refinement.csv``, one row for
    each ranking and fraction; ``refinement.png``; and ``refinement.json``, with the
    smallest fraction of each pair and the versions and settings.

    Args and Raises: as :func:`captum_pse.reports.explain.explain`.

    Returns:
        *dict[str, Refinement]*: By the name of the ranking.
    """
    from tqdm.auto import tqdm

    model = model.to(device)
    first = check_pairs(model, pairs, device)
    mask = image_mask(first[0], cell)
    layer = layer or last_spatial_layer(model, first)
    own = {"cell": cell, "layer": layer, "batch_size": batch_size, "device": device}
    written = manifest(own, settings)
    pixels, maps = PromotionSuppression(model), AdversarialCAM(model, layer)
    generator = torch.Generator().manual_seed(0)
    parts: dict[str, list[Refinement]] = {}
    with warnings.catch_warnings():
        # The curves show it: an attack that fails as a whole reaches t nowhere.
        warnings.simplefilter("ignore", PredictionWarning)
        for i in tqdm(
            range(len(pairs)), "refining", unit="pair", disable=not show_progress
        ):
            pair = pairs.select(i).to(device)
            found = pixels.decompose(
                *pair, feature_mask=mask, perturbations_per_eval=batch_size
            )
            rankings = group_rankings(found, maps.decompose(*pair), generator)
            for name, scores in rankings.items():
                refined = refine(model, found.pair, scores=scores, feature_mask=mask)
                parts.setdefault(name, []).append(refined)
    results = {name: join(refined) for name, refined in parts.items()}
    rows = [
        {"kept by": name, **point}
        for name, result in results.items()
        for point in result.table()
    ]
    summary = {
        "manifest": written,
        "pairs": [
            {
                "pair": name,
                # NaN, null in the file, where an attack fails as a whole.
                "smallest_fraction": {
                    k: float(r.smallest_fraction[i]) for k, r in results.items()
                },
            }
            for i, name in enumerate(pairs.names)
        ],
    }
    with atomic_results(out) as folder:
        write_csv(folder / "refinement.csv", rows)
        title = f"{len(pairs)} attacks, {len(mask.unique())} groups"
        figure = plot_refinements(results, title=title)
        figure.savefig(folder / "refinement.png", dpi=110)
        write_json(folder / "refinement.json", summary)
    return results
