"""The tables of the study: means over the pairs of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from captum_pse._statistics import mean_test, share_interval
from captum_pse.groups.types import TYPE_NAMES
from captum_pse.pixels.rankings import RANKINGS
from captum_pse.studies.pair_record import READINGS, WEIGHTS
from captum_pse.studies.score_agreement import agreement_rows

Record = Mapping[str, Any]
Row = dict[str, Any]
Tables = dict[str, list[Row]]


def predictions_match(record: Record) -> bool:
    """Whether the model predicts the true label on the natural image and the attack
    label on the adversarial image.

    All forward passes have to agree: minimum-norm attacks lie on the decision boundary,
    where the prediction depends on rounding, and so on the batch.
    """
    labels = record["labels"]
    smallest = [
        refined["smallest_fraction"] for refined in record["refinement"].values()
    ]
    return bool(
        labels["natural_agrees"] and labels["attack_holds"] and None not in smallest
    )


def pair_tables(
    records: Mapping[str, Sequence[Record]], fractions: Sequence[float]
) -> Tables:
    """The tables of what is measured on each pair, by name.

    Args:
        records (mapping): By attack, one record for each pair; see
            :func:`captum_pse.studies.pair_record.study_pair`.
        fractions (sequence of float): The fractions of the refinements.
    """
    tables: Tables = {name: [] for name in (
        "attacks", "pairs", "types", "scores", "correlation", "refinement",
        "smallest_fraction", "interpretability",
    )}  # fmt: skip
    for attack, all_records in records.items():
        studied = list(filter(predictions_match, all_records))
        rows = {
            "attacks": [_counts(all_records)],
            "pairs": [_pair(record) for record in all_records],
            "types": _types(studied),
            "scores": agreement_rows([record["scores"] for record in studied]),
            "correlation": [_correlation(studied)],
            "refinement": _refinement(studied, fractions),
            "smallest_fraction": _smallest_fraction(studied),
            "interpretability": _interpretability(studied),
        }
        for name, added in rows.items():
            tables[name] += [{"attack": attack, **row} for row in added]
    return tables


def _counts(records: Sequence[Record]) -> Row:
    labels = [record["labels"] for record in records]
    return {
        "pairs": len(records),
        "natural_agrees": sum(bool(label["natural_agrees"]) for label in labels),
        "attack_holds": sum(bool(label["attack_holds"]) for label in labels),
        "studied": sum(map(predictions_match, records)),
    }


def _pair(record: Record) -> Row:
    return {
        "pair": record["pair"],
        "studied": predictions_match(record),
        **record["labels"],
        "correlation": record["correlation"],
        **{
            f"smallest_fraction_by_{k}": record["refinement"][k]["smallest_fraction"]
            for k in RANKINGS
        },
        **{
            f"{name}_{k}": record["interpretability"][k][name]
            for name in ("lift", "rank")
            for k in READINGS
        },
    }


def _types(records: Sequence[Record]) -> list[Row]:
    return [
        {
            "groups": weight,
            "type": kind,
            **mean_test([r["types"][weight][kind] for r in records], (0, 1)).columns(),
        }
        for weight in WEIGHTS
        for kind in TYPE_NAMES
    ]


def _correlation(records: Sequence[Record]) -> Row:
    found = mean_test([record["correlation"] for record in records], (-1, 1))
    return {**found.columns(), "p": found.p}


def _refinement(records: Sequence[Record], fractions: Sequence[float]) -> list[Row]:
    rows = []
    for ranking in RANKINGS:
        refined = [record["refinement"][ranking] for record in records]
        rows += [
            {"kept_by": ranking, "fraction": fraction}
            | _named("reaches", share_interval([r["reaches"][i] for r in refined]))
            | _named("leaves", share_interval([r["leaves"][i] for r in refined]))
            | _named("L2", mean_test([r["L2"][i] for r in refined], (0, inf)).columns())
            | {"pairs": len(refined)}
            for i, fraction in enumerate(fractions)
        ]
    return rows


def _smallest_fraction(records: Sequence[Record]) -> list[Row]:
    return [
        {
            "kept_by": ranking,
            **mean_test(
                [r["refinement"][ranking]["smallest_fraction"] for r in records],
                (0, 1),
            ).columns(),
        }
        for ranking in RANKINGS
    ]


def _interpretability(records: Sequence[Record]) -> list[Row]:
    rows = []
    for reading in READINGS:
        scores = [record["interpretability"][reading] for record in records]
        row: Row = {"reads": reading}
        for name, most in (("score", 1), ("expected", 1), ("lift", inf), ("rank", 1)):
            found = mean_test([s[name] for s in scores], (0, most))
            row |= _named(name, found.columns())
        row["pairs"] = len(scores)
        row["p"] = mean_test([s["rank"] - 0.5 for s in scores]).p
        rows.append(row)
    return rows


def _named(name: str, found: Mapping[str, Any]) -> Row:
    """A mean and its interval, under a name."""
    return {name: found["mean"], f"{name}_low": found["low"],
            f"{name}_high": found["high"]}  # fmt: skip
