"""Explains pairs by hidden units and writes a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_pse._io.files import atomic_results, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._io.text import file_name
from captum_pse._model.checks import check_int
from captum_pse._model.layers import last_spatial_layer
from captum_pse._model.score import Score
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.network_dissection import NetworkDissection
from captum_pse.dissection.result import Dissection
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.reports.each_pair import each_pair
from captum_pse.reports.page.levels import unit_pair, unit_set
from captum_pse.reports.page.page import PairEntry, write_page
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.figure import plot_masking, plot_relation
from captum_pse.units.masking_curves import MaskingCurves, evaluate_masking
from captum_pse.units.rankings import unit_rankings, units_in
from captum_pse.units.relation import relate
from captum_pse.units.result import UnitDecomposition
from captum_pse.units.sensitivity import UnitSensitivity

#: The fractions of a layer's units that are masked.
MASKED_FRACTIONS = (0, 0.02, 0.05, 0.1, 0.2, 0.4)


def explain_units(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    concepts: ConceptDataset | None = None,
    score: Score = "logit",
    batch_size: int = 16,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Measures how much the pairs change the units of some layers.

    With concepts, it also relates the change of the units to the concepts that they
    detect, and measures the model's accuracy with masked units.

    The results are written into ``out`` together at the end:

    - ``index.html``: a page that shows all results
    - ``figures/*.png``: one figure for each pair and layer
    - ``units.csv``: one row for each unit
    - ``summary.json``: the value that this function returns
    - with concepts, ``relation.csv``, ``relation.png`` and ``enrichment.csv``: see
      :class:`captum_pse.Relation`
    - with concepts, ``masking.csv`` and ``masking.png``: see
      :func:`captum_pse.evaluate_masking`

    Args:
        model (nn.Module): The model, which takes the images of the pairs as they are.
            It is moved to ``device``.
        pairs (AdversarialPair): Pairs of one image input ``(N, C, H, W)``.
        out (str or Path): The folder of the results, created if it is missing.
        layers (sequence of str, optional): Names of the layers. None means the last
            layer with a spatial output. Default: None
        concepts (ConceptDataset, optional): Images with concepts, in the form that the
            model takes. Default: None
        score (str, optional): The scores whose changes are stated with each pair; see
            :class:`captum_pse.DissectionSensitivity`. Default: ``"logit"``
        batch_size (int, optional): Images in one forward pass. Default: 16
        device (str, optional): Device to compute on. Default: ``"cpu"``
        class_names (sequence of str, optional): Names of the classes. Default: None
        settings (mapping, optional): More settings to write down in ``summary.json``.
            Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *dict*: The contents of ``summary.json``: ``manifest``, ``pairs``, ``layers``
        and, with concepts, ``dissection``, ``relation``, ``enrichment`` and
        ``masking``.

    Raises:
        TypeError, ValueError: As :func:`captum_pse.reports.explain.explain` and
            :meth:`captum_pse.NetworkDissection.dissect`.
    """
    batch_size = check_int("batch_size", batch_size, 1)
    model = model.to(device)
    first = check_pairs(model, pairs, device, score)
    names = list(layers) if layers else [last_spatial_layer(model, first)]
    method = DissectionSensitivity(model, names, score=score)
    own = {
        "level": "network",
        "layers": names,
        "score": score,
        "batch_size": batch_size,
        "device": device,
    }
    written = manifest(own, settings)
    dissection = None
    if concepts is not None:
        dissection = NetworkDissection(model, names).dissect(
            concepts, batch_size=batch_size, device=device, show_progress=show_progress
        )
    sensitivity: list[UnitSensitivity] = method.over(
        pairs, batch_size=batch_size, device=device, show_progress=show_progress
    )
    summary: dict[str, Any] = {
        "manifest": written,
        "layers": [_layer_record(layer) for layer in sensitivity],
    }
    units = _units(sensitivity, dissection)
    with atomic_results(out) as folder:
        (folder / "figures").mkdir()
        summary["pairs"], entries = _draw_pairs(
            method, pairs, units, folder, device, class_names, show_progress
        )
        write_csv(folder / "units.csv", units)
        if dissection is not None:
            relation = relate(sensitivity, dissection)
            curves = _mask(model, pairs.to(device), sensitivity, dissection, batch_size,
                           show_progress)  # fmt: skip
            summary |= {
                "dissection": dissection.summary(),
                "relation": relation.table(),
                "enrichment": relation.enrichment_table(),
                "masking": [row for curve in curves for row in curve.table()],
            }
            write_csv(folder / "relation.csv", relation.table())
            if relation.enrichment_table():
                write_csv(folder / "enrichment.csv", relation.enrichment_table())
            write_csv(folder / "masking.csv", summary["masking"])
            title = f"{len(pairs)} pairs"
            plot_relation(relation, title=title).save(folder / "relation.png")
            plot_masking(curves, title=title).save(folder / "masking.png")
        write_json(folder / "summary.json", summary)
        page = unit_set(entries, summary, units, folder)
        write_page(folder / "index.html", page)
    return summary


def _draw_pairs(
    method: DissectionSensitivity[
        list[Tensor], list[UnitDecomposition], list[UnitSensitivity]
    ],
    pairs: AdversarialPair,
    units: Sequence[Mapping[str, Any]],
    folder: Path,
    device: str,
    class_names: Sequence[str] | None,
    show_progress: bool,
) -> tuple[list[dict[str, Any]], list[PairEntry]]:
    """Draws a figure for each pair and layer.

    Returns:
        *tuple*: One record for each pair and layer, and the entries of the pairs in
        the report.
    """
    records: list[dict[str, Any]] = []
    entries = []
    for i, name, results in each_pair(pairs, method.decompose, device, show_progress):
        for result in results:
            figure = f"figures/{i:03d}-{file_name(name)}-{file_name(result.layer)}.png"
            drawn = result.plot(class_names=class_names, title=name)
            drawn.save(folder / figure)
            record = {"pair": name, **result.summary()[0], "example": i}
            records.append({**record, "layer": result.layer, "figure": figure})
        added = records[-len(results) :]
        entries.append(unit_pair(results, added, units, class_names, folder))
    return records, entries


def _layer_record(layer: UnitSensitivity) -> dict[str, Any]:
    most = layer.against_control.argsort(descending=True, stable=True)[:10]
    return {
        "layer": layer.layer,
        "units": len(layer),
        "pairs": layer.n,
        "mean_sensitivity": float(layer.mean.mean()),
        "mean_control": float(layer.control.mean()),
        "most_changed_units": most.tolist(),
    }


def _units(
    sensitivity: Sequence[UnitSensitivity], dissection: Dissection | None
) -> list[dict[str, Any]]:
    rows = [row for layer in sensitivity for row in layer.table()]
    if dissection is None:
        return rows
    found = {(row["layer"], row["unit"]): row for row in dissection.table()}
    return [row | found[row["layer"], row["unit"]] for row in rows]


def _mask(
    model: nn.Module,
    pairs: AdversarialPair,
    sensitivity: Sequence[UnitSensitivity],
    dissection: Dissection,
    batch_size: int,
    show_progress: bool,
) -> list[MaskingCurves]:
    return [
        evaluate_masking(
            model,
            pairs,
            layer.layer,
            unit_rankings(layer, dissection),
            sorted({units_in(fraction, len(layer)) for fraction in MASKED_FRACTIONS}),
            batch_size=batch_size,
            show_progress=show_progress,
        )
        for layer in sensitivity
    ]
