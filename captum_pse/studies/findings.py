"""The paper's findings, tested on the pairs of each attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_pse._statistics import (
    MIN_PAIRS,
    adjusted,
    known,
    mean_interval,
    signed_rank,
)
from captum_pse.groups.types import TYPE_NAMES
from captum_pse.studies.pair_record import READINGS
from captum_pse.studies.tables import Record, Row, Tables, predictions_match

#: A type of groups occurs if at least this fraction of the groups with an effect above
#: the median is of it.
MIN_FRACTION = 0.05
#: Significance level of the adjusted p-values.
ALPHA = 0.05
HOLDS, FAILS, INCONCLUSIVE = "holds", "does not hold", "inconclusive"

#: The rankings that "effect" is compared with, and their names in a finding.
_OTHER_RANKINGS = {"random": "in random order", "|delta|": "ranked by |delta|"}
#: The attacks on masked models, and their names in a finding.
_ATTACKS = {"adversarial": "the stored attack", "adaptive": "an adaptive attack"}

#: By attack and layer, the gains in accuracy of each pair; see
#: :meth:`captum_pse.studies.stages.Stages.gains_over_random`.
Gains = Mapping[tuple[str, str], Mapping[str, Any]]


def findings(
    records: Mapping[str, Sequence[Record]], tables: Tables, gains: Gains, seed: int
) -> list[Row]:
    """One row for each finding of the paper and each attack.

    A finding that is tested ``holds`` if its adjusted p is below 0.05 and the ranks, or
    the correlation, have the sign that the paper reports. It ``does not hold`` if they
    have the opposite sign. Otherwise, and for fewer than 6 pairs, it is
    ``inconclusive``. Whether all three types of groups occur is judged by the intervals
    of their fractions, not by a test.

    Args:
        records (mapping): By attack, one record for each pair.
        tables (mapping): The tables ``types`` and, with concepts, ``relation``.
        gains (mapping): By attack and layer: ``units``, the number of masked units; and
            for the stored attack (``adversarial``) and the ``adaptive`` one, for each
            pair, the accuracy with the most sensitive units masked minus that with as
            many random units masked.
        seed (int): Seed of the bootstrap and the permutations.

    Returns:
        *list[dict]*: ``attack``, ``finding``, ``about`` (what ``value`` is), ``value``
        (the effect size, 0 under the null hypothesis), ``low``, ``high``, ``p``,
        ``direction`` (1 for the sign that the paper reports, -1 for the opposite, 0 for
        neither), ``p_adjusted`` (by Benjamini and Hochberg, over all rows), ``pairs``
        and ``verdict``.
    """
    rows: list[Row] = []
    for attack, all_records in records.items():
        studied = list(filter(predictions_match, all_records))
        found = [
            _three_types(attack, tables),
            *_pixel_findings(studied, seed),
            *_region_findings(studied, seed),
            *_unit_findings(attack, tables),
            *_masking_findings(attack, gains, seed),
        ]
        rows += [{"attack": attack, **row} for row in found]
    for row, p in zip(rows, adjusted([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = p
        row.setdefault("verdict", _verdict(row))
    return rows


def sentence(row: Row) -> str:
    """A finding in one line."""
    if row["pairs"] < MIN_PAIRS:
        why = f"too few pairs: got {row['pairs']}, want at least {MIN_PAIRS}"
    else:
        why = f"{row['about']}: {_number(row['value'])}"
        if row["low"] is not None:
            why += f", 95 % interval {_number(row['low'])} to {_number(row['high'])}"
        if row["p_adjusted"] is not None:
            why += f", adjusted p {row['p_adjusted']:.2g}"
    return f"{row['attack']}: {row['finding']}: {row['verdict']} ({why})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _tested(finding: str, about: str, values: Sequence[float | None], seed: int) -> Row:
    """A row on one value for each pair, above 0 if the pair agrees with the paper."""
    found = mean_interval(values, seed)
    p, direction = signed_rank(values, seed)
    return {
        "finding": finding,
        "about": about,
        "value": found["mean"],
        "low": found["low"],
        "high": found["high"],
        "p": p,
        "direction": direction,
        "pairs": found["pairs"],
    }


def _three_types(attack: str, tables: Tables) -> Row:
    rows = [
        row
        for row in tables["types"]
        if row["attack"] == attack
        and row["groups"] == "above_median"
        and row["type"] in TYPE_NAMES[:3]
    ]
    rarest = min(rows, key=lambda row: -1 if row["mean"] is None else row["mean"])
    verdict = INCONCLUSIVE
    if all(row["low"] is not None for row in rows):
        if all(row["low"] >= MIN_FRACTION for row in rows):
            verdict = HOLDS
        elif any(row["high"] < MIN_FRACTION for row in rows):
            verdict = FAILS
    return {
        "finding": "promotion-dominated, suppression-dominated and balanced groups "
        "occur",
        "about": f"fraction of the rarest type ({rarest['type']}) among groups with an "
        "effect above the median",
        "value": rarest["mean"],
        "low": rarest["low"],
        "high": rarest["high"],
        "p": None,
        "direction": 0,
        "pairs": rarest["pairs"],
        "verdict": verdict,
    }


def _pixel_findings(records: Sequence[Record], seed: int) -> list[Row]:
    def smallest(record: Record, ranking: str) -> float:
        return float(record["refinement"][ranking]["smallest_fraction"])

    return [
        _tested(
            "groups with larger perturbations have larger effects",
            "mean rank correlation of effect and |delta|",
            [record["correlation"] for record in records],
            seed,
        ),
        *(
            _tested(
                f"attacks need fewer groups ranked by effect than {name}",
                "mean difference of the fractions of groups needed",
                [smallest(r, ranking) - smallest(r, "effect") for r in records],
                seed,
            )
            for ranking, name in _OTHER_RANKINGS.items()
        ),
    ]


def _region_findings(records: Sequence[Record], seed: int) -> list[Row]:
    return [
        _tested(
            f"perturbations are concentrated in the regions of class maps ({reading})",
            "mean lift over a random region, minus 1",
            [r["interpretability"][reading]["lift"] - 1 for r in records],
            seed,
        )
        for reading in READINGS
    ]


def _unit_findings(attack: str, tables: Tables) -> list[Row]:
    rows = []
    for row in tables.get("relation", ()):
        if row["attack"] != attack:
            continue
        for finding, rho, p in (
            ("sensitive units are interpretable", "rho", "p"),
            (
                "sensitive units are interpretable at a fixed activation scale",
                "partial_rho",
                "partial_p",
            ),
        ):
            # NaN if all units have equal values: the correlation does not exist.
            exists = len(known([row[rho], row[p]])) == 2
            enough = row["pairs"] >= MIN_PAIRS
            rows.append(
                {
                    "finding": finding,
                    "about": f"rank correlation in {row['layer']}",
                    "value": row[rho] if exists else None,
                    "low": None,
                    "high": None,
                    "p": row[p] if exists and enough else None,
                    "direction": (1 if row[rho] > 0 else -1) if exists else 0,
                    "pairs": row["pairs"],
                }
            )
    return rows


def _masking_findings(attack: str, gains: Gains, seed: int) -> list[Row]:
    """Compared with as many random units: any change of a model weakens an attack that
    was made for it."""
    return [
        _tested(
            f"masking sensitive units defends better than random ones against {name}",
            f"gain in accuracy over {found['units']} random units of {layer}",
            found[key],
            seed,
        )
        for (of_attack, layer), found in gains.items()
        if of_attack == attack
        for key, name in _ATTACKS.items()
    ]


def _verdict(row: Row) -> str:
    if row["p_adjusted"] is None or row["p_adjusted"] >= ALPHA:
        return INCONCLUSIVE
    return {1: HOLDS, -1: FAILS}.get(row["direction"], INCONCLUSIVE)
