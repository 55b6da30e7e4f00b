"""Figures of pixel groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import (
    Array,
    display_pair,
    perturbation,
    positive,
    to_numpy,
)
from captum_pse._drawing.panels import bare, draw_map, existing, headline
from captum_pse._drawing.styles import STYLES
from captum_pse._model.checks import check_int
from captum_pse.groups.types import COLORS, TYPES
from captum_pse.pixels.maps import pixel_maps

if TYPE_CHECKING:
    from captum_pse.pixels.refinement import Curve, Refinement
    from captum_pse.pixels.result import PixelDecomposition


def _draw_types(
    ax: Axes, types: Array, result: PixelDecomposition, example: int
) -> None:
    """Draws the map of types; its colour bar is the legend of the scatter as well."""
    bare(ax, "type")
    image = ax.imshow(
        types,
        cmap=ListedColormap(list(COLORS.values())),
        norm=BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5], 4),
        interpolation="nearest",
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, ticks=[-1, 0, 1, 2])
    record = result.summary()[example]
    names = [f"{kind.name}\n{record[kind.column]} groups" for kind in TYPES]
    bar.ax.set_yticklabels(names, fontsize=7)


def _draw_scatter(ax: Axes, result: PixelDecomposition, example: int) -> None:
    """Draws each group by its promotion and suppression, with lines around the balanced
    ones."""
    present = result.sizes[example] > 0
    p, s = (
        to_numpy(column[example][present])
        for column in (result.promotion, result.suppression)
    )
    colors = {kind.code: kind.color for kind in TYPES}
    codes = result.type_codes[example][present].tolist()
    ax.scatter(
        s, p, s=9, c=[colors[code] for code in codes], edgecolor="black", linewidth=0.2
    )
    top = max(float(p.max(initial=0)), float(s.max(initial=0)), result.eps) * 1.05
    for slope in (2.0**result.threshold, 2.0**-result.threshold):
        ax.plot([0, top / max(slope, 1)], [0, top * min(slope, 1)], "k:", linewidth=0.7)
    ax.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top))
    ax.set_aspect("equal")
    unit = result.pair.kind.plural
    ax.set_xlabel(f"suppression ({unit})", fontsize=8)
    ax.set_ylabel(f"promotion ({unit})", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.set_title("groups, coloured by type", fontsize=9)


def plot_pair(
    result: PixelDecomposition,
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The pair, its perturbation, and four maps of its groups.

    Promotion and suppression share one colour scale, from 0 to the larger maximum. The
    scale of the ratio is symmetric about 0. Each pixel of the perturbation shows the
    channel that changed most; its scale covers 99.5 % of the pixels, and arrows at the
    ends of the colour bar mark values beyond it. Images with values outside [0, 1] are
    rescaled together, as stated in their titles. If groups differ between channels, the
    maps show the mean over the channels that are in a group, and the ratio and type of
    that mean. Features in no group are hatched.

    Args:
        result (PixelDecomposition): Result on one image input ``(N, C, H, W)``.
        example (int, optional): Index of the example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Text before the description of the example. Default: None

    Returns:
        *Figure*: Two rows of four panels. Top: the pair, the perturbation and a scatter
        of the groups. Bottom: promotion, suppression, ratio and type.

    Raises:
        ValueError: The result is not of images, or ``class_names`` are too few.
        IndexError: ``example`` is out of range.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import CLASSES, load_model, make_pairs
        >>> result = PromotionSuppression(load_model()).decompose(*make_pairs(1))
        >>> figure = plot_pair(result, class_names=CLASSES)
        >>> figure.get_suptitle().splitlines()[0]
        'true balloon (0), attacked towards boat (1)'
        >>> promotion, suppression = (ax.images[0] for ax in figure.axes[4:6])
        >>> promotion.get_clim() == suppression.get_clim()
        True
    """
    existing(len(result), example)
    natural, adversarial, note = display_pair(result, example)
    strongest, reach = perturbation(result, example)
    maps = pixel_maps(result, example)
    promotion, suppression, ratio = (
        to_numpy(values) for values in (maps.promotion, maps.suppression, maps.ratio)
    )
    # All maps are NaN at the same positions, and never everywhere.
    top = positive(float(np.nanmax([promotion, suppression])))
    octaves = positive(float(np.nanmax(np.abs(ratio))))

    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplots(2, 4)
    for ax, image, name in (
        (axes[0, 0], natural, "natural"),
        (axes[0, 1], adversarial, "adversarial"),
    ):
        ax.imshow(image, interpolation="nearest")
        bare(ax, name + note)
    draw_map(axes[0, 2], strongest, "perturbation, strongest channel",
              "input units", "RdBu_r", -reach, reach)  # fmt: skip
    _draw_scatter(axes[0, 3], result, example)
    for ax, values, name, cmap in (
        (axes[1, 0], promotion, "promotion of the attack label", "Oranges"),
        (axes[1, 1], suppression, "suppression of the true label", "Purples"),
    ):
        draw_map(ax, values, name, result.pair.kind.plural, cmap, 0, top)
    draw_map(axes[1, 2], ratio, "ratio promotion : suppression", "octaves",
              "PuOr_r", -octaves, octaves)  # fmt: skip
    _draw_types(axes[1, 3], to_numpy(maps.types), result, example)
    text = headline(result.pair, example, class_names, title) + _estimated(result)
    figure.suptitle(text, fontsize=11, parse_math=False)
    return figure


