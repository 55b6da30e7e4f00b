"""The facts and tables of the report on a set of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from captum_pse._io.text import printable
from captum_pse._model.score import KINDS
from captum_pse.groups.types import TYPE_NAMES, TYPES

Record = Mapping[str, Any]
Records = Sequence[Record]


@dataclass(frozen=True)
class Cell:
    """A cell of the table of pairs.

    Attributes:
        text (str): The text of the cell.
        value (float or str, optional): The value to sort by. None comes last.
        kinds (tuple): Types of groups with their counts, drawn as a bar. Default: ()
    """

    text: str
    value: float | str | None
    kinds: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Fact:
    """One number of the summary, with a name and a note."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def label_namer(class_names: Sequence[str] | None) -> Callable[[Any], str]:
    """A function from a label to the name of its class."""

    def name(label: Any) -> str:
        if class_names is None or not isinstance(label, int):
            return f"{label}"
        return printable(class_names[label])

    return name


def type_counts(record: Record) -> tuple[tuple[str, int], ...]:
    """The number of groups of each type."""
    return tuple((kind.name, record[kind.column]) for kind in TYPES)


def pair_cells(record: Record, label: Callable[[Any], str]) -> dict[str, Cell]:
    """The cells of one pair in the table of pairs, by column."""

    def holds(agrees: str, prediction: str) -> Cell:
        text = "yes" if record[agrees] else f"no: {label(record[prediction])}"
        return Cell(text, text)

    true, attack = label(record["true_label"]), label(record["attack_label"])
    gain, loss = record["attack_score_gain"], record["true_score_loss"]
    saturated = ", saturated" if record.get("saturated") else ""
    return {
        "true label": Cell(true, true),
        "attack label": Cell(attack, attack),
        "true holds": holds("natural_agrees", "natural_prediction"),
        "attack holds": holds("attack_holds", "adversarial_prediction"),
        f"attack {record['score']}": Cell(f"{gain:+.2f}{saturated}", gain),
        f"true {record['score']}": Cell(f"{-loss:+.2f}", -loss),
        **_level_cells(record),
    }


def _level_cells(record: Record) -> dict[str, Cell]:
    if "groups" in record:
        smallest = record["smallest_fraction"]
        needed = "none" if smallest is None else _percent(smallest)
        kinds = type_counts(record)
        promoting = record["promotion_dominated"] / max(record["groups"], 1)
        return {
            **{
                name: Cell(f"{record[name]:.2f}", record[name])
                for name in ("promotion", "suppression")
            },
            "fraction needed": Cell(needed, smallest),
            "types": Cell(
                ", ".join(f"{n} {kind}" for kind, n in kinds), promoting, kinds
            ),
        }
    return {
        f"{name} IS (lift)": Cell(
            f"{record[f'{name}_is']:.2f} ({record[f'{name}_is_lift']:.2f})",
            record[f"{name}_is_lift"],
        )
        for name in ("promotion", "suppression")
        if f"{name}_is" in record
    }


def set_facts(records: Records) -> list[Fact]:
    """The summary of a set of pairs at any level."""
    n, score = len(records), records[0]["score"]

    def mean(name: str, sign: int = 1) -> float:
        return sign * sum(record[name] for record in records) / n

    def count(name: str) -> str:
        return f"{sum(record[name] for record in records)} of {n}"

    facts = [
        Fact("attack holds", count("attack_holds"), "attack label predicted"),
        Fact("true holds", count("natural_agrees"), "true label predicted"),
        Fact(f"attack {score}", f"{mean('attack_score_gain'):+.2f}", "mean change"),
        Fact(f"true {score}", f"{mean('true_score_loss', -1):+.2f}", "mean change"),
    ]
    if "saturated" in records[0]:
        note = "attack label's probability above 0.99: little promotion can be seen"
        facts.append(Fact("saturated", count("saturated"), note))
    for name in ("promotion", "suppression"):
        if name in records[0]:
            note = f"mean of the sum over groups, in {KINDS[score].plural}"
            facts.append(Fact(name, f"{mean(name):.2f}", note))
        if f"{name}_is" in records[0]:
            # A perturbation of 0 has no lift.
            lifts = [x for r in records if not isnan(x := r[f"{name}_is_lift"])]
            note = "mean score"
            if lifts:
                above = sum(lift > 1 for lift in lifts)
                note += f"; lift {sum(lifts) / len(lifts):.2f}, "
                note += f"above 1 in {above} of {len(lifts)}"
            facts.append(Fact(f"{name} IS", f"{mean(f'{name}_is'):.2f}", note))
    return (
        [*facts, fraction_needed(records)]
        if "smallest_fraction" in records[0]
        else facts
    )


def fraction_needed(records: Records) -> Fact:
    """The mean fraction of the groups that an attack needs to succeed.

    Left out are attacks that fail on all groups (None), and those whose attack label
    the model predicts on the natural image (0).
    """
    name, smallest = "fraction needed", [r["smallest_fraction"] for r in records]
    needed = [fraction for fraction in smallest if fraction]
    if not needed:
        return Fact(name, "none", "no attack works, not even on all groups")
    note = f"of the groups, mean of the {len(needed)} of {len(records)} attacks "
    note += "that work"
    return Fact(name, _percent(sum(needed) / len(needed)), note)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def set_counts(records: Records) -> tuple[tuple[str, int], ...]:
    """The number of groups of each type in all pairs; () for records without groups."""
    if "groups" not in records[0]:
        return ()
    counts = [dict(type_counts(record)) for record in records]
    return tuple((kind, sum(count[kind] for count in counts)) for kind in TYPE_NAMES)
