"""Explains a set of pairs and writes what it finds into a folder."""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_pse._files import atomic_results, versions
from captum_pse._forward import first_scores
from captum_pse._text import printable
from captum_pse.groups import grid_mask
from captum_pse.labels import PredictionWarning, check_index, label_index
from captum_pse.pair import AdversarialPair
from captum_pse.promotion_suppression import PromotionSuppression


def explain(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    cell: int | None = None,
    batch: int = 16,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Explains each pair of images by its pixel groups.

    Puts into ``out``, all at once when all is done: ``figures/*.png``, one a pair;
    ``groups.csv``, one row a group; and ``summary.json``, with one record a pair and
    the versions and settings. They replace those of an earlier run.

    Args:
        model (nn.Module): Takes the pairs' images as they are; moved to ``device``.
        pairs (AdversarialPair): Of one image input ``(N, C, H, W)``.
        out (str or Path): The folder, made where it is missing.
        cell (int, optional): Side of the groups in pixels; None takes
            :func:`captum_pse.default_feature_mask`. Default: None
        batch (int, optional): How many images one pass holds. Default: 16
        device (str, optional): Where to compute. Default: ``"cpu"``
        class_names (sequence of str, optional): Names of the classes. Default: None
        settings (mapping, optional): More to write down in the summary. Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *list[dict]*: The records of ``summary.json``. A model that does not say the
        labels is reported there, by ``natural_agrees`` and ``attack_holds``.

    Raises:
        ValueError: The model does not take the images, a label is not one of its
            classes, or the pairs are not images.
    """
    from tqdm.auto import tqdm

    if not isinstance(pairs.natural, torch.Tensor) or pairs.natural.dim() != 4:
        raise ValueError("pairs: want one image input of shape (N, C, H, W)")
    model = model.to(device)
    _check_labels(model, pairs, device)
    mask = None if cell is None else grid_mask(pairs.natural.shape[2:], cell=cell)
    method = PromotionSuppression(model)
    manifest = {
        **versions(),
        "eps": method.eps,
        "threshold": method.threshold,
        "cell": cell,
        "batch": batch,
        "device": device,
        **(settings or {}),
    }
    records: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with atomic_results(out) as folder:
        (folder / "figures").mkdir()
        for i, name in enumerate(
            tqdm(pairs.names, "explaining", unit="pair", disable=not show_progress)
        ):
            with warnings.catch_warnings():
                # Said by each record's natural_agrees and attack_holds instead.
                warnings.simplefilter("ignore", PredictionWarning)
                result = method.decompose(
                    *pairs.select(i).to(device),
                    feature_mask=mask,
                    perturbations_per_eval=batch,
                )
            safe = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:80]
            figure = f"figures/{i:03d}-{safe}.png"
            drawn = result.plot(class_names=class_names, title=name)
            drawn.savefig(folder / figure, dpi=110)
            of_pair = {"pair": name, "example": i}
            rows += [{**of_pair, **row, "example": i} for row in result.table()]
            record = {**of_pair, **result.summary()[0], "example": i, "figure": figure}
            records.append(record)
        with (folder / "groups.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        summary = json.dumps({"manifest": manifest, "pairs": records}, indent=1)
        (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    return records


def _check_labels(model: nn.Module, pairs: AdversarialPair, device: str) -> None:
    """Raises before anything is computed where a label is not a class of the model."""
    assert isinstance(pairs.natural, torch.Tensor)
    with torch.no_grad():
        scores = first_scores(model, (pairs.natural[:1].to(device),))
    for name in ("true_label", "attack_label"):
        check_index(name, label_index(name, getattr(pairs, name), len(pairs)), scores)


def format_table(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> str:
    """The records as a table to print, one line a pair."""

    def label(number: int) -> str:
        name = f"{number}" if class_names is None else class_names[number]
        return printable(name, most=18)

    def answer(record: Mapping[str, Any], agrees: str, prediction: str) -> str:
        return "yes" if record[agrees] else f"NO: {label(record[prediction])}"

    header = (
        *("pair", "true", "attack", "says true", "says attack"),
        *("attack logit", "true logit", "promotion", "suppression"),
        "prom/bal/supp/inactive",
    )
    counts = ("promotion_dominated", "balanced", "suppression_dominated", "inactive")
    rows: list[tuple[str, ...]] = [header]
    rows += [
        (
            printable(r["pair"], most=32),
            label(r["true_label"]),
            label(r["attack_label"]),
            answer(r, "natural_agrees", "natural_prediction"),
            answer(r, "attack_holds", "adversarial_prediction"),
            f"{r['attack_score_gain']:+.2f}",
            f"{-r['true_score_loss']:+.2f}",
            f"{r['promotion']:.2f}",
            f"{r['suppression']:.2f}",
            "/".join(str(r[count]) for count in counts),
        )
        for r in records
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if 5 <= k <= 8 else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
