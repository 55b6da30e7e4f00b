"""Panels of figures: maps, colour bars, headings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from captum_pse._drawing.images import Array
from captum_pse._io.text import printable
from captum_pse._model.checks import check_int
from captum_pse.pairs.scored import ScoredPair


def bare(ax: Axes, title: str) -> None:
    """Gives ``ax`` a title and a hatched background, and removes its ticks."""
    ax.set_title(title, fontsize=9, parse_math=False)
    ax.set_xticks([])
    ax.set_yticks([])
    # The hatching is visible where a map has no value: features in no group.
    ax.patch.set(facecolor="white", edgecolor="#d0d0d0", hatch="xxx")


def colour_bar(
    ax: Axes, image: AxesImage, values: Array, low: float, high: float, unit: str
) -> None:
    """The colour bar of one map; its ends are arrows if values exceed its limits."""
    slack = 1e-3 * (high - low)
    below = np.nanmin(values) < low - slack
    above = np.nanmax(values) > high + slack
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    bar = ax.figure.colorbar(
        image, ax=ax, shrink=0.8, extend=extend[int(below), int(above)]
    )
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def draw_map(
    ax: Axes, values: Array, title: str, unit: str, cmap: str, low: float, high: float
) -> None:
    """Draws one map with its colour bar."""
    bare(ax, title)
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    colour_bar(ax, image, values, low, high, unit)


def _class_name(number: int, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return f"{number}"
    if number >= len(class_names):
        raise ValueError(f"class_names: got {len(class_names)}, want one for {number}")
    return f"{printable(class_names[number])} ({number})"


def headline(
    pair: ScoredPair,
    example: int,
    class_names: Sequence[str] | None,
    title: str | None,
) -> str:
    """Two lines on one example: its labels and the changes of their scores.

    If the prediction on the adversarial input is not the attack label, it is added, and
    so is that the score of the attack label is saturated.
    """
    labels, score = pair.labels, pair.kind.name
    t, t0 = (int(index[example, 0]) for index in (labels.target, labels.true_target))
    changes = labels.adversarial_scores - labels.natural_scores
    attack_change, true_change = changes[example].tolist()
    text = "" if title is None else f"{printable(title)}: "
    text += (
        f"true {_class_name(t0, class_names)}, attacked towards "
        f"{_class_name(t, class_names)}\n"
        f"attack {score} {attack_change:+.2f}, true {score} {true_change:+.2f}"
    )
    if pair.saturated[example]:
        text += ", saturated"
    predicted = int(labels.adversarial_class[example])
    if predicted != t:
        name = _class_name(predicted, class_names)
        text += f"; the model predicts {name} on the adversarial"
    return text


def existing(n: int, example: int) -> None:
    """Raises IndexError unless ``example`` is an index of n examples."""
    if not 0 <= check_int("example", example) < n:
        raise IndexError(f"example: got {example}, want 0 to {n - 1}")
