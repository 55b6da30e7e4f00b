"""The table of explained pairs that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_pse._io.text import printable
from captum_pse.groups.types import TYPES

#: The width of a table, at most, and that of the pairs' names, at least.
WIDTH, NAME = 100, 12


def format_table(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> str:
    """The records as a table with one line for each pair, at most 100 columns wide.

    ``holds`` states which labels the model predicts: ``both``, only the ``true`` label
    on the natural image, only the ``attack`` label on the adversarial image, or
    ``none``. ``dZ`` is the change of a label's score by the attack. ``types`` counts
    the groups of each type, by the initials of the types.
    """

    def label(number: int) -> str:
        name = f"{number}" if class_names is None else class_names[number]
        return printable(name, most=12)

    table = [
        {
            "true": label(record["true_label"]),
            "attack": label(record["attack_label"]),
            "holds": _holds(record),
            "dZ true": f"{-record['true_score_loss']:+.2f}",
            "dZ attack": f"{record['attack_score_gain']:+.2f}",
            **_level_columns(record),
        }
        for record in records
    ]
    rows = [list(table[0]), *(list(row.values()) for row in table)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    left = max(WIDTH - sum(widths) - 2 * len(widths), NAME)
    names = ["pair", *(printable(record["pair"], most=left) for record in records)]
    rows = [[name, *row] for name, row in zip(names, rows, strict=True)]
    widths = [max(map(len, names)), *widths]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    ruled = [lines[0], "-" * len(lines[0]), *lines[1:]]
    return "\n".join(line.rstrip() for line in ruled)


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
        **{short: f"{record[name]:.2f}" for short, name in names.items()},
        f"types {initials}": counts,
    }
