"""What the report says of a set of pairs in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captum_pse._io.text import printable
from captum_pse.groups.types import TYPE_NAMES, TYPES

Record = Mapping[str, Any]
Records = Sequence[Record]


@dataclass(frozen=True)
class Cell:
    """A cell of the table of pairs.

    Attributes:
        text (str): What stands in it.
        value (float or str, optional): What its column is sorted by; None comes last.
        kinds (tuple): Drawn as a bar: types of groups with how many there are of each.
    """

    text: str
    value: float | str | None
    kinds: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Fact:
    """One number of the summary, and what it is of."""

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
    """What the page calls a class by its number."""

    def name(label: Any) -> str:
        if class_names is None or not isinstance(label, int):
            return f"{label}"
        return printable(class_names[label])

    return name


def type_counts(record: Record) -> tuple[tuple[str, int], ...]:
    """How many groups are of each type."""
    return tuple((kind.name, record[kind.column]) for kind in TYPES)


def pair_cells(record: Record, label: Callable[[Any], str]) -> dict[str, Cell]:
    """The columns of the table of pairs that every level has."""

    def answer(agrees: str, prediction: str) -> Cell:
        text = "yes" if record[agrees] else f"no: {label(record[prediction])}"
        return Cell(text, text)

    true, attack = label(record["true_label"]), label(record["attack_label"])
    gain, loss = record["attack_score_gain"], record["true_score_loss"]
    return {
        "true label": Cell(true, true),
        "attack label": Cell(attack, attack),
        "says true": answer("natural_agrees", "natural_prediction"),
        "says attack": answer("attack_holds", "adversarial_prediction"),
        "attack logit": Cell(f"{gain:+.2f}", gain),
        "true logit": Cell(f"{-loss:+.2f}", -loss),
        **_level_cells(record),
    }


def _level_cells(record: Record) -> dict[str, Cell]:
    if "groups" in record:
        smallest = record["smallest_fraction"]
        needed = "none" if smallest is None else _percent(smallest)
        kinds = type_counts(record)
        share = record["promotion_dominated"] / max(record["groups"], 1)
        return {
            **{
                name: Cell(f"{record[name]:.2f}", record[name])
                for name in ("promotion", "suppression")
            },
            "part needed": Cell(needed, smallest),
            "types": Cell(", ".join(f"{n} {kind}" for kind, n in kinds), share, kinds),
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
    """The summary of a set of pairs, of any level."""
    n = len(records)

    def mean(name: str, sign: int = 1) -> float:
        return sign * sum(record[name] for record in records) / n

    def share(name: str) -> str:
        return f"{sum(record[name] for record in records)} of {n}"

    facts = [
        Fact("attack holds", share("attack_holds"), "the model says the attack label"),
        Fact("natural holds", share("natural_agrees"), "the model says the true label"),
        Fact("attack logit", f"{mean('attack_score_gain'):+.2f}", "mean change"),
        Fact("true logit", f"{mean('true_score_loss', -1):+.2f}", "mean change"),
    ]
    for name in ("promotion", "suppression"):
        if name in records[0]:
            note = "mean of the sum over groups, in logits"
            facts.append(Fact(name, f"{mean(name):.2f}", note))
        if f"{name}_is" in records[0]:
            above = sum(record[f"{name}_is_lift"] > 1 for record in records)
            note = f"mean score; lift {mean(f'{name}_is_lift'):.2f}, "
            note += f"above 1 in {above} of {n}"
            facts.append(Fact(f"{name} IS", f"{mean(f'{name}_is'):.2f}", note))
    return (
        [*facts, part_needed(records)] if "smallest_fraction" in records[0] else facts
    )


def part_needed(records: Records) -> Fact:
    """On what part of the groups the attacks are enough, of those that work at all.

    Where the model says the attack label without the attack, none of it is needed.
    """
    enough = [part for part in (r["smallest_fraction"] for r in records) if part]
    if not enough:
        return Fact("part needed", "none", "no attack works, not even on all groups")
    note = f"of the groups, mean of the {len(enough)} of {len(records)} attacks "
    note += "that work"
    return Fact("part needed", _percent(sum(enough) / len(enough)), note)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def set_counts(records: Records) -> tuple[tuple[str, int], ...]:
    """How many groups of all pairs are of each type; () where there are no groups."""
    if "groups" not in records[0]:
        return ()
    counts = [dict(type_counts(record)) for record in records]
    return tuple((kind, sum(count[kind] for count in counts)) for kind in TYPE_NAMES)
