"""Explains pairs by their pixel groups or regions and writes a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from captum_pse._engine.choice import Engine
from captum_pse._io.files import atomic_results, plain, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._io.text import file_name
from captum_pse._model.checks import check_choice, check_int, check_optional_int
from captum_pse._model.layers import last_spatial_layer
from captum_pse._model.score import Score
from captum_pse.groups.masks import image_mask
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.pixels.figure import plot_refinements
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.refine import refine_scored
from captum_pse.pixels.refinement import Curve, Refinement, mean_curve
from captum_pse.pixels.result import PixelDecomposition, PixelMethod
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.regions.result import RegionDecomposition
from captum_pse.reports.each_pair import each_pair
from captum_pse.reports.page.levels import REFINEMENT, decomposed_pair, decomposed_set
from captum_pse.reports.page.page import PairEntry, write_page

Level: TypeAlias = Literal["pixel", "image"]
LEVELS: tuple[str, ...] = get_args(Level)

#: The results on one pair. Only pixel groups have a refinement.
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
    score: Score = "logit",
    batch_size: int = 16,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Explains each pair of images by its pixel groups or its regions.

    Pixel groups are also ranked by their effect, to find the smallest fraction on which
    the attack still succeeds (:func:`captum_pse.refine`).

    The results are written into ``out`` together at the end:

    - ``index.html``: a page that shows all results
    - ``figures/*.png``: one figure for each pair
    - ``summary.json``: one record for each pair, the versions and the settings
    - for pixel groups, ``groups.csv``: one row for each group
    - for pixel groups, ``figures/refinement.png``: the mean refinement curve, whose
      values are in ``summary.json``

    They replace the results of an earlier run of the same level. Other files in ``out``
    are kept.

    Args:
        model (nn.Module): The model, which takes the images of the pairs as they are.
            It is moved to ``device``.
        pairs (AdversarialPair): Pairs of one image input ``(N, C, H, W)``.
        out (str or Path): The folder of the results, created if it is missing.
        level (str, optional): ``"pixel"`` for :class:`captum_pse.PromotionSuppression`,
            ``"image"`` for :class:`captum_pse.AdversarialCAM`. Default: ``"pixel"``
        cell (int, optional): Side of a pixel group in pixels. None means
            :func:`captum_pse.default_feature_mask`. Default: None
        method (str, optional): Method of the pixel groups, ``"exact"`` or
            ``"gradient"``; see :class:`captum_pse.PromotionSuppression`.
            Default: ``"exact"``
        engine (str, optional): Engine of exact pixel groups, ``"auto"``, ``"dense"`` or
            ``"incremental"``; see :class:`captum_pse.PromotionSuppression`.
            Default: ``"auto"``
        layer (str, optional): Name of the layer of the class activation maps. None
            takes the last layer with a spatial output. Default: None
        score (str, optional): Effects are differences of ``"logit"``, ``"centered"`` or
            ``"log_softmax"``; see :class:`captum_pse.PromotionSuppression`.
            Default: ``"logit"``
        batch_size (int, optional): Images in one forward pass. Default: 16
        device (str, optional): Device to compute on. Default: ``"cpu"``
        class_names (sequence of str, optional): Names of the classes. Default: None
        settings (mapping, optional): More settings to write down in ``summary.json``.
            Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *list[dict]*: The records of ``summary.json``. ``natural_agrees`` and
        ``attack_holds`` state whether the model's predictions match the labels. For
        pixel groups, ``smallest_fraction`` is the smallest fraction of the groups on
        which the attack succeeds, None if it fails on all groups.

    Raises:
        TypeError, ValueError: The model does not take the images, returns probabilities
            although another score is wanted, or has no such layer, a label is not one
            of its classes, the pairs are not images, or a setting has the name of one
            that the result writes down itself.

    Warns:
        ProbabilityWarning: The model returns probabilities instead of logits.
    """
    check_choice("level", level, LEVELS)
    cell = check_optional_int("cell", cell, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    model = model.to(device)
    first = check_pairs(model, pairs, device, score)
    if level == "pixel":
        mask = image_mask(first[0], cell)
        explained, chosen = _by_groups(model, mask, method, engine, batch_size, score)
        chosen = {"cell": cell, **chosen}
    else:
        layer = layer or last_spatial_layer(model, first)
        explained, chosen = _by_regions(model, layer, score)
    chosen = {"level": level, **chosen, "batch_size": batch_size, "device": device}
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
            drawn.save(folder / path)
            head = {"pair": name, "example": i}
            if isinstance(result, PixelDecomposition):
                rows += [{**head, **row, "example": i} for row in result.table()]
                head["engine"] = result.engine
            record = {**head, **result.summary()[0], "example": i, "figure": path}
            if refinement is not None:
                record["smallest_fraction"] = plain(float(refinement.smallest_fraction))
                curves.append(refinement.table())
            records.append(record)
            entries.append(decomposed_pair(result, record, class_names, refinement))
        summary: dict[str, Any] = {"manifest": written, "pairs": records}
        if curves:
            write_csv(folder / "groups.csv", rows)
            summary["refinement"] = mean_curve(curves)
            title = f"{len(pairs)} attacks on the groups with the largest effect"
            figure = plot_refinements({"": summary["refinement"]}, title=title)
            figure.save(folder / REFINEMENT)
        write_json(folder / "summary.json", summary)
        page = decomposed_set(entries, summary, folder)
        write_page(folder / "index.html", page)
    return records


def _by_groups(
    model: nn.Module,
    mask: Tensor,
    method: PixelMethod,
    engine: Engine,
    batch_size: int,
    score: Score,
) -> tuple[Callable[..., Explained], dict[str, Any]]:
    """A function that explains a pair by its pixel groups, and its settings."""
    groups = PromotionSuppression(model, method=method, engine=engine, score=score)

    def explained(*pair: Any) -> Explained:
        result = groups.decompose(
            *pair, feature_mask=mask, perturbations_per_eval=batch_size
        )
        effect = result.attribution("effect")
        return result, refine_scored(
            model, result.pair, scores=effect, feature_mask=mask
        )

    names = ("eps", "threshold", "method", "n_steps", "score")
    return explained, {name: getattr(groups, name) for name in names}


def _by_regions(
    model: nn.Module, layer: str, score: Score
) -> tuple[Callable[..., Explained], dict[str, Any]]:
    """A function that explains a pair by its regions, and its settings."""
    # At the size of the layer: the page shows the values of its cells.
    maps = AdversarialCAM(model, layer, interpolate=False, score=score)

    def explained(*pair: Any) -> Explained:
        result = maps.decompose(*pair)
        shape = tuple(result.natural_true.shape)
        if len(shape) != 4:
            raise ValueError(
                f"layer: got maps of shape {shape} at {layer}, want (N, 1, H, W)"
            )
        return result, None

    return explained, {"layer": layer, "method": maps.method, "score": score}
