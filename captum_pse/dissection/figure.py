"""Figures of what the units of a network detect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.patches import Patch

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import to_numpy
from captum_pse._drawing.panels import bare
from captum_pse._drawing.styles import OKABE_ITO
from captum_pse._io.text import printable

if TYPE_CHECKING:
    from captum_pse.dissection.concepts import ConceptDataset
    from captum_pse.dissection.network_dissection import NetworkDissection
    from captum_pse.dissection.result import Dissection


def plot_detectors(
    result: Dissection, layers: Sequence[str] | None = None, *, most: int = 30
) -> Figure:
    """How many units of each layer detect which concept, a panel a layer.

    Args:
        result (Dissection): Any.
        layers (sequence of str, optional): Which layers; None draws all. Default: None
        most (int, optional): How many concepts of a layer to draw at most, those with
            most detectors, 1 or more; the panel says how many there are. Default: 30

    Returns:
        *Figure*: A panel for each layer; a bar's height is a number of units, its
        colour the concept's category.

    Raises:
        ValueError: There is no such layer, or ``most`` is not positive.

    Examples::

        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> from captum_pse import NetworkDissection
        >>> method = NetworkDissection(load_model(), ["features.conv1"])
        >>> result = method.dissect(SceneConcepts(4))
        >>> (panel,) = plot_detectors(result).axes
        >>> found = result.detectors("features.conv1")
        >>> sum(bar.get_height() for bar in panel.patches) == int(found.sum()) > 0
        True
    """
    if most < 1:
        raise ValueError(f"most: got {most}, want at least 1")
    names = list(result.layers) if layers is None else list(layers)
    colours = {
        category: OKABE_ITO[i % len(OKABE_ITO)]
        for i, category in enumerate(result.categories)
    }
    figure = Figure(figsize=(9, 0.6 + 2.6 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for ax, name in zip(axes, names, strict=True):
        detects = result.detectors(name)
        best = result.best(name)[1][detects].tolist()
        counts = Counter(best).most_common()
        shown = counts[:most]
        concepts = [result.concepts[place] for place, _ in shown]
        ax.bar(
            range(len(shown)),
            [count for _, count in shown],
            color=[colours[concept.category] for concept in concepts],
        )
        ax.set_xticks(range(len(shown)), [printable(c.name, 20) for c in concepts])
        for label in ax.get_xticklabels():
            label.set(fontsize=8, rotation=60, ha="right", parse_math=False)
        ax.set_ylabel("detectors", fontsize=8)
        ax.set_xlim(-0.6, max(len(shown), 12) - 0.4)
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        text = f"{name}: {len(best)} of {len(detects)} units detect "
        text += f"{len(counts)} concepts"
        text += f", the {most} with most are shown" if len(counts) > most else ""
        ax.set_title(text, fontsize=9, parse_math=False)
    legend = axes[0].legend(
        handles=[Patch(color=c, label=printable(name)) for name, c in colours.items()],
        fontsize=8,
        loc="upper right",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def plot_units(
    method: NetworkDissection,
    result: Dissection,
    dataset: ConceptDataset,
    layer: str,
    units: Sequence[int] | None = None,
    *,
    n_images: int = 5,
) -> Figure:
    """The images that units answer most, with their masks outlined; a row a unit.

    Args:
        method (NetworkDissection): With the model.
        result (Dissection): What it found on ``dataset``.
        dataset (ConceptDataset): The same as was dissected.
        layer (str): Name of the layer.
        units (sequence of int, optional): Which units; None takes the eight with the
            largest IoU. Default: None
        n_images (int, optional): How many images of each, 8 at most. Default: 5

    Returns:
        *Figure*: ``len(units)`` rows of ``n_images`` panels; images outside [0, 1] are
        rescaled one by one.

    Raises:
        ValueError: There is no such layer or unit.

    Examples::

        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> scenes, layer = SceneConcepts(24), "features.conv1"
        >>> from captum_pse import NetworkDissection
        >>> method = NetworkDissection(load_model(), [layer])
        >>> result = method.dissect(scenes)
        >>> best = int(result.best(layer)[0].argmax())
        >>> figure = plot_units(method, result, scenes, layer, [best], n_images=3)
        >>> len(figure.axes), figure.axes[0].get_title("left").split(",")[0]
        (3, 'unit 5: red')
    """
    iou, places = result.best(layer)
    if units is None:
        units = iou.argsort(descending=True, stable=True)[:8].tolist()
    units = [int(unit) for unit in units]
    if not units or not all(0 <= unit < len(iou) for unit in units):
        raise ValueError(f"units: got {list(units)}, want some of 0 to {len(iou) - 1}")
    figure = Figure(figsize=(1.7 * n_images, 1.95 * len(units)), layout="constrained")
    axes = figure.subplots(len(units), n_images, squeeze=False)
    for row, unit in zip(axes, units, strict=True):
        images = result.layers[layer].images[unit, :n_images].tolist()
        for column, ax in enumerate(row):
            if column >= len(images) or images[column] < 0:
                ax.set_axis_off()
                continue
            image = dataset[images[column]].image
            mask = method.unit_masks(image.unsqueeze(0), result, layer, [unit])[0, 0]
            bare(ax, "")
            ax.imshow(_shown(image), interpolation="nearest")
            if 0 < mask.float().mean() < 1:
                ax.contour(to_numpy(mask), levels=[0.5], colors="#d55e00")
        concept = result.concepts[int(places[unit])].name if iou[unit] > 0 else "none"
        said = "" if iou[unit] > result.min_iou else ", no detector"
        text = f"unit {unit}: {printable(concept, 30)}, IoU {iou[unit]:.3f}{said}"
        row[0].set_title(text, fontsize=9, loc="left", parse_math=False)
    return figure


def _shown(image: torch.Tensor) -> np.ndarray:
    """The image ``(H, W, 3)`` in [0, 1], stretched where it goes beyond."""
    pixels = np.moveaxis(to_numpy(image), 0, -1)
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    return pixels
