"""Figures of hidden units: changes, sensitivity, relation to concepts, masking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import to_numpy
from captum_pse._drawing.panels import existing, headline
from captum_pse._drawing.styles import STYLES
from captum_pse._model.checks import check_int
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
    """Promotion (upwards) and suppression (downwards) of the units that changed most.

    Bars are L2 norms over the unit's positions, in activation units.

    Args:
        result (UnitDecomposition): The decomposition of one layer.
        example (int, optional): Index of the example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Title, before the description of the example.
            Default: None
        most (int, optional): Largest number of units to draw; the axis label states the
            number of units of the layer. Default: 30

    Returns:
        *Figure*: One panel; units in descending order of their change.

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
        'unit of features.conv5, the 10 of 96 that changed most'
        >>> first = ax.get_xticklabels()[0].get_text()
        >>> first == str(int(result.sensitivity()[0].argmax()))
        True
    """
    existing(len(result), example)
    most = check_int("most", most, 1)
    up, down, change = (
        to_numpy(unit_norm(values, "l2", result.channel_dim)[example])
        for values in (result.promotion, result.suppression, result.change)
    )
    order = np.argsort(-change, kind="stable")[:most]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    position = np.arange(len(order))
    ax.bar(position, up[order], color=COLORS["promotion"], label="promotion")
    ax.bar(position, -down[order], color=COLORS["suppression"], label="suppression")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(position, [str(k) for k in order], fontsize=7, rotation=90)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel(
        f"unit of {result.layer}, the {len(order)} of {len(change)} that changed most"
    )
    ax.set_ylabel("L2 norm of the change")
    ax.legend(fontsize=8)
    text = headline(result.pair, example, class_names, title)
    ax.set_title(text, fontsize=10, parse_math=False)
    return figure


def plot_sensitivity(
    result: UnitSensitivity, *, most: int = 30, title: str | None = None
) -> Figure:
    """The mean sensitivity of the units that change most, under attack and noise.

    Bars are means over pairs, in activation units, with 95 % confidence intervals.
    Dashes are the mean absolute sensitivity to noise of the perturbation's size.

    Args:
        result (UnitSensitivity): The sensitivity of one layer.
        most (int, optional): Largest number of units to draw; the axis label states the
            number of units of the layer. Default: 30
        title (str, optional): Title of the figure. Default: None

    Returns:
        *Figure*: One panel; units in descending order of their mean change.

    Raises:
        ValueError: ``most`` is not positive.
    """
    most = check_int("most", most, 1)
    mean, control = to_numpy(result.mean), to_numpy(result.control)
    low, high = (to_numpy(side) for side in result.interval())
    order = np.argsort(-np.abs(mean), kind="stable")[:most]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    position = np.arange(len(order))
    reach = np.stack([mean - low, high - mean])[:, order]
    ax.bar(position, mean[order], yerr=None if np.isnan(reach).any() else reach,
           color=COLORS["promotion"], error_kw={"linewidth": 0.8},
           label="under the attack")  # fmt: skip
    ax.scatter(position, control[order], marker="_", s=60, color="black", zorder=3,
               label="under noise of the same size")  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(position, [str(k) for k in order], fontsize=7, rotation=90)
    ax.set_xlabel(
        f"unit of {result.layer}, the {len(order)} of {len(mean)} that change most"
    )
    ax.set_ylabel(f"mean sensitivity ({result.norm}), {result.n} pairs")
    ax.legend(fontsize=8)
    if title is not None:
        ax.set_title(title, fontsize=10, parse_math=False)
    return figure


def plot_relation(result: Relation, *, title: str | None = None) -> Figure:
    """The sensitivity of each unit against its largest IoU.

    Detectors are to the right of the dotted line. Titles state Spearman's rho and its
    permutation p, and in brackets both with the activation scale held fixed.

    Args:
        result (Relation): A relation of any number of layers.
        title (str, optional): Title of the figure. Default: None

    Returns:
        *Figure*: One panel for each layer, one dot or triangle for each unit.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection, relate
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> found = NetworkDissection(model, [layer]).dissect(SceneConcepts(12))
        >>> sensitivity = DissectionSensitivity(model, layer).over(make_pairs(2))
        >>> (ax,) = plot_relation(relate(sensitivity, found, permutations=99)).axes
        >>> drawn = [len(dots.get_offsets()) for dots in ax.collections]
        >>> sum(drawn), drawn[1] == int(found.detectors(layer).sum())
        (64, True)
    """
    n = len(result.table())
    figure = Figure(figsize=(0.6 + 3.9 * n, 3.9), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0]
    for ax, row in zip(axes, result.table(), strict=True):
        sensitivity, iou = result.values[row["layer"]]
        detects = iou > result.min_iou
        for chosen, colour, marker, label in (
            (~detects, "#666666", ".", "not a detector"),
            (detects, "#d55e00", "^", "detector"),
        ):
            ax.scatter(iou[chosen], sensitivity[chosen], s=14, c=colour,
                       marker=marker, alpha=0.7, label=label)  # fmt: skip
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
    """Fractions of pairs as more units are masked.

    Panels from left to right: the fraction of natural inputs for which the model
    predicts the true label; of adversarial inputs for which it predicts the true label;
    of adversarial inputs for which it predicts the attack label; and, if an adaptive
    attack was measured, of its inputs for which the model predicts the true label.
    Bands are 95 % confidence intervals over pairs; those of random orders reach from
    the lowest to the highest of the seeds.

    Args:
        results (MaskingCurves or sequence of them): Curves with at most five rankings;
            one for each layer.
        title (str, optional): Title of the figure. Default: None

    Returns:
        *Figure*: One row for each layer; three columns of panels, or four with an
        adaptive attack; one line for each ranking.

    Raises:
        ValueError: ``results`` is empty, or a layer has more than five rankings.

    Examples::

        >>> import torch
        >>> from captum_pse import evaluate_masking
        >>> from captum_pse.demo import load_model, make_pairs
        >>> order = {"by number": torch.arange(96.0)}
        >>> curves = evaluate_masking(
        ...     load_model(), make_pairs(2), "features.conv5", order, [0, 96], seeds=[0]
        ... )
        >>> clean, adversarial, attacked = plot_masking(curves).axes
        >>> clean.lines[0].get_ydata().tolist()[0]  # no units masked
        1.0
        >>> attacked.lines[0].get_ydata().tolist()[0]
        1.0
    """
    layers = list(results) if isinstance(results, Sequence) else [results]
    if not layers:
        raise ValueError("results: got none, want at least one")
    names = {
        "clean": "natural: predicts the true label",
        "adversarial": "adversarial: predicts the true label",
        "attacked": "adversarial: predicts the attack label",
        "adaptive": "adaptive attack: predicts the true label",
    }
    outcomes = [outcome for outcome in names if outcome in layers[0].table()[0]]
    size = 0.4 + 3.7 * len(outcomes), 0.4 + 3.2 * len(layers)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(layers), len(outcomes), squeeze=False)
    for line, result in zip(axes, layers, strict=True):
        rankings = list(dict.fromkeys(row["masked"] for row in result.table()))
        if len(rankings) > len(STYLES):
            raise ValueError(
                f"results: got {len(rankings)} rankings, want at most {len(STYLES)}"
            )
        for ax, outcome in zip(line, outcomes, strict=True):
            for ranking, (colour, marker) in zip(rankings, STYLES, strict=False):
                rows = [row for row in result.table() if row["masked"] == ranking]
                units = [row["units"] for row in rows]
                ax.plot(units, [row[outcome] for row in rows], color=colour,
                        marker=marker, markersize=4, label=ranking)  # fmt: skip
                low, high = (
                    [row[f"{outcome}_{side}"] for row in rows]
                    for side in ("low", "high")
                )
                ax.fill_between(units, low, high, color=colour, alpha=0.12)
            ax.set_title(f"{result.layer}\n{names[outcome]}", fontsize=9)
            ax.set_xlabel("units masked", fontsize=8)
            ax.set_ylim(-0.02, 1.02)
            ax.grid(alpha=0.3)
        line[0].set_ylabel("fraction of pairs", fontsize=8)
    axes[0, 0].legend(fontsize=8, title="masked first", title_fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
