"""The pages of the three levels, built from results and records of a set of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captum_pse.pixels.refinement import Refinement
from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import RegionDecomposition
from captum_pse.reports.page.groups import GroupValues
from captum_pse.reports.page.maps import group_pictures, region_pictures
from captum_pse.reports.page.page import Figure, Page, PairEntry
from captum_pse.reports.page.pictures import data_uri, kept_picture, pair_pictures
from captum_pse.reports.page.tables import (
    Cell,
    label_namer,
    pair_cells,
    set_counts,
    set_facts,
)
from captum_pse.reports.page.units import (
    changed_in_pair,
    layer_facts,
    most_changed,
    relation_table,
)
from captum_pse.units.result import UnitDecomposition

Record = Mapping[str, Any]

#: The file of the refinement curve, relative to the page.
REFINEMENT = "figures/refinement.png"


def decomposed_pair(
    result: PixelDecomposition | RegionDecomposition,
    record: Record,
    class_names: Sequence[str] | None,
    refinement: Refinement | None = None,
) -> PairEntry:
    """The entry of one pair, explained by its pixel groups or its regions.

    Args:
        result (PixelDecomposition or RegionDecomposition): The result on this pair
            alone.
        record (mapping): The record of the pair in the summary.
        class_names (sequence of str, optional): Names of the classes.
        refinement (Refinement, optional): The refinement of this pair alone.
            Default: None
    """
    pictures = pair_pictures(result.pair, 0)
    if isinstance(result, PixelDecomposition):
        maps = group_pictures(result, 0)
        groups = GroupValues.of_groups(result, 0)
    else:
        maps = region_pictures(result, 0)
        groups = GroupValues.of_cells(result, 0)
    scale = pictures[-1].scale
    if (
        refinement is not None
        and scale is not None
        and refinement.smallest_fraction[0] > 0
    ):
        pictures.append(kept_picture(refinement, 0, scale))
    return PairEntry(
        number=record["example"],
        name=record["pair"],
        score=result.pair.kind,
        cells=pair_cells(record, label_namer(class_names)),
        pictures=[*pictures, *maps],
        chosen=maps[0].key,
        groups=groups,
        figures=[Figure("all maps in one figure", record["figure"])],
    )


def decomposed_set(
    entries: list[PairEntry], summary: Mapping[str, Any], folder: Path
) -> Page:
    """The page of pairs explained by pixel groups or by regions.

    Args:
        entries (list[PairEntry]): The entries from :func:`decomposed_pair`.
        summary (mapping): The contents of ``summary.json``.
        folder (Path): The folder of the other results.
    """
    figures = []
    if "refinement" in summary:
        title = "Fraction of the groups that the attacks need"
        figures = [Figure(title, REFINEMENT, data_uri(folder / REFINEMENT))]
    return Page(
        level=summary["manifest"]["level"],
        pairs=entries,
        facts=set_facts(summary["pairs"]),
        manifest=summary["manifest"],
        files=_tables(folder),
        kinds=set_counts(summary["pairs"]),
        figures=figures,
    )


def unit_pair(
    results: Sequence[UnitDecomposition],
    records: Sequence[Record],
    units: Sequence[Record],
    class_names: Sequence[str] | None,
    folder: Path,
) -> PairEntry:
    """The entry of one pair, explained by the hidden units of some layers.

    Args:
        results (sequence of UnitDecomposition): The results on this pair alone, one
            for each layer.
        records (sequence of mapping): The records of the pair in the summary, one for
            each layer.
        units (sequence of mapping): The table of all units.
        class_names (sequence of str, optional): Names of the classes.
        folder (Path): The folder of the figures.
    """
    changes = {
        f"change in {record['layer']}": Cell(
            f"{record['mean_sensitivity']:.3g}", record["mean_sensitivity"]
        )
        for record in records
    }
    figures = [
        Figure(
            f"units of {record['layer']}",
            record["figure"],
            data_uri(folder / record["figure"]),
        )
        for record in records
    ]
    return PairEntry(
        number=records[0]["example"],
        name=records[0]["pair"],
        score=results[0].pair.kind,
        cells={**pair_cells(records[0], label_namer(class_names)), **changes},
        pictures=pair_pictures(results[0].pair, 0),
        chosen="delta",
        figures=figures,
        tables=[changed_in_pair(result, units) for result in results],
    )


def unit_set(
    entries: list[PairEntry],
    summary: Mapping[str, Any],
    units: Sequence[Record],
    folder: Path,
) -> Page:
    """The page of pairs explained by hidden units.

    Args:
        entries (list[PairEntry]): The entries from :func:`unit_pair`.
        summary (mapping): The contents of ``summary.json``.
        units (sequence of mapping): The table of all units.
        folder (Path): The folder of the other results.
    """
    first_layer = [
        record
        for record in summary["pairs"]
        if record["layer"] == summary["layers"][0]["layer"]
    ]
    tables, figures = most_changed(summary["layers"], units), []
    if "relation" in summary:
        tables.append(relation_table(summary["relation"]))
        figures = [
            Figure(title, name, data_uri(folder / name))
            for title, name in (
                ("Sensitivity and interpretability", "relation.png"),
                ("Accuracy with masked units", "masking.png"),
            )
        ]
    return Page(
        level="network",
        pairs=entries,
        facts=[*set_facts(first_layer), *layer_facts(summary["layers"])],
        manifest=summary["manifest"],
        files=_tables(folder),
        figures=figures,
        tables=tables,
    )


def _tables(folder: Path) -> list[str]:
    """The names of the tables and JSON files in a folder of results."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".csv", ".json"))
