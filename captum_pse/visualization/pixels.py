"""Figures of pixel groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from torch import Tensor

from captum_pse import components
from captum_pse.pixel_decomposition import PixelDecomposition
from captum_pse.visualization._figure import Figure
from captum_pse.visualization._panels import (
    Array,
    bare,
    display_pair,
    draw_map,
    existing,
    headline,
    positive,
    to_numpy,
)

#: Purple for suppression, orange for promotion: told apart with any colour vision.
COLORS = {
    "suppression": "#5e3c99",
    "balanced": "#bdbdbd",
    "promotion": "#e66101",
    "inactive": "#ffffff",
}


def _draw_types(
    ax: Axes, types: Array, inactive: Array, result: PixelDecomposition, example: int
) -> None:
    """The map of types; its colour bar is the scatter's legend too."""
    bare(ax, "type")
    image = ax.imshow(
        np.where(inactive, 2, types),
        cmap=ListedColormap(list(COLORS.values())),
        norm=BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5], 4),
        interpolation="nearest",
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, ticks=[-1, 0, 1, 2])
    record = result.summary()[example]
    counts = ("suppression_dominated", "balanced", "promotion_dominated", "inactive")
    bar.ax.set_yticklabels(
        [
            f"{name}\n{record[count]} groups"
            for name, count in zip(COLORS, counts, strict=True)
        ],
        fontsize=7,
    )


def _draw_scatter(ax: Axes, result: PixelDecomposition, example: int) -> None:
    """Every group by its two effects; the lines bound the balanced ones."""
    present = result.sizes[example] > 0
    p, s, types, inactive = (
        to_numpy(column[example][present])
        for column in (
            result.promotion,
            result.suppression,
            result.type,
            result.inactive,
        )
    )
    palette = np.array(list(COLORS.values()))
    kinds = np.where(inactive == 1, 2, types).astype(int) + 1
    ax.scatter(s, p, s=9, c=palette[kinds], edgecolor="black", linewidth=0.2)
    top = max(float(p.max(initial=0)), float(s.max(initial=0)), result.eps) * 1.05
    for slope in (2.0**result.threshold, 2.0**-result.threshold):
        ax.plot([0, top / max(slope, 1)], [0, top * min(slope, 1)], "k:", linewidth=0.7)
    ax.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top))
    ax.set_aspect("equal")
    ax.set_xlabel("suppression (logits)", fontsize=8)
    ax.set_ylabel("promotion (logits)", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.set_title("groups, coloured by type", fontsize=9)


def plot_pair(
    result: PixelDecomposition,
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The pair, its perturbation, and the four maps of its groups.

    Promotion and suppression are drawn on one scale, from 0 to the larger maximum; the
    ratio on a scale symmetric about 0. The perturbation shows, in each pixel, the
    channel that changed most; its colour bar spans 99.5 % of the pixels, and arrows at
    its ends say that some go beyond. Images outside [0, 1] are rescaled together, which
    their titles say. Where groups differ between channels, the mean over the channels
    that are in a group is drawn, and the ratio and type of that mean. Features in no
    group are hatched.

    Args:
        result (PixelDecomposition): Of one image input ``(N, C, H, W)``.
        example (int, optional): Which example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Put before the description of the example. Default: None

    Returns:
        *Figure*: Two rows of four panels: above the pair, the perturbation and a
        scatter of the groups, below promotion, suppression, ratio and type.

    Raises:
        ValueError: The result is not of images, or ``class_names`` are too few.
        IndexError: There is no such example.

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
    delta = (result.inputs[0] - result.baselines[0])[example].float()
    strongest = to_numpy(delta.gather(0, delta.abs().argmax(0, keepdim=True))[0])
    sizes = np.abs(strongest)
    reach = positive(float(np.quantile(sizes, 0.995)), float(sizes.max()))
    promotion, suppression = (
        mean_over_channels(result, values, example)
        for values in (result.promotion, result.suppression)
    )
    ratio = components.log_ratio(promotion, suppression, result.eps)
    types = components.dominance(ratio, result.threshold)
    types[ratio.isnan()] = torch.nan
    inactive = components.is_inactive(promotion, suppression, result.eps)
    # In no group means not a number, in all three alike; some group there always is.
    in_group = ~ratio.isnan()
    top = positive(float(torch.stack([promotion, suppression])[:, in_group].max()))
    octaves = positive(float(ratio[in_group].abs().max()))

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
        draw_map(ax, to_numpy(values), name, "logits", cmap, 0, top)
    draw_map(axes[1, 2], to_numpy(ratio), "ratio promotion : suppression", "octaves",
              "PuOr_r", -octaves, octaves)  # fmt: skip
    _draw_types(axes[1, 3], to_numpy(types), inactive.cpu().numpy(), result, example)
    text = headline(result.labels, example, class_names, title) + _estimated(result)
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
    """Promotion upwards and suppression downwards of the groups with most effect.

    For inputs of any kind.

    Args:
        result (PixelDecomposition): Any.
        example (int, optional): Which example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Put before the description of the example. Default: None
        most (int, optional): How many groups to draw at most; the axis says how many
            there are. Default: 40

    Returns:
        *Figure*: One panel: bars in logits, those of most effect first.

    Raises:
        IndexError: There is no such example.
        ValueError: ``most`` is not positive, or ``class_names`` are too few.

    Examples::

        >>> from captum_pse import PromotionSuppression, grid_mask
        >>> from captum_pse.demo import load_model, make_pairs
        >>> result = PromotionSuppression(load_model()).decompose(
        ...     *make_pairs(1), feature_mask=grid_mask((64, 64), cell=16)
        ... )
        >>> (ax,) = plot_groups(result, most=5).axes
        >>> ax.get_xlabel()
        'group, the 5 of 16 with most effect'
        >>> sizes = [abs(bar.get_height()) for bar in ax.patches]
        >>> effects = [p + s for p, s in zip(sizes[:5], sizes[5:])]
        >>> effects == sorted(effects, reverse=True)
        True
    """
    existing(len(result), example)
    if most < 1:
        raise ValueError(f"most: got {most}, want at least 1")
    order = result.effect[example].argsort(descending=True, stable=True)[:most]
    labels = [str(i) for i in result.groups.ids[order].tolist()]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(order))
    p, s = (to_numpy(v[example][order]) for v in (result.promotion, result.suppression))
    ax.bar(place, p, color=COLORS["promotion"], label="promotion")
    ax.bar(place, -s, color=COLORS["suppression"], label="suppression")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(place, labels, fontsize=7, rotation=90 if len(place) > 20 else 0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel(f"group, the {len(order)} of {len(result.groups)} with most effect")
    ax.set_ylabel("logits")
    ax.legend(fontsize=8)
    text = headline(result.labels, example, class_names, title) + _estimated(result)
    ax.set_title(text, fontsize=10, parse_math=False)
    return figure


def _estimated(result: PixelDecomposition) -> str:
    return "" if result.method == "exact" else "; groups estimated from gradients"


def mean_over_channels(
    result: PixelDecomposition, values: Tensor, example: int
) -> Tensor:
    """A map ``(H, W)`` of the groups' values; NaN where no channel is in a group."""
    single = tuple(x.float() for x in result.inputs)
    spread = result.groups.spread(values, single)[0][example]
    index = result.groups.index[0].expand_as(result.inputs[0])[example]
    return torch.where(index >= 0, spread, torch.nan).nanmean(0)