def plot_groups(
    result: PixelDecomposition,
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    most: int = 40,
) -> Figure:
    """Promotion and suppression of the groups with the largest effect, as bars.

    Promotion is drawn upwards, suppression downwards. Inputs may be of any kind.

    Args:
        result (PixelDecomposition): Result on any inputs.
        example (int, optional): Index of the example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Text before the description of the example. Default: None
        most (int, optional): Maximum number of groups to draw. The axis label states
            the total. Default: 40

    Returns:
        *Figure*: One panel: bars in score units, in descending order of effect.

    Raises:
        IndexError: ``example`` is out of range.
        ValueError: ``most`` is not a positive int, or ``class_names`` are too few.

    Examples::

        >>> from captum_pse import PromotionSuppression, grid_mask
        >>> from captum_pse.demo import load_model, make_pairs
        >>> result = PromotionSuppression(load_model()).decompose(
        ...     *make_pairs(1), feature_mask=grid_mask((64, 64), cell=16)
        ... )
        >>> (ax,) = plot_groups(result, most=5).axes
        >>> ax.get_xlabel()
        'group, the 5 of 16 with the largest effect'
        >>> sizes = [abs(bar.get_height()) for bar in ax.patches]
        >>> effects = [p + s for p, s in zip(sizes[:5], sizes[5:])]
        >>> effects == sorted(effects, reverse=True)
        True
    """
    existing(len(result), example)
    most = check_int("most", most, 1)
    order = result.effect[example].argsort(descending=True, stable=True)[:most]
    labels = [str(i) for i in result.groups.ids[order].tolist()]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    positions = np.arange(len(order))
    p, s = (to_numpy(v[example][order]) for v in (result.promotion, result.suppression))
    ax.bar(positions, p, color=COLORS["promotion"], label="promotion")
    ax.bar(positions, -s, color=COLORS["suppression"], label="suppression")
    ax.axhline(0, color="black", linewidth=0.6)
    rotation = 90 if len(order) > 20 else 0
    ax.set_xticks(positions, labels, fontsize=7, rotation=rotation)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    total = len(result.groups)
    ax.set_xlabel(f"group, the {len(order)} of {total} with the largest effect")
    ax.set_ylabel(result.pair.kind.plural)
    ax.legend(fontsize=8)
    text = headline(result.pair, example, class_names, title) + _estimated(result)
    ax.set_title(text, fontsize=10, parse_math=False)
    return figure


def _estimated(result: PixelDecomposition) -> str:
    """A note for headings, empty for exact results."""
    return "" if result.method == "exact" else "; groups estimated from gradients"


def plot_refinements(
    refinements: Mapping[str, Refinement | Curve], *, title: str | None = None
) -> Figure:
    """Whether attacks still succeed on a fraction of their groups, by ranking.

    Args:
        refinements (mapping): One to five refinements by name of their ranking: each a
            :class:`captum_pse.Refinement` or its ``table()``.
        title (str, optional): Title of the figure. Default: None

    Returns:
        *Figure*: Three panels against the fraction of groups kept, with a line for each
        ranking. Left: the fraction of attacks whose prediction is still the attack
        label. Middle: the fraction whose prediction is still not the true label. Right:
        the mean L2 norm of the remaining perturbation, in input units.

    Raises:
        ValueError: There is no refinement, or more than five.

    Examples::

        >>> from captum_pse import grid_mask, refine
        >>> from captum_pse.demo import load_model, make_pairs
        >>> pair, mask = make_pairs(2), grid_mask((64, 64), cell=16)
        >>> delta = (pair.adversarial - pair.natural).abs()
        >>> result = refine(load_model(), *pair, scores=delta, feature_mask=mask)
        >>> figure = plot_refinements({"|delta|": result})
        >>> reaches = figure.axes[0].lines[0].get_ydata().tolist()
        >>> reaches[0], reaches[-1]  # without the perturbation, and with all of it
        (0.0, 1.0)
    """
    if not 1 <= len(refinements) <= len(STYLES):
        raise ValueError(
            f"refinements: got {len(refinements)}, want 1 to {len(STYLES)}"
        )
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("reaches", "attack label is still predicted", "fraction of attacks"),
        ("leaves", "true label is still not predicted", "fraction of attacks"),
        ("L2", "remaining perturbation", "mean L2 norm"),
    )
    for ax, (key, name, unit) in zip(axes, panels, strict=True):
        for (ranking, refinement), (color, marker) in zip(
            refinements.items(), STYLES, strict=False
        ):
            curve = refinement if isinstance(refinement, list) else refinement.table()
            ax.plot(
                [point["fraction"] for point in curve],
                [point[key] for point in curve],
                color=color,
                marker=marker,
                markersize=4,
                label=ranking or None,
            )
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("fraction of groups kept")
        ax.set_ylabel(unit)
        ax.set_xlim(-0.02, 1.02)
        ax.grid(alpha=0.3)
        if key != "L2":
            ax.set_ylim(-0.02, 1.02)
    if any(refinements):
        axes[0].legend(fontsize=8, title="groups kept by", title_fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
