"""The table of explained pairs that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_pse._io.text import printable
from captum_pse.groups.types import TYPES

#: The largest width of a table.
WIDTH = 100
#: The smallest width of a pair's name.
PAIR = 12
#: The largest and the smallest width of a label's name.
LABEL, SHORT_LABEL = 12, 6


def format_table(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> str:
    """The records as a table with one line for each pair, at most 100 columns wide.

    ``holds`` states which labels the model predicts: ``both``, only the ``true`` label
    on the natural image, only the ``attack`` label on the adversarial image, or
    ``none``. ``dZ`` is the change of a label's score by the attack. ``types`` counts
    the groups of each type, by the initials of the types. Names are shortened to fit.
    """
    numbers = [_numbers(record) for record in records]
    table = [list(numbers[0]), *(list(row.values()) for row in numbers)]
    used = sum(max(map(len, column)) + 2 for column in zip(*table, strict=True))
    # The names of the pair and of its two labels share the rest of the width.
    left = WIDTH - used - 4
    label_width = min(LABEL, max(SHORT_LABEL, (left - PAIR) // 2))

    def label(number: int) -> str:
        name = f"{number}" if class_names is None else class_names[number]
        return printable(name, most=label_width)

    labels = [("true", "attack")]
    labels += [(label(r["true_label"]), label(r["attack_label"])) for r in records]
    left -= sum(max(map(len, side)) for side in zip(*labels, strict=True))
    pair_width = max(PAIR, left)
    pairs = ["pair", *(printable(r["pair"], most=pair_width) for r in records)]
    rows = [
        [pair, *sides, *row]
        for pair, sides, row in zip(pairs, labels, table, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    ruled = [lines[0], "-" * len(lines[0]), *lines[1:]]
    return "\n".join(line.rstrip() for line in ruled)


def _numbers(record: Mapping[str, Any]) -> dict[str, str]:
    """The columns that hold no names."""
    return {
        "holds": _holds(record),
        "dZ true": _number(-record["true_score_loss"], "+"),
        "dZ attack": _number(record["attack_score_gain"], "+"),
        **_level_columns(record),
    }


def _number(value: float, sign: str = "") -> str:
    """With two decimals, unless that is long."""
    return f"{value:{sign}.2f}" if abs(value) < 1e5 else f"{value:{sign}.3g}"


def _holds(record: Mapping[str, Any]) -> str:
    held = record["natural_agrees"], record["attack_holds"]
    return {(True, True): "both", (True, False): "true", (False, True): "attack"}.get(
        held, "none"
    )


def _level_columns(record: Mapping[str, Any]) -> dict[str, str]:
    """The columns of pixel groups or of regions."""
    names = {"prom.": "promotion", "supp.": "suppression"}
    if "groups" not in record:
        return {
            f"{short} IS (lift)": (
                f"{record[f'{name}_is']:.2f} ({record[f'{name}_is_lift']:.2f})"
            )
            for short, name in names.items()
        }
    initials = "/".join(kind.name[0] for kind in TYPES)
    counts = "/".join(str(record[kind.column]) for kind in TYPES)
    return {
        **{short: _number(record[name]) for short, name in names.items()},
        f"types {initials}": counts,
    }
