"""Explains a set of pairs by the hidden units that they work through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_pse._io.files import atomic_results, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._io.text import file_name
from captum_pse._model.layers import last_spatial_layer
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

#: Which parts of a layer's units are masked.
PARTS = (0, 0.02, 0.05, 0.1, 0.2, 0.4)


def explain_units(
    model: nn.Module,
    pairs: AdversarialPair,
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    concepts: ConceptDataset | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Says which units of some layers the pairs move, and, given concepts, whether
    those units are interpretable and what masking them does.

    Puts into ``out``, all at once when all is done: ``index.html``, a page to look at
    all of it; ``figures/*.png``, one for each pair and layer; ``units.csv``, one row a
    unit; ``summary.json``. With concepts, also ``relation.csv``, ``relation.png`` and
    ``enrichment.csv`` (see :class:`captum_pse.Relation`), and ``masking.csv`` and
    ``masking.png``.

    Args:
        model (nn.Module): Takes the pairs' images as they are; moved to ``device``.
        pairs (AdversarialPair): Of one image input ``(N, C, H, W)``.
        out (str or Path): The folder, made where it is missing.
        layers (sequence of str, optional): Names of the layers; None takes the last one
            with a spatial output. Default: None
        concepts (ConceptDataset, optional): In the form that the model takes.
            Default: None
        batch_size (int, optional): How many images one pass holds. Default: 16
        device (str, optional): Where to compute. Default: ``"cpu"``
        class_names (sequence of str, optional): Names of the classes. Default: None
        settings (mapping, optional): More to write down in the summary. Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *dict*: What ``summary.json`` holds: ``manifest``, ``pairs``, ``layers`` and,
        with concepts, ``dissection``, ``relation``, ``enrichment`` and ``masking``.

    Raises:
        TypeError, ValueError: As :func:`captum_pse.reports.explain.explain`, or as the
            dissection.
    """
    model = model.to(device)
    first = check_pairs(model, pairs, device)
    names = list(layers) if layers else [last_spatial_layer(model, first)]
    method = DissectionSensitivity(model, names)
    own = {
        "level": "network",
        "layers": names,
        "batch_size": batch_size,
        "device": device,
    }
    written = manifest(own, settings)
    dissection = None
    if concepts is not None:
        dissection = NetworkDissection(model, names).dissect(
            concepts, batch_size=batch_size, device=device, show_progress=show_progress
        )
    moved: list[UnitSensitivity] = method.over(
        pairs, batch_size=batch_size, device=device, show_progress=show_progress
    )
    summary: dict[str, Any] = {
        "manifest": written,
        "layers": [_of_layer(layer) for layer in moved],
    }
    units = _units(moved, dissection)
    with atomic_results(out) as folder:
        (folder / "figures").mkdir()
        summary["pairs"], entries = _draw_pairs(
            method, pairs, units, folder, device, class_names, show_progress
        )
        write_csv(folder / "units.csv", units)
        if dissection is not None:
            relation = relate(moved, dissection)
            curves = _mask(model, pairs.to(device), moved, dissection, batch_size,
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
            plot_relation(relation, title=title).savefig(
                folder / "relation.png", dpi=110
            )
            plot_masking(curves, title=title).savefig(folder / "masking.png", dpi=110)
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
    """One record for each pair and layer, with its figure, and the pairs' entries in
    the report."""
    records: list[dict[str, Any]] = []
    entries = []
    for i, name, results in each_pair(pairs, method.decompose, device, show_progress):
        for result in results:
            figure = f"figures/{i:03d}-{file_name(name)}-{file_name(result.layer)}.png"
            drawn = result.plot(class_names=class_names, title=name)
            drawn.savefig(folder / figure, dpi=110)
            record = {"pair": name, **result.summary()[0], "example": i}
            records.append({**record, "layer": result.layer, "figure": figure})
        of_pair = records[-len(results) :]
        entries.append(unit_pair(results, of_pair, units, class_names, folder))
    return records, entries


def _of_layer(layer: UnitSensitivity) -> dict[str, Any]:
    moved = layer.against_control
    order = moved.argsort(descending=True, stable=True)[:10]
    return {
        "layer": layer.layer,
        "units": len(layer),
        "pairs": layer.n,
        "mean_sensitivity": float(layer.mean.mean()),
        "mean_control": float(layer.control.mean()),
        "units_moved_most_against_control": order.tolist(),
    }


def _units(
    moved: Sequence[UnitSensitivity], dissection: Dissection | None
) -> list[dict[str, Any]]:
    rows = [row for layer in moved for row in layer.table()]
    if dissection is None:
        return rows
    found = {(row["layer"], row["unit"]): row for row in dissection.table()}
    return [row | found[row["layer"], row["unit"]] for row in rows]


def _mask(
    model: nn.Module,
    pairs: AdversarialPair,
    moved: Sequence[UnitSensitivity],
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
            sorted({units_in(part, len(layer)) for part in PARTS}),
            batch_size=batch_size,
            show_progress=show_progress,
        )
        for layer in moved
    ]
