"""Explains a set of pairs and writes what it finds into a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_pse._engine.choice import Engine
from captum_pse._files import (
    atomic_results,
    manifest,
    plain,
    write_csv,
    write_json,
)
from captum_pse._forward import first_scores
from captum_pse._layers import last_spatial_layer
from captum_pse._text import file_name, printable
from captum_pse.adversarial_cam import AdversarialCAM
from captum_pse.groups import image_mask
from captum_pse.labels import check_index, label_index
from captum_pse.pair import AdversarialPair
from captum_pse.pair_labels import PredictionWarning
from captum_pse.pixel_decomposition import PixelDecomposition, PixelMethod
from captum_pse.promotion_suppression import PromotionSuppression
from captum_pse.refinement import Curve, Refinement, mean_curve, refine
from captum_pse.region_decomposition import RegionDecomposition
from captum_pse.report import (
    REFINEMENT,
    PairEntry,
    decomposed_pair,
    decomposed_set,
    write_page,
)
from captum_pse.visualization import plot_refinements

Level: TypeAlias = Literal["pixel", "image"]
LEVELS: tuple[str, ...] = get_args(Level)

#: What is said of one pair; how little of it is enough is asked of pixel groups.
Explained: TypeAlias = tuple[
    PixelDecomposition | RegionDecomposition, Refinement | None
]


def explain(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    level: Level = "pixel",
    cell: int | None = None,
    method: PixelMethod = "exact",
    engine: Engine = "auto",
    layer: str | None = None,
    batch: int = 16,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Explains each pair of images by its pixel groups or its regions.

    Pixel groups are also ranked by their effect, to see on how few of them the attack
    is enough (:func:`captum_pse.refine`).

    Puts into ``out``, all at once when all is done: ``index.html``, a page to look at
    all of it; ``figures/*.png``, one a pair; ``summary.json``, with one record a pair
    and the versions and settings; and, for pixel groups, ``groups.csv``, one row a
    group, and ``figures/refinement.png``, whose curve ``summary.json`` holds too. They
    replace those of an earlier run of this level; other files there stay.

    Args:
        model (nn.Module): Takes the pairs' images as they are; moved to ``device``.
        pairs (AdversarialPair): Of one image input ``(N, C, H, W)``.
        out (str or Path): The folder, made where it is missing.
        level (str, optional): ``"pixel"`` for :class:`captum_pse.PromotionSuppression`,
            ``"image"`` for :class:`captum_pse.AdversarialCAM`. Default: ``"pixel"``
        cell (int, optional): Side of the pixel groups in pixels; None takes
            :func:`captum_pse.default_feature_mask`. Default: None
        method (str, optional): Of the pixel groups, ``"exact"`` or ``"gradient"``; see
            :class:`captum_pse.PromotionSuppression`. Default: ``"exact"``
        engine (str, optional): Of exact pixel groups, ``"auto"``, ``"dense"`` or
            ``"incremental"``, likewise. Default: ``"auto"``
        layer (str, optional): Name of the layer of the maps; None takes the last one
            with a spatial output. Default: None
        batch (int, optional): How many images one pass holds. Default: 16
        device (str, optional): Where to compute. Default: ``"cpu"``
        class_names (sequence of str, optional): Names of the classes. Default: None
        settings (mapping, optional): More to write down in the summary. Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *list[dict]*: The records of ``summary.json``. A model that does not say the
        labels is reported there, by ``natural_agrees`` and ``attack_holds``. For pixel
        groups ``smallest`` is the part of them that is enough, None where not even all
        are.

    Raises:
        ValueError: The model does not take the images, a label is not one of its
            classes, the model has no such layer, or the pairs are not images.
    """
    model = model.to(device)
    first = check_pairs(model, pairs, device)
    if level == "pixel":
        mask = image_mask(first[0], cell)
        explained, chosen = _by_groups(model, mask, method, engine, batch)
        chosen = {"cell": cell, **chosen}
    elif level == "image":
        layer = layer or last_spatial_layer(model, first)
        explained, chosen = _by_regions(model, layer)
    else:
        raise ValueError(f"level: got {level!r}, want one of {', '.join(LEVELS)}")
    chosen = {"level": level, **chosen, "batch": batch, "device": device}
    written = manifest(chosen, settings)
    records: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    entries: list[PairEntry] = []
    curves: list[Curve] = []
    with atomic_results(out) as folder:
        (folder / "figures").mkdir()
        for i, name, (result, refinement) in each_pair(
            pairs, explained, device, show_progress
        ):
            path = f"figures/{i:03d}-{file_name(name)}.png"
            drawn = result.plot(class_names=class_names, title=name)
            drawn.savefig(folder / path, dpi=110)
            of_pair = {"pair": name, "example": i}
            if isinstance(result, PixelDecomposition):
                rows += [{**of_pair, **row, "example": i} for row in result.table()]
                of_pair["engine"] = result.engine
            record = {**of_pair, **result.summary()[0], "example": i, "figure": path}
            if refinement is not None:
                record["smallest"] = plain(float(refinement.smallest))
                curves.append(refinement.curve())
            records.append(record)
            entries.append(decomposed_pair(result, record, class_names, refinement))
        summary: dict[str, Any] = {"manifest": written, "pairs": records}
        if curves:
            write_csv(folder / "groups.csv", rows)
            summary["refinement"] = mean_curve(curves)
            title = f"{len(pairs)} attacks, kept on the groups with the largest effect"
            figure = plot_refinements({"": summary["refinement"]}, title=title)
            figure.savefig(folder / REFINEMENT, dpi=110)
        write_json(folder / "summary.json", summary)
        page = decomposed_set(entries, summary, folder)
        write_page(folder / "index.html", page)
    return records


