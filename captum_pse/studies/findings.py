"""What the paper found, asked of the pairs at hand: a verdict on each."""

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
from captum_pse.studies.of_pair import READINGS
from captum_pse.studies.tables import Record, Row, Tables, holds

#: What share of the groups that matter a type has to have to count as occurring.
LEAST_SHARE = 0.05
ALPHA = 0.05
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"


#: By attack and layer, how much more often than at random, pair by pair: see
#: :meth:`captum_pse.studies.stages.Stages.against_random`.
AgainstRandom = Mapping[tuple[str, str], Mapping[str, Any]]


def findings(
    sets: Mapping[str, Sequence[Record]],
    tables: Tables,
    masked: AgainstRandom,
    seed: int,
) -> list[Row]:
    """One row for each finding of the paper and each attack.

    A tested finding ``holds`` where its adjusted p is below 0.05 and the ranks, or the
    correlation, lie on the side that the paper reports, ``does not hold`` where they
    lie on the other, and else ``cannot be told``, as where there are fewer than 6
    pairs. That the three types occur is judged by the intervals of their shares.

    Args:
        sets (mapping): By attack, a record for each pair.
        tables (mapping): ``types`` and, with concepts, ``relation``.
        masked (mapping): By attack and layer: ``units``, how many were masked; and by
            share, for each pair, by how much masking the sensitive ones was better than
            masking as many at random.
        seed (int): Of bootstrap and permutations.

    Returns:
        *list[dict]*: ``attack``, ``finding``, ``about``, ``value`` (what would be 0 if
        there were nothing to it), ``low``, ``high``, ``p``, ``direction`` (1 for the
        paper's side, -1 for the other), ``p_adjusted`` (Benjamini and Hochberg, over
        all rows), ``pairs`` and ``verdict``.
    """
    rows: list[Row] = []
    for attack, records in sets.items():
        good = [record for record in records if holds(record)]
        rows.append(_three_types(attack, tables))
        rows += _of_pairs(attack, good, seed)
        rows += _of_units(attack, tables)
        rows += _of_masking(attack, masked, seed)
    for row, p in zip(rows, adjusted([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = p
        row.setdefault("verdict", _verdict(row))
    return rows


def sentence(row: Row) -> str:
    """One line on a finding."""
    if row["pairs"] < MIN_PAIRS:
        why = f"{row['pairs']} pairs are too few, want {MIN_PAIRS} or more"
    else:
        why = f"{row['about']} {_number(row['value'])}"
        if row["low"] is not None:
            why += f", {_number(row['low'])} to {_number(row['high'])}"
        if row["p_adjusted"] is not None:
            why += f", adjusted p {row['p_adjusted']:.2g}"
    return f"{row['attack']}: {row['finding']}: {row['verdict']} ({why})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _tested(
    attack: str,
    finding: str,
    about: str,
    each: Sequence[float | None],
    seed: int,
) -> Row:
    """A row on values of pairs, above 0 where they agree with the paper."""
    found = mean_interval(each, seed)
    p, direction = signed_rank(each, seed)
    return {
        "attack": attack,
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
    shares = [
        row
        for row in tables["types"]
        if row["attack"] == attack
        and row["groups"] == "above_median"
        and row["type"] in TYPE_NAMES[:3]
    ]
    rarest = min(shares, key=lambda row: -1 if row["mean"] is None else row["mean"])
    verdict = OPEN
    if all(row["low"] is not None for row in shares):
        if all(row["low"] >= LEAST_SHARE for row in shares):
            verdict = HOLDS
        elif any(row["high"] < LEAST_SHARE for row in shares):
            verdict = FAILS
    return {
        "attack": attack,
        "finding": "there are promotion-dominated, suppression-dominated and balanced "
        "groups",
        "about": f"share of the rarest type ({rarest['type']}) among groups above the "
        "median effect",
        "value": rarest["mean"],
        "low": rarest["low"],
        "high": rarest["high"],
        "p": None,
        "direction": 0,
        "pairs": rarest["pairs"],
        "verdict": verdict,
    }


def _of_pairs(attack: str, good: Sequence[Record], seed: int) -> list[Row]:
    def smallest(record: Record, ranking: str) -> float:
        return float(record["refinement"][ranking]["smallest_fraction"])

    rows = [
        _tested(
            attack,
            "groups that are perturbed more have more effect",
            "mean rank correlation of effect and |delta|",
            [record["correlation"] for record in good],
            seed,
        )
    ]
    rows += [
        _tested(
            attack,
            f"ranked by effect, fewer groups are enough than by {other}",
            "mean part of the groups saved",
            [smallest(r, other) - smallest(r, "effect") for r in good],
            seed,
        )
        for other in ("random", "|delta|")
    ]
    rows += [
        _tested(
            attack,
            f"perturbations keep to the regions that the model looks at ({reads})",
            "mean lift over a random region, less 1,",
            [r["interpretability"][reads]["lift"] - 1 for r in good],
            seed,
        )
        for reads in READINGS
    ]
    return rows


def _of_units(attack: str, tables: Tables) -> list[Row]:
    rows = []
    for row in tables.get("relation", ()):
        if row["attack"] != attack:
            continue
        for finding, rho, p in (
            ("sensitive units are interpretable", "rho", "p"),
            (
                "sensitive units are interpretable beyond their activation scale",
                "partial_rho",
                "partial_p",
            ),
        ):
            # NaN where all units are alike: there is nothing to correlate.
            exists = len(known([row[rho], row[p]])) == 2
            enough = row["pairs"] >= MIN_PAIRS
            rows.append(
                {
                    "attack": attack,
                    "finding": finding,
                    "about": f"{row['layer']}: rank correlation",
                    "value": row[rho] if exists else None,
                    "low": None,
                    "high": None,
                    "p": row[p] if exists and enough else None,
                    "direction": (1 if row[rho] > 0 else -1) if exists else 0,
                    "pairs": row["pairs"],
                }
            )
    return rows


def _of_masking(attack: str, masked: AgainstRandom, seed: int) -> list[Row]:
    """Against as many random units: any change of a model disturbs an attack that was
    made for it."""
    return [
        _tested(
            attack,
            f"masking sensitive units defends better than others against {under}",
            f"{layer}, {found['units']} units: gain in accuracy over random ones",
            found[share],
            seed,
        )
        for (of, layer), found in masked.items()
        if of == attack
        for share, under in (("adversarial", "the stored attack"),
                             ("adaptive", "an adaptive one"))
    ]  # fmt: skip


def _verdict(row: Row) -> str:
    if row["p_adjusted"] is None or row["p_adjusted"] >= ALPHA:
        return OPEN
    return {1: HOLDS, -1: FAILS}.get(row["direction"], OPEN)
