"""Figures of the study's tables: means over pairs and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.styles import STYLES
from captum_pse._io.text import printable
from captum_pse.groups.types import COLORS

Rows = Sequence[Mapping[str, Any]]

# White bars would not be seen beside the page.
_TYPE_COLORS = {**COLORS, "inactive": "#eeeeee"}
_COUNTED = {
    "all": "of all groups",
    "above_median": "of groups above the median effect",
    "by_effect": "of the sum of effects",
}


def plot_types(rows: Rows) -> Figure:
    """Draws the fractions of the types of groups, one bar for each attack.

    Args:
        rows (sequence of mapping): The table ``types`` of the study.

    Returns:
        *Figure*: Three panels: fractions of all groups, of the groups above the median
        effect, and of the sum of effects.

    Raises:
        ValueError: ``rows`` are empty.

    Examples::

        >>> fractions = {"suppression": 0.25, "balanced": 0.5, "promotion": 0.25}
        >>> rows = [
        ...     {"attack": "pgd", "groups": groups, "type": kind, "mean": mean}
        ...     for groups in ("all", "above_median", "by_effect")
        ...     for kind, mean in {**fractions, "inactive": 0.0}.items()
        ... ]
        >>> figure = plot_types(rows)
        >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
        [0.25, 0.5, 0.25, 0.0]
    """
    attacks = _attacks("rows", rows)
    figure = Figure(figsize=(11, 1.4 + 0.5 * len(attacks)), layout="constrained")
    axes = figure.subplots(1, len(_COUNTED), sharey=True)
    heights = range(len(attacks))
    for ax, (counted, title) in zip(axes, _COUNTED.items(), strict=True):
        left = np.zeros(len(attacks))
        for kind, colour in _TYPE_COLORS.items():
            widths = [
                _only(rows, attack=a, groups=counted, type=kind)["mean"] or 0
                for a in attacks
            ]
            ax.barh(heights, widths, left=left, color=colour, label=kind,
                    edgecolor="#666666", linewidth=0.4)  # fmt: skip
            for height, (start, width) in enumerate(zip(left, widths, strict=True)):
                if width >= 0.07:
                    dark = kind == "suppression"
                    ax.text(start + width / 2, height, f"{width:.0%}", ha="center",
                            va="center", fontsize=8,
                            color="white" if dark else "black")  # fmt: skip
            left += widths
        ax.set_title(f"fraction {title}", fontsize=9)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.tick_params(labelsize=8)
    _name(axes[0], attacks)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def plot_refinement_curves(rows: Rows) -> Figure:
    """Draws the fraction of attacks that succeed on a fraction of their groups.

    Bands are 95 % intervals over pairs.

    Args:
        rows (sequence of mapping): The table ``refinement`` of the study.

    Returns:
        *Figure*: A panel for each attack, a line for each ranking.

    Raises:
        ValueError: ``rows`` are empty.

    Examples::

        >>> rows = [
        ...     {"attack": "pgd", "kept_by": "effect", "fraction": fraction, "pairs": 8,
        ...      "reaches": mean, "reaches_low": low, "reaches_high": high}
        ...     for fraction, mean, low, high in [
        ...         (0.0, 0.0, 0.0, 0.3), (0.5, 0.75, 0.4, 0.9), (1.0, 1.0, 0.7, 1.0)
        ...     ]
        ... ]
        >>> (ax,) = plot_refinement_curves(rows).axes
        >>> ax.get_title(), ax.lines[0].get_ydata().tolist()
        ('pgd, 8 pairs', [0.0, 0.75, 1.0])
    """
    attacks = _attacks("rows", rows)
    figure = Figure(figsize=(0.8 + 3.7 * len(attacks), 3.6), layout="constrained")
    axes = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for ax, attack in zip(axes, attacks, strict=True):
        of_attack = [row for row in rows if row["attack"] == attack]
        for ranking, (colour, marker) in zip(
            _distinct(of_attack, "kept_by"), STYLES, strict=False
        ):
            line = [row for row in of_attack if row["kept_by"] == ranking]
            x = [row["fraction"] for row in line]
            ax.plot(x, _values(line, "reaches"), color=colour, marker=marker,
                    markersize=4, label=ranking)  # fmt: skip
            ax.fill_between(x, _values(line, "reaches_low"),
                            _values(line, "reaches_high"), color=colour,
                            alpha=0.12)  # fmt: skip
        n = of_attack[0]["pairs"]
        ax.set_title(f"{printable(attack)}, {n} pairs", fontsize=9, parse_math=False)
        ax.set_xlabel("fraction of groups kept", fontsize=8)
        ax.set_ylim(-0.02, 1.02)
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=8)
    axes[0].set_ylabel("fraction of attacks that succeed", fontsize=8)
    axes[0].legend(fontsize=8, title="groups kept by", title_fontsize=8)
    return figure


def plot_interpretability(scores: Rows, correlations: Rows) -> Figure:
    """Draws the interpretability scores and the correlation of effect and ``|delta|``.

    Args:
        scores (sequence of mapping): The table ``interpretability`` of the study.
        correlations (sequence of mapping): The table ``correlation`` of the study.

    Returns:
        *Figure*: Two panels with one row for each attack: the rank of the scores among
        those of all shifts of the map, and the rank correlation of effect and
        ``|delta|`` over groups. Dots are means over pairs, lines are 95 % intervals.

    Raises:
        ValueError: ``scores`` are empty.

    Examples::

        >>> rank = {"rank": 0.9, "rank_low": 0.8, "rank_high": 1.0}
        >>> scores = [
        ...     {"attack": "pgd", "reads": reads, **rank}
        ...     for reads in ("promotion", "suppression")
        ... ]
        >>> rho = [{"attack": "pgd", "mean": 0.5, "low": 0.4, "high": 0.6}]
        >>> left, right = plot_interpretability(scores, rho).axes
        >>> [line.get_xdata().tolist() for line in left.lines[:2]]
        [[0.9], [0.9]]
        >>> right.lines[0].get_xdata().tolist()
        [0.5]
    """
    attacks = _attacks("scores", scores)
    figure = Figure(figsize=(9, 1.8 + 0.45 * len(attacks)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for offset, reads in ((-0.12, "promotion"), (0.12, "suppression")):
        rows = [_only(scores, attack=a, reads=reads) for a in attacks]
        _intervals(left, rows, "rank", offset, COLORS[reads], reads)
    left.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
    left.set_xlabel("rank of the interpretability score among all shifts of the map\n"
                    "(0.5: chance)", fontsize=8)  # fmt: skip
    rows = [_only(correlations, attack=a) for a in attacks]
    named = [
        {"rho": r["mean"], "rho_low": r["low"], "rho_high": r["high"]} for r in rows
    ]
    _intervals(right, named, "rho", 0, "#333333", None)
    right.axvline(0, color="black", linewidth=0.6, linestyle=":")
    right.set_xlabel("Spearman's rho of effect and |delta| over groups", fontsize=8)
    for ax in (left, right):
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3, axis="x")
    _name(left, attacks)
    left.set_ylim(len(attacks) - 0.5, -0.5)
    # Inside, it would hide intervals.
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8
    )
    return figure


def _intervals(
    ax: Axes, rows: Rows, name: str, offset: float, colour: str, label: str | None
) -> None:
    heights = np.arange(len(rows)) + offset
    values, low, high = (_values(rows, name + end) for end in ("", "_low", "_high"))
    ax.hlines(heights, low, high, color=colour, linewidth=1.5)
    ax.plot(values, heights, "o", color=colour, markersize=5, label=label)


def _values(rows: Rows, name: str) -> list[float]:
    """A column, with NaN instead of None: matplotlib does not draw it."""
    return [float("nan") if row[name] is None else row[name] for row in rows]


def _attacks(argument: str, rows: Rows) -> list[str]:
    if not rows:
        raise ValueError(f"{argument}: got none, want a table of the study")
    return _distinct(rows, "attack")


def _distinct(rows: Rows, name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _only(rows: Rows, **wanted: Any) -> Mapping[str, Any]:
    (row,) = (
        row for row in rows if all(row[key] == value for key, value in wanted.items())
    )
    return row


def _name(ax: Axes, attacks: Sequence[str]) -> None:
    """Labels the axis with the names of the attacks, as text and not as formulas."""
    shown = [printable(attack, most=24) for attack in attacks]
    ax.set_yticks(range(len(attacks)), shown, parse_math=False)
