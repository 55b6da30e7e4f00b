"""What the paper found, asked of the pairs at hand: a verdict on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captum_pse.studies.of_pair import READINGS, TYPES
from captum_pse.studies.statistics import (
    MIN_PAIRS,
    fisher_p,
    mean_interval,
    signed_rank_p,
)
from captum_pse.studies.tables import Record, Row, Tables, holds

#: What share of the groups that matter a type has to have to count as occurring.
LEAST_SHARE = 0.05
ALPHA = 0.05
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"


def findings(
    sets: Mapping[str, Sequence[Record]], tables: Tables, seed: int
) -> list[Row]:
    """One row for each finding of the paper and each attack.

    A tested finding ``holds`` where its adjusted p is below 0.05 and the value lies on
    the side that the paper reports, ``does not hold`` where it lies on the other, and
    else ``cannot be told``, as where there are fewer than 6 pairs. That the three types
    occur is judged by the interval of the rarest one's share.

    Returns:
        *list[dict]*: ``attack``, ``finding``, ``about``, ``value`` (what would be 0 if
        there were nothing to it), ``low``, ``high``, ``p``, ``p_adjusted`` (Benjamini
        and Hochberg, over all rows), ``pairs`` and ``verdict``.
    """
    rows: list[Row] = []
    for attack, records in sets.items():
        good = [record for record in records if holds(record)]
        rows.append(_three_types(attack, tables))
        rows += _of_pairs(attack, good, seed)
        rows += _of_units(attack, tables)
    _adjust(rows)
    for row in rows:
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


def _row(
    attack: str,
    finding: str,
    about: str,
    value: float | None,
    pairs: int,
    *,
    p: float | None,
    low: float | None = None,
    high: float | None = None,
) -> Row:
    return {"attack": attack, "finding": finding, "about": about, "value": value,
            "low": low, "high": high, "p": p, "p_adjusted": None,
            "pairs": pairs}  # fmt: skip


def _three_types(attack: str, tables: Tables) -> Row:
    shares = [
        row
        for row in tables["types"]
        if row["attack"] == attack
        and row["groups"] == "above_median"
        and row["type"] in TYPES[:3]
    ]
    rarest = min(shares, key=lambda row: -1 if row["mean"] is None else row["mean"])
    row = _row(
        attack,
        "there are promotion-dominated, suppression-dominated and balanced groups",
        f"share of the rarest type ({rarest['type']}) among groups above the median "
        "effect",
        rarest["mean"],
        rarest["pairs"],
        p=None,
        low=rarest["low"],
        high=rarest["high"],
    )
    row["verdict"] = OPEN
    if rarest["pairs"] >= MIN_PAIRS:
        row["verdict"] = (
            HOLDS
            if rarest["low"] >= LEAST_SHARE
            else FAILS
            if rarest["high"] < LEAST_SHARE
            else OPEN
        )
    return row


def _of_pairs(attack: str, good: Sequence[Record], seed: int) -> list[Row]:
    def smallest(record: Record, ranking: str) -> float:
        return float(record["refinement"][ranking]["smallest"])

    # What each pair says, above 0 where it agrees with the paper.
    values: dict[tuple[str, str], list[float | None]] = {
        (
            "groups that are perturbed more have more effect",
            "mean rank correlation of effect and |delta|",
        ): [record["correlation"] for record in good]
    }
    for other in ("random", "|delta|"):
        values[
            f"ranked by effect, fewer groups are enough than by {other}",
            "mean part of the groups saved",
        ] = [smallest(r, other) - smallest(r, "effect") for r in good]
    for reads in READINGS:
        values[
            f"perturbations keep to the regions that the model looks at ({reads})",
            "mean lift over a random region, less 1,",
        ] = [r["interpretability"][reads]["lift"] - 1 for r in good]
    rows = []
    for (finding, about), each in values.items():
        found = mean_interval(each, seed)
        rows.append(
            _row(
                attack,
                finding,
                about,
                found["mean"],
                found["pairs"],
                p=signed_rank_p(each),
                low=found["low"],
                high=found["high"],
            )
        )
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
            enough = row["pairs"] >= MIN_PAIRS
            rows.append(
                _row(
                    attack,
                    finding,
                    f"{row['layer']}: rank correlation",
                    row[rho],
                    row["pairs"],
                    p=row[p] if enough else None,
                )
            )
    for share, under in (("adversarial", "the stored attack"), ("fresh", "a new one")):
        rows += _masked(attack, tables, share, under)
    return rows


def _masked(attack: str, tables: Tables, share: str, under: str) -> list[Row]:
    """Masking the sensitive units, as many as helps most, against masking none."""
    rows = []
    of_attack = [row for row in tables.get("masking", ()) if row["attack"] == attack]
    for layer in dict.fromkeys(row["layer"] for row in of_attack):
        here = [
            row
            for row in of_attack
            if row["layer"] == layer and row["masked"] == "sensitive"
        ]
        none = next(row for row in here if row["units"] == 0)
        most = max((row for row in here if row["units"]), key=lambda row: row[share])
        pairs = none["pairs"]
        p = fisher_p(most[share], none[share], pairs)
        # One of several numbers of units was picked for its result.
        tried = len(here) - 1
        rows.append(
            _row(
                attack,
                f"masking sensitive units defends against {under}",
                f"{layer}, {most['units']} units: gain in accuracy",
                most[share] - none[share],
                pairs,
                p=None if p is None else min(1.0, p * tried),
            )
        )
    return rows


def _adjust(rows: list[Row]) -> None:
    from scipy.stats import false_discovery_control

    tested = [row for row in rows if row["p"] is not None]
    if tested:
        adjusted = false_discovery_control([row["p"] for row in tested])
        for row, p in zip(tested, adjusted.tolist(), strict=True):
            row["p_adjusted"] = p


def _verdict(row: Row) -> str:
    if row["p_adjusted"] is None or row["p_adjusted"] >= ALPHA:
        return OPEN
    return HOLDS if row["value"] > 0 else FAILS
