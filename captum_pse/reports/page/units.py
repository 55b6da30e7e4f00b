"""The facts and tables of the report on hidden units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_pse.reports.page.tables import Fact, Table
from captum_pse.units.result import UnitDecomposition

Row = Mapping[str, Any]


def layer_facts(layers: Sequence[Row]) -> list[Fact]:
    """The mean change of the units of each layer, and that under noise of the same
    size."""
    return [
        Fact(
            f"mean change in {layer['layer']}",
            f"{layer['mean_sensitivity']:.3g}",
            f"{layer['units']} units; under noise of the same size "
            f"{layer['mean_control']:.3g}",
        )
        for layer in layers
    ]


def most_changed(layers: Sequence[Row], units: Sequence[Row]) -> list[Table]:
    """The units of each layer that change most relative to noise.

    Args:
        layers (sequence of mapping): The records of the layers in the summary.
        units (sequence of mapping): The table of all units, with their concepts if a
            concept set was given.
    """
    by_unit = {(row["layer"], row["unit"]): row for row in units}
    tables = []
    for layer in layers:
        name = layer["layer"]
        rows = [by_unit[name, unit] for unit in layer["most_changed_units"]]
        columns = {
            "unit": [str(row["unit"]) for row in rows],
            "change": [f"{row['sensitivity']:.3g}" for row in rows],
            "under noise": [f"{row['control']:.3g}" for row in rows],
            "relative to noise": [f"{row['against_control']:.2f}" for row in rows],
        }
        if "concept" in rows[0]:
            columns |= {
                "closest concept": [_concept(row) for row in rows],
                "IoU": [f"{row['iou']:.3f}" for row in rows],
                "detector": ["yes" if row["detector"] else "no" for row in rows],
            }
        title = f"Units of {name} that changed most"
        lines = list(zip(*columns.values(), strict=True))
        tables.append(Table(title, tuple(columns), lines))
    return tables


def relation_table(correlations: Sequence[Row]) -> Table:
    """The correlation of sensitivity and largest IoU, one row for each layer."""
    header = (
        *("layer", "detectors", "Spearman's rho", "p"),
        *("rho, scale fixed", "p, scale fixed"),
    )
    rows = [
        (
            str(row["layer"]),
            f"{row['detectors']} of {row['units']}",
            f"{row['rho']:.2f}",
            f"{row['p']:.2g}",
            f"{row['partial_rho']:.2f}",
            f"{row['partial_p']:.2g}",
        )
        for row in correlations
    ]
    return Table("Sensitivity and largest IoU of the units", header, rows)


def changed_in_pair(
    result: UnitDecomposition, units: Sequence[Row], top: int = 5
) -> Table:
    """The units of a layer that change most in one pair, relative to their scale."""
    by_unit = {row["unit"]: row for row in units if row["layer"] == result.layer}
    change, scale = result.sensitivity()[0], result.scale()
    relative = result.sensitivity(relative=True)[0]
    order = relative.argsort(descending=True, stable=True)[:top].tolist()
    columns = {
        "unit": [str(unit) for unit in order],
        "change": [f"{float(change[unit]):.3g}" for unit in order],
        "natural": [f"{float(scale[unit]):.3g}" for unit in order],
        "relative to scale": [f"{float(relative[unit]):.2f}" for unit in order],
    }
    if "concept" in units[0]:
        columns["closest concept"] = [_concept(by_unit[unit]) for unit in order]
    title = f"Units of {result.layer} that changed most in this pair"
    return Table(title, tuple(columns), list(zip(*columns.values(), strict=True)))


def _concept(row: Row) -> str:
    return f"{row['concept']} ({row['category']})" if row["concept"] else "none"
