"""Explains a set of pairs and writes what it finds into a folder."""

from __future__ import annotations

import csv
import json
import platform
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import captum
import torch
from torch import Tensor, nn

from captum_pse._files import atomic_path
from captum_pse._forward import run_forward
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

    Writes into ``out``, each file whole or not at all: ``figures/*.png``, one a pair;
    ``groups.csv``, one row a group; and, last, ``summary.json`` with one record a pair
    and the versions and settings.

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
    out = Path(out)
    model = model.to(device)
    n = len(pairs)
    scores = _first_scores(model, pairs.natural[:1].to(device))
    for name in ("true_label", "attack_label"):
        check_index(name, label_index(name, getattr(pairs, name), n), scores)
    if class_names is not None and len(class_names) != scores.shape[1]:
        class_names = None
    mask = None if cell is None else grid_mask(pairs.natural.shape[2:], cell=cell)
    for stale in ("groups.csv", "summary.json"):
        # What an earlier run said must not stand beside the figures of this one.
        (out / stale).unlink(missing_ok=True)
    method = PromotionSuppression(model)
    records: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for i in tqdm(range(n), desc="explaining", unit="pair", disable=not show_progress):
        pair = pairs.select(i).to(device)
        with warnings.catch_warnings():
            # Said by each record's natural_agrees and attack_holds instead.
            warnings.simplefilter("ignore", PredictionWarning)
            result = method.decompose(
                *pair, feature_mask=mask, perturbations_per_eval=batch
            )
        name = pairs.names[i]
        figure = f"figures/{i:03d}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[:80]}.png"
        with atomic_path(out / figure) as partial:
            result.plot(class_names=class_names, title=name).savefig(partial, dpi=110)
        for row in result.table():
            groups.append({"pair": name, **row, "example": i})
        records.append(
            {"pair": name, **result.summary()[0], "example": i, "figure": figure}
        )
    with (
        atomic_path(out / "groups.csv") as partial,
        partial.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(groups[0]))
        writer.writeheader()
        writer.writerows(groups)
    manifest = {**versions(), "cell": cell, "batch": batch, "device": device}
    summary = {"manifest": {**manifest, **(settings or {})}, "pairs": records}
    with atomic_path(out / "summary.json") as partial:
        partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return records


def _first_scores(model: nn.Module, images: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            return run_forward(model, (images,), ())
    except RuntimeError as error:
        raise ValueError(
            f"model: it does not take images of shape {tuple(images.shape)} ({error})"
        ) from error


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import captum_pse

    return {
        "captum_pse": captum_pse.__version__,
        "captum": captum.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def format_table(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> str:
    """The records as a table to print, one line a pair."""

    def label(number: int) -> str:
        name = f"{number}" if class_names is None else class_names[number]
        return name if len(name) <= 18 else name[:17] + "…"

    header = (
        *("pair", "true", "attack", "says true", "says attack"),
        *("attack logit", "true logit", "promotion", "suppression"),
        "prom/bal/supp/inactive",
    )
    rows: list[tuple[str, ...]] = [header]
    rows += [
        (
            r["pair"] if len(r["pair"]) <= 32 else r["pair"][:31] + "…",
            label(r["true_label"]),
            label(r["attack_label"]),
            "yes" if r["natural_agrees"] else f"NO: {label(r['natural_prediction'])}",
            "yes" if r["attack_holds"] else f"NO: {label(r['adversarial_prediction'])}",
            f"{r['attack_score_gain']:+.2f}",
            f"{-r['true_score_loss']:+.2f}",
            f"{r['promotion']:.2f}",
            f"{r['suppression']:.2f}",
            f"{r['promotion_dominated']}/{r['balanced']}"
            f"/{r['suppression_dominated']}/{r['inactive']}",
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
