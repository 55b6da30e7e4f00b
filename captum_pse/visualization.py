"""Figures of pairs and their decompositions.

Captum's ``visualize_image_attr`` takes every component as it is. It normalises each map
on its own, though, and refuses maps that are all zero; here, promotion and suppression
share one scale in the model's units, and every map can be drawn.

All functions return a :class:`matplotlib.figure.Figure` and never show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from captum_pse import components
from captum_pse._text import printable

if TYPE_CHECKING:
    from captum_pse.decomposition import PixelDecomposition

#: Purple for suppression, orange for promotion: told apart with any colour vision.
COLORS = {
    "suppression": "#5e3c99",
    "balanced": "#bdbdbd",
    "promotion": "#e66101",
    "inactive": "#ffffff",
}
Array = npt.NDArray[Any]


def _numpy(x: Tensor) -> Array:
    return x.detach().to("cpu", torch.float32).numpy()


def _displayable(image: Tensor, low: float, high: float) -> Array:
    """An image ``(C, H, W)`` as matplotlib draws it, from the range given to [0, 1]."""
    pixels = (_numpy(image) - low) / (high - low)
    if len(pixels) != 3:
        pixels = np.repeat(pixels.mean(0, keepdims=True), 3, axis=0)
    return np.clip(np.moveaxis(pixels, 0, -1), 0, 1)


def _bare(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    # Shows through where a map has no value: features in no group.
    ax.patch.set(facecolor="white", edgecolor="#d0d0d0", hatch="xxx")


def _draw_map(
    ax: Axes, values: Array, title: str, unit: str, cmap: str, low: float, high: float
) -> None:
    """One map with its colour bar; arrows on the bar say where values go beyond it."""
    _bare(ax, title)
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    slack = 1e-3 * (high - low)
    below = np.nanmin(values) < low - slack
    above = np.nanmax(values) > high + slack
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    bar = ax.figure.colorbar(
        image, ax=ax, shrink=0.8, extend=extend[int(below), int(above)]
    )
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_types(
    ax: Axes, types: Array, inactive: Array, result: PixelDecomposition, example: int
) -> None:
    """The map of types; its colour bar is the scatter's legend too."""
    _bare(ax, "type")
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
        _numpy(column[example][present])
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