def _by_groups(
    model: nn.Module,
    mask: Tensor,
    method: PixelMethod,
    engine: Engine,
    batch: int,
) -> tuple[Callable[..., Explained], dict[str, Any]]:
    """What explains a pair by its pixel groups, and its settings."""
    groups = PromotionSuppression(model, method=method, engine=engine)

    def explained(*pair: Any) -> Explained:
        result = groups.decompose(
            *pair, feature_mask=mask, perturbations_per_eval=batch
        )
        effect = result.attribution("effect")
        return result, refine(model, *pair, scores=effect, feature_mask=mask)

    names = ("eps", "threshold", "method", "n_steps")
    return explained, {name: getattr(groups, name) for name in names}


def _by_regions(
    model: nn.Module, layer: str
) -> tuple[Callable[..., Explained], dict[str, Any]]:
    """What explains a pair by its regions, and its settings."""
    # At the layer's own size, so that the page can tell its cells apart.
    maps = AdversarialCAM(model, layer, interpolate=False)

    def explained(*pair: Any) -> Explained:
        result = maps.decompose(*pair)
        shape = tuple(result.natural_true.shape)
        if len(shape) != 4:
            raise ValueError(
                f"layer: got maps of shape {shape} at {layer}, want (N, 1, H, W), to "
                "lay over images"
            )
        return result, None

    return explained, {"layer": layer, "method": maps.method}


def each_pair(
    pairs: AdversarialPair,
    decompose: Callable[..., Any],
    device: str,
    show_progress: bool,
) -> Iterator[tuple[int, str, Any]]:
    """The number, the name and the decomposition of each pair.

    That the model does not say the labels is for the records to tell, by
    ``natural_agrees`` and ``attack_holds``, not for a warning.
    """
    from tqdm.auto import tqdm

    bar = tqdm(pairs.names, "explaining", unit="pair", disable=not show_progress)
    for i, name in enumerate(bar):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PredictionWarning)
            result = decompose(*pairs.select(i).to(device))
        yield i, name, result


def check_pairs(
    model: nn.Module, pairs: AdversarialPair, device: str
) -> tuple[torch.Tensor]:
    """Raises before anything is computed where pairs and model do not fit together.

    Returns:
        *tuple[Tensor]*: The first natural image, ``(1, C, H, W)``, on the device.

    Raises:
        ValueError: The pairs are not images, the model does not take them, or a label
            is not one of its classes.
    """
    if not isinstance(pairs.natural, torch.Tensor) or pairs.natural.dim() != 4:
        raise ValueError("pairs: want one image input of shape (N, C, H, W)")
    first = (pairs.natural[:1].to(device),)
    with torch.no_grad():
        scores = first_scores(model, first)
    for name in ("true_label", "attack_label"):
        check_index(name, label_index(name, getattr(pairs, name), len(pairs)), scores)
    return first


def _effects(record: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the table that depend on the level."""
    if "groups" not in record:
        return {
            f"{name} IS (lift)": (
                f"{record[f'{name}_is']:.2f} ({record[f'{name}_is_lift']:.2f})"
            )
            for name in ("promotion", "suppression")
        }
    counts = ("promotion_dominated", "balanced", "suppression_dominated", "inactive")
    return {
        "promotion": f"{record['promotion']:.2f}",
        "suppression": f"{record['suppression']:.2f}",
        "prom/bal/supp/inactive": "/".join(str(record[count]) for count in counts),
    }


def format_table(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> str:
    """The records as a table to print, one line a pair."""

    def label(number: int) -> str:
        name = f"{number}" if class_names is None else class_names[number]
        return printable(name, most=18)

    def answer(record: Mapping[str, Any], agrees: str, prediction: str) -> str:
        return "yes" if record[agrees] else f"NO: {label(record[prediction])}"

    table = [
        {
            "pair": printable(r["pair"], most=32),
            "true": label(r["true_label"]),
            "attack": label(r["attack_label"]),
            "says true": answer(r, "natural_agrees", "natural_prediction"),
            "says attack": answer(r, "attack_holds", "adversarial_prediction"),
            "attack logit": f"{r['attack_score_gain']:+.2f}",
            "true logit": f"{-r['true_score_loss']:+.2f}",
            **_effects(r),
        }
        for r in records
    ]
    rows = [list(table[0]), *(list(row.values()) for row in table)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    ruled = [lines[0], "-" * len(lines[0]), *lines[1:]]
    return "\n".join(line.rstrip() for line in ruled)
