"""Figures of hidden units: how they move, what they detect, what masking them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import to_numpy
from captum_pse._drawing.panels import existing, headline
from captum_pse._drawing.styles import STYLES
from captum_pse.groups.types import COLORS
from captum_pse.units.norms import unit_norm

if TYPE_CHECKING:
    from captum_pse.units.masking_curves import MaskingCurves
    from captum_pse.units.relation import Relation
    from captum_pse.units.result import UnitDecomposition
    from captum_pse.units.sensitivity import UnitSensitivity


def plot_unit_changes(
    result: UnitDecomposition,
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    most: int = 30,
) -> Figure:
    """Promotion upwards and suppression downwards of the units that moved most.

    Bars are L2 norms over the unit's positions, in activation units.

    Args:
        result (UnitDecomposition): Any.
        example (int, optional): Which example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Put before the description of the example. Default: None
        most (int, optional): How many units to draw at most; the axis says how many
            there are. Default: 30

    Returns:
        *Figure*: One panel, the unit that moved most first.

    Raises:
        IndexError: There is no such example.
        ValueError: ``most`` is not positive, or ``class_names`` are too few.

    Examples::

        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = DissectionSensitivity(load_model(), "features.conv5")
        >>> result = method.decompose(*make_pairs(1))
        >>> (ax,) = plot_unit_changes(result, most=10).axes
        >>> ax.get_xlabel()
        'unit of features.conv5, the 10 of 96 that moved most'
        >>> first = ax.get_xticklabels()[0].get_text()
        >>> first == str(int(result.sensitivity()[0].argmax()))
        True
    """
    existing(len(result), example)
    if most < 1:
        raise ValueError(f"most: got {most}, want at least 1")
    up, down, moved = (
        to_numpy(unit_norm(values, "l2", result.channel_dim)[example])
        for values in (result.promotion, result.suppression, result.change)
    )
    order = np.argsort(-moved, kind="stable")[:most]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(order))
    ax.bar(place, up[order], color=COLORS["promotion"], label="promotion")
    ax.bar(place, -down[order], color=COLORS["suppression"], label="suppression")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(place, [str(k) for k in order], fontsize=7, rotation=90)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel(
        f"unit of {result.layer}, the {len(order)} of {len(moved)} that moved most"
    )
    ax.set_ylabel("L2 norm of the change")
    ax.legend(fontsize=8)
    text = headline(result.labels, example, class_names, title)
    ax.set_title(text, fontsize=10, parse_math=False)
    return figure


def plot_sensitivity(
    result: UnitSensitivity, *, most: int = 30, title: str | None = None
) -> Figure:
    """The mean sensitivity of the units that move most, beside that to noise.

    Bars are means over pairs, in activation units, with 95 % confidence intervals; a
    dash is the mean size under noise of the perturbation's size.

    Args:
        result (UnitSensitivity): Of any layer.
        most (int, optional): How many units to draw at most; the axis says how many
            there are. Default: 30
        title (str, optional): Above the figure. Default: None

    Raises:
        ValueError: ``most`` is not positive.
    """
    if most < 1:
        raise ValueError(f"most: got {most}, want at least 1")
    mean, control = to_numpy(result.mean), to_numpy(result.control)
    low, high = (to_numpy(side) for side in result.interval())
    order = np.argsort(-np.abs(mean), kind="stable")[:most]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(order))
    reach = np.stack([mean - low, high - mean])[:, order]
    ax.bar(place, mean[order], yerr=None if np.isnan(reach).any() else reach,
           color=COLORS["promotion"], error_kw={"linewidth": 0.8},
           label="under the attack")  # fmt: skip
    ax.scatter(place, control[order], marker="_", s=60, color="black", zorder=3,
               label="under noise of the same size")  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(place, [str(k) for k in order], fontsize=7, rotation=90)
    ax.set_xlabel(
        f"unit of {result.layer}, the {len(order)} of {len(mean)} that move most"
    )
    ax.set_ylabel(f"mean sensitivity ({result.norm}), {result.n} pairs")
    ax.legend(fontsize=8)
    if title is not None:
        ax.set_title(title, fontsize=10, parse_math=False)
    return figure


def plot_relation(result: Relation, *, title: str | None = None) -> Figure:
    """The sensitivity of each unit against its largest IoU, a panel a layer.

    Detectors are to the right of the line. Above stand Spearman's rho, with the
    activation scale held fixed in brackets, and its permutation p.

    Args:
        result (Relation): Of any number of layers.
        title (str, optional): Above the figure. Default: None

    Returns:
        *Figure*: A panel for each layer, a dot or triangle for each unit.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection, relate
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> found = NetworkDissection(model, [layer]).dissect(SceneConcepts(12))
        >>> moved = DissectionSensitivity(model, layer).over(make_pairs(2))
        >>> (ax,) = plot_relation(relate(moved, found, permutations=99)).axes
        >>> drawn = [len(dots.get_offsets()) for dots in ax.collections]
        >>> sum(drawn), drawn[1] == int(found.detectors(layer).sum())
        (64, True)
    """
    n = len(result.table())
    figure = Figure(figsize=(0.6 + 3.9 * n, 3.9), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0]
    for ax, row in zip(axes, result.table(), strict=True):
        moved, iou = result.values[row["layer"]]
        detects = iou > result.min_iou
        for chosen, colour, marker, label in (
            (~detects, "#666666", ".", "no detector"),
            (detects, "#d55e00", "^", "detector"),
        ):
            ax.scatter(iou[chosen], moved[chosen], s=14, c=colour, marker=marker,
                       alpha=0.7, label=label)  # fmt: skip
        ax.axvline(result.min_iou, color="black", linewidth=0.6, linestyle=":")
        ax.set_xlabel("largest IoU with a concept", fontsize=8)
        ax.set_ylabel("mean sensitivity", fontsize=8)
        ax.tick_params(labelsize=7)
        text = f"{row['layer']}\nrho {row['rho']:.2f}, p {row['p']:.2g}"
        text += f" (scale fixed: {row['partial_rho']:.2f}, p {row['partial_p']:.2g})"
        ax.set_title(text, fontsize=8, parse_math=False)
    axes[0].legend(fontsize=7)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def plot_masking(
    results: MaskingCurves | Sequence[MaskingCurves], *, title: str | None = None
) -> Figure:
    """Shares of pairs as more units are masked; a row a layer.

    To the left, natural inputs on which the model says the true label; in the middle,
    adversarial ones; to the right, adversarial ones on which it says the attack label
    and, where the masked model was attacked anew, such ones on which it says the true
    label. Bands are 95 % confidence intervals.

    Args:
        results (MaskingCurves or sequence of them): At most five rankings each.
        title (str, optional): Above the figure. Default: None

    Returns:
        *Figure*: Three columns of panels, or four where the masked model was attacked
        anew; a line for each ranking.

    Raises:
        ValueError: ``results`` are empty, or of more than five rankings.

    Examples::

        >>> import torch
        >>> from captum_pse import evaluate_masking
        >>> from captum_pse.demo import load_model, make_pairs
        >>> order = {"by number": torch.arange(96.0)}
        >>> curves = evaluate_masking(
        ...     load_model(), make_pairs(2), "features.conv5", order, [0, 96], seeds=[0]
        ... )
        >>> clean, adversarial, attacked = plot_masking(curves).axes
        >>> clean.lines[0].get_ydata().tolist()[0]  # of 0 units
        1.0
        >>> attacked.lines[0].get_ydata().tolist()[0]
        1.0
    """
    layers = list(results) if isinstance(results, Sequence) else [results]
    if not layers:
        raise ValueError("results: got none, want at least one")
    names = {
        "clean": "natural: says the true label",
        "adversarial": "adversarial: says the true label",
        "attacked": "adversarial: says the attack label",
        "adaptive": "attacked anew: says the true label",
    }
    shares = [share for share in names if share in layers[0].table()[0]]
    size = 0.4 + 3.7 * len(shares), 0.4 + 3.2 * len(layers)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(layers), len(shares), squeeze=False)
    for line, result in zip(axes, layers, strict=True):
        rankings = list(dict.fromkeys(row["masked"] for row in result.table()))
        if len(rankings) > len(STYLES):
            raise ValueError(
                f"results: got {len(rankings)} rankings, want at most {len(STYLES)}"
            )
        for ax, share in zip(line, shares, strict=True):
            for ranking, (colour, marker) in zip(rankings, STYLES, strict=False):
                rows = [row for row in result.table() if row["masked"] == ranking]
                units = [row["units"] for row in rows]
                ax.plot(units, [row[share] for row in rows], color=colour,
                        marker=marker, markersize=4, label=ranking)  # fmt: skip
                low, high = (
                    [row[f"{share}_{side}"] for row in rows] for side in ("low", "high")
                )
                ax.fill_between(units, low, high, color=colour, alpha=0.12)
            ax.set_title(f"{result.layer}\n{names[share]}", fontsize=9)
            ax.set_xlabel("units masked", fontsize=8)
            ax.set_ylim(-0.02, 1.02)
            ax.grid(alpha=0.3)
        line[0].set_ylabel("share of pairs", fontsize=8)
    axes[0, 0].legend(fontsize=8, title="masked first", title_fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