def _class_name(number: int, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return f"{number}"
    if number >= len(class_names):
        raise ValueError(f"class_names: got {len(class_names)}, want one for {number}")
    return f"{printable(class_names[number])} ({number})"


def _headline(
    result: PixelDecomposition,
    example: int,
    class_names: Sequence[str] | None,
    title: str | None,
) -> str:
    text = describe(result, example, class_names)
    return text if title is None else f"{printable(title)}: {text}"


def describe(
    result: PixelDecomposition, example: int, class_names: Sequence[str] | None = None
) -> str:
    """Two lines on one example: the labels, and how far the scores moved."""
    t, t0 = (
        int(index[example, 0])
        for index in (result.labels.target, result.labels.true_target)
    )
    gain, loss = (result.adversarial_scores - result.natural_scores)[example].tolist()
    text = (
        f"true {_class_name(t0, class_names)}, attacked towards "
        f"{_class_name(t, class_names)}\n"
        f"attack logit {gain:+.2f}, true logit {loss:+.2f}"
    )
    said = int(result.labels.adversarial_class[example])
    if said != t:
        text += f"; the model says {_class_name(said, class_names)} on the adversarial"
    return text


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
    their titles say. Where groups differ between channels, the mean over channels is
    drawn.

    Args:
        result (PixelDecomposition): Of one image input ``(N, C, H, W)``.
        example (int, optional): Which example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Put before the description of the example. Default: None

    Raises:
        ValueError: The result is not of images.
        IndexError: There is no such example.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import CLASSES, load_model, make_pairs
        >>> result = PromotionSuppression(load_model()).decompose(*make_pairs(1))
        >>> figure = plot_pair(result, class_names=CLASSES)
    """
    if len(result.inputs) != 1 or result.inputs[0].dim() != 4:
        shapes = [tuple(x.shape) for x in result.inputs]
        raise ValueError(
            f"result: got inputs of shapes {shapes}, want one (N, C, H, W)"
        )
    example = _existing(result, example)
    natural, adversarial = result.baselines[0][example], result.inputs[0][example]
    both = torch.stack([natural, adversarial]).float()
    low, high = float(both.min()), float(both.max())
    rescaled = low < 0 or high > 1
    note = f"\n(rescaled from [{low:.2g}, {high:.2g}])" if rescaled else ""
    low, high = (low, max(high, low + 1e-12)) if rescaled else (0.0, 1.0)

    delta = adversarial.float() - natural.float()
    strongest = _numpy(delta.gather(0, delta.abs().argmax(0, keepdim=True))[0])
    sizes = np.abs(strongest)
    reach = _positive(float(np.quantile(sizes, 0.995)), float(sizes.max()))
    promotion, suppression = (
        _mean_over_channels(result, values, example)
        for values in (result.promotion, result.suppression)
    )
    ratio = components.log_ratio(promotion, suppression, result.eps)
    types = components.dominance(ratio, result.threshold)
    types[ratio.isnan()] = torch.nan
    inactive = components.is_inactive(promotion, suppression, result.eps)
    # In no group means not a number, in all three alike; some group there always is.
    in_group = ~ratio.isnan()
    top = _positive(float(torch.stack([promotion, suppression])[:, in_group].max()))
    octaves = _positive(float(ratio[in_group].abs().max()))

    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplots(2, 4)
    for ax, image, name in (
        (axes[0, 0], natural, "natural"),
        (axes[0, 1], adversarial, "adversarial"),
    ):
        ax.imshow(_displayable(image, low, high), interpolation="nearest")
        _bare(ax, name + note)
    _draw_map(axes[0, 2], strongest, "perturbation, strongest channel",
              "input units", "RdBu_r", -reach, reach)  # fmt: skip
    _draw_scatter(axes[0, 3], result, example)
    for ax, values, name, cmap in (
        (axes[1, 0], promotion, "promotion of the attack label", "Oranges"),
        (axes[1, 1], suppression, "suppression of the true label", "Purples"),
    ):
        _draw_map(ax, _numpy(values), name, "logits", cmap, 0, top)
    _draw_map(axes[1, 2], _numpy(ratio), "ratio promotion : suppression", "octaves",
              "PuOr_r", -octaves, octaves)  # fmt: skip
    _draw_types(axes[1, 3], _numpy(types), inactive.cpu().numpy(), result, example)
    text = _headline(result, example, class_names, title)
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
        most (int, optional): How many groups to draw at most; the title says how many
            there are. Default: 40

    Raises:
        IndexError: There is no such example.
        ValueError: ``most`` is not positive.
    """
    example = _existing(result, example)
    if most < 1:
        raise ValueError(f"most: got {most}, want at least 1")
    order = result.effect[example].argsort(descending=True, stable=True)[:most]
    labels = [str(i) for i in result.groups.ids[order].tolist()]
    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    place = np.arange(len(order))
    p, s = (_numpy(v[example][order]) for v in (result.promotion, result.suppression))
    ax.bar(place, p, color=COLORS["promotion"], label="promotion")
    ax.bar(place, -s, color=COLORS["suppression"], label="suppression")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(place, labels, fontsize=7, rotation=90 if len(place) > 20 else 0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set_xlabel(f"group, the {len(order)} of {len(result.groups)} with most effect")
    ax.set_ylabel("logits")
    ax.legend(fontsize=8)
    text = _headline(result, example, class_names, title)
    ax.set_title(text, fontsize=10, parse_math=False)
    return figure


def _mean_over_channels(
    result: PixelDecomposition, values: Tensor, example: int
) -> Tensor:
    """A map ``(H, W)`` of the groups' values; NaN where no channel is in a group."""
    single = tuple(x.float() for x in result.inputs)
    spread = result.groups.spread(values, single)[0][example]
    index = result.groups.index[0].expand_as(result.inputs[0])[example]
    return torch.where(index >= 0, spread, torch.nan).nanmean(0)


def _existing(result: PixelDecomposition, example: int) -> int:
    if not 0 <= example < len(result):
        raise IndexError(f"example: got {example}, want 0 to {len(result) - 1}")
    return example


def _positive(*limits: float) -> float:
    """The first positive limit of a scale, or 1 where there is nothing to see."""
    return next((limit for limit in limits if limit > 0), 1.0)
