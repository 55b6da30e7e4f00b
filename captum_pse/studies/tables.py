"""The tables of the study: from records of pairs to means over an attack's pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from captum_pse._statistics import mean_interval, share_interval, signed_rank
from captum_pse.groups.types import TYPE_NAMES
from captum_pse.pixels.rankings import RANKINGS
from captum_pse.studies.of_pair import READINGS, WEIGHTS

Record = Mapping[str, Any]
Row = dict[str, Any]
Tables = dict[str, list[Row]]


def holds(record: Record) -> bool:
    """Whether the model says the true label before the attack and the attack's after
    it, in every batch that it was asked in: attacks of least norm end where the model's
    rounding decides."""
    labels = record["labels"]
    smallest = [
        refined["smallest_fraction"] for refined in record["refinement"].values()
    ]
    return bool(
        labels["natural_agrees"] and labels["attack_holds"] and None not in smallest
    )


def pair_tables(
    sets: Mapping[str, Sequence[Record]], fractions: Sequence[float], seed: int
) -> Tables:
    """What comes of pairs one by one, by the name of the table.

    Args:
        sets (mapping): By the attack's name, a record for each pair, see
            :func:`captum_pse.studies.of_pair.study_pair`.
        fractions (sequence of float): Of the refinements.
        seed (int): Of the bootstrap.
    """
    tables: Tables = {name: [] for name in (
        "attacks", "pairs", "types", "correlation", "refinement", "smallest_fraction",
        "interpretability",
    )}  # fmt: skip
    for attack, records in sets.items():
        tables["attacks"].append(_counts(attack, records))
        tables["pairs"] += [
            {"attack": attack, "pair": r["pair"], "studied": holds(r)}
            | r["labels"]
            | {"correlation": r["correlation"]}
            | {
                f"smallest_fraction_by_{k}": r["refinement"][k]["smallest_fraction"]
                for k in RANKINGS
            }
            | {f"lift_{k}": r["interpretability"][k]["lift"] for k in READINGS}
            for r in records
        ]
        good = [record for record in records if holds(record)]

        def mean(
            of: Callable[[Record], float | None],
            good: Sequence[Record] = good,
        ) -> Row:
            return mean_interval(map(of, good), seed)

        tables["types"] += [
            {
                "attack": attack,
                "groups": weight,
                "type": kind,
                **mean(lambda r, w=weight, k=kind: r["types"][w][k]),  # type: ignore[misc]
            }
            for weight in WEIGHTS
            for kind in TYPE_NAMES
        ]
        rho = [record["correlation"] for record in good]
        p = signed_rank(rho, seed).p
        row = {"attack": attack, **mean_interval(rho, seed), "p": p}
        tables["correlation"].append(row)
        for ranking in RANKINGS:
            refined = [record["refinement"][ranking] for record in good]
            tables["refinement"] += [
                {"attack": attack, "kept_by": ranking, "fraction": fraction}
                | _named("reaches", share_interval([r["reaches"][i] for r in refined]))
                | _named("leaves", share_interval([r["leaves"][i] for r in refined]))
                | _named("L2", mean_interval([r["L2"][i] for r in refined], seed))
                | {"pairs": len(refined)}
                for i, fraction in enumerate(fractions)
            ]
            smallest = [r["smallest_fraction"] for r in refined]
            row = {
                "attack": attack,
                "kept_by": ranking,
                **mean_interval(smallest, seed),
            }
            tables["smallest_fraction"].append(row)
        for reads in READINGS:
            scores = [record["interpretability"][reads] for record in good]
            row = {"attack": attack, "reads": reads}
            for name in ("score", "expected", "lift"):
                row |= _named(name, mean_interval([s[name] for s in scores], seed))
            row["pairs"] = len(scores)
            row["p"] = signed_rank([s["lift"] - 1 for s in scores], seed).p
            tables["interpretability"].append(row)
    return tables


def _counts(attack: str, records: Sequence[Record]) -> Row:
    labels = [record["labels"] for record in records]
    return {
        "attack": attack,
        "pairs": len(records),
        "natural_agrees": sum(bool(label["natural_agrees"]) for label in labels),
        "attack_holds": sum(bool(label["attack_holds"]) for label in labels),
        "studied": sum(map(holds, records)),
    }


def _named(name: str, found: Mapping[str, Any]) -> Row:
    """A mean and its interval, under a name."""
    return {name: found["mean"], f"{name}_low": found["low"],
            f"{name}_high": found["high"]}  # fmt: skip
