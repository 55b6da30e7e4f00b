"""Figures of image regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import Array, display_pair, positive, to_numpy
from captum_pse._drawing.panels import bare, colour_bar, draw_map, existing, headline
from captum_pse.groups.types import COLORS
from captum_pse.regions.interpretability import PERCENTILE

if TYPE_CHECKING:
    from captum_pse.regions.result import RegionDecomposition


def _draw_over(
    ax: Axes, image: Array, values: Array, top: float, low: float, title: str
) -> None:
    """Draws a map over its grey image; larger values are more opaque."""
    bare(ax, title)
    grey = image.mean(axis=-1)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1.4, interpolation="nearest")
    strength = np.clip(np.abs(values) / max(top, -low), 0, 1)
    overlay = ax.imshow(
        values, cmap="viridis", vmin=low, vmax=top, alpha=0.25 + 0.6 * strength
    )
    colour_bar(ax, overlay, values, low, top, "map")


def plot_regions(
    result: RegionDecomposition,
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    percentile: float = PERCENTILE,
) -> Figure:
    """The four class activation maps over the two images, and their differences.

    The rows are the true and the attack label, the first two columns the natural and
    the adversarial image. All four maps share one colour scale. Suppression and
    promotion, in the third column, share another scale, symmetric about 0. Contours
    enclose the masks of the interpretability scores. The titles state these scores and
    their lift over shifted masks.

    Args:
        result (RegionDecomposition): Result on one image input ``(N, C, H, W)``.
        example (int, optional): Index of the example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Text before the description of the example. Default: None
        percentile (float, optional): Percentile of the masks, in [0, 100]. Default: 70

    Returns:
        *Figure*: Two rows of three panels, in the units of the maps.

    Raises:
        ValueError: The result is not of images, ``class_names`` are too few, or
            ``percentile`` is out of range.
        IndexError: ``example`` is out of range.

    Examples::

        >>> from captum_pse import AdversarialCAM
        >>> from captum_pse.demo import CLASSES, load_model, make_pairs
        >>> method = AdversarialCAM(load_model(), "features.conv4")
        >>> figure = plot_regions(
        ...     method.decompose(*make_pairs(1)), class_names=CLASSES
        ... )
        >>> [ax.get_title().split(",")[0] for ax in figure.axes[:2]]
        ['natural', 'adversarial']
        >>> maps = [figure.axes[i].images[1] for i in (0, 1, 3, 4)]
        >>> len({drawn.get_clim() for drawn in maps})  # one scale
        1
    """
    existing(len(result), example)
    natural, adversarial, note = display_pair(result, example)
    true_natural, true_adversarial, attack_natural, attack_adversarial = (
        to_numpy(result.on_inputs(which)[example, 0])
        for which in (
            *("natural_true", "adversarial_true"),
            *("natural_attack", "adversarial_attack"),
        )
    )
    four = np.stack(
        [true_natural, true_adversarial, attack_natural, attack_adversarial]
    )
    top, low = positive(float(four.max())), min(float(four.min()), 0.0)
    suppression = true_natural - true_adversarial
    promotion = attack_adversarial - attack_natural
    reach = positive(float(np.abs(np.stack([suppression, promotion])).max()))

    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    panels = (
        (axes[0, 0], natural, true_natural, "natural, true label", "natural_true"),
        (axes[0, 1], adversarial, true_adversarial, "adversarial, true label", None),
        (axes[1, 0], natural, attack_natural, "natural, attack label", None),
        (
            axes[1, 1],
            adversarial,
            attack_adversarial,
            "adversarial, attack label",
            "adversarial_attack",
        ),
    )
    for ax, image, values, name, scored in panels:
        if scored is None:
            _draw_over(ax, image, values, top, low, name + note)
            continue
        score = result.interpretability(scored, percentile)  # type: ignore[arg-type]
        text = f"{name}{note}\nIS {score.score[example]:.2f}"
        if not score.lift[example].isnan():
            text += f", {score.lift[example]:.2f} x a shifted mask's"
        _draw_over(ax, image, values, top, low, text)
        mask = to_numpy(score.mask[example, 0])
        if 0 < mask.mean() < 1:
            ax.contour(mask, levels=[0.5], colors=COLORS["promotion"], linewidths=1.2)
    # Suppression is purple and promotion orange, as in the figures of pixel groups.
    for ax, values, name, cmap in (
        (axes[0, 2], suppression, "suppression of the true label", "PuOr"),
        (axes[1, 2], promotion, "promotion of the attack label", "PuOr_r"),
    ):
        draw_map(ax, values, name, "map", cmap, -reach, reach)
    text = headline(result.pair, example, class_names, title)
    figure.suptitle(text, fontsize=11, parse_math=False)
    return figure
