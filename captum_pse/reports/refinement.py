"""Refines attacks by several rankings and writes the results into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_pse._io.files import atomic_results, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._model.checks import check_int, check_optional_int
from captum_pse._model.layers import last_spatial_layer
from captum_pse._model.score import Score
from captum_pse.groups.masks import image_mask
from captum_pse.pairs.labels import warnings_in_records
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.pixels.figure import plot_refinements
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.rankings import group_rankings
from captum_pse.pixels.refine import refine_scored
from captum_pse.pixels.refinement import Refinement, join
from captum_pse.regions.adversarial_cam import AdversarialCAM


def refine_pairs(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    cell: int | None = None,
    layer: str | None = None,
    score: Score = "logit",
    batch_size: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> dict[str, Refinement]:
    """Keeps each perturbation on a fraction of its pixel groups, ranked in four ways.

    The rankings are ``effect`` (:class:`captum_pse.PromotionSuppression`), ``|delta|``,
    ``CAM`` (:class:`captum_pse.AdversarialCAM`: the map of the attack label on the
    adversarial image), and ``random`` (seed 0) for comparison.

    The results are written into ``out`` together at the end: ``refinement.csv`` with
    one row for each ranking and fraction, ``refinement.png``, and ``refinement.json``
    with the smallest fraction of each pair, the versions and the settings.

    The arguments and errors are those of :func:`captum_pse.reports.explain.explain`.

    Returns:
        *dict[str, Refinement]*: The refinement of all pairs by each ranking.
    """
    from tqdm.auto import tqdm

    cell = check_optional_int("cell", cell, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    model = model.to(device)
    first = check_pairs(model, pairs, device, score)
    mask = image_mask(first[0], cell)
    layer = layer or last_spatial_layer(model, first)
    own = {
        "cell": cell,
        "layer": layer,
        "score": score,
        "batch_size": batch_size,
        "device": device,
    }
    written = manifest(own, settings)
    pixels = PromotionSuppression(model, score=score)
    maps = AdversarialCAM(model, layer, score=score)
    generator = torch.Generator().manual_seed(0)
    refinements: dict[str, list[Refinement]] = {}
    # The curves show attacks that fail: these reach t at no fraction.
    with warnings_in_records():
        for i in tqdm(
            range(len(pairs)), "refining", unit="pair", disable=not show_progress
        ):
            pair = pairs.select(i).to(device)
            found = pixels.decompose(
                *pair, feature_mask=mask, perturbations_per_eval=batch_size
            )
            rankings = group_rankings(found, maps.decompose(*pair), generator)
            for name, scores in rankings.items():
                refined = refine_scored(
                    model, found.pair, scores=scores, feature_mask=mask
                )
                refinements.setdefault(name, []).append(refined)
    results = {name: join(refined) for name, refined in refinements.items()}
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
                # NaN, null in the file, for an attack that fails on all groups.
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
        figure.save(folder / "refinement.png")
        write_json(folder / "refinement.json", summary)
    return results
