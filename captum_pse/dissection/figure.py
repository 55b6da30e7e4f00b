"""Figures of the concepts that the units of a network detect."""

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
from captum_pse._model.checks import check_int

if TYPE_CHECKING:
    from captum_pse.dissection.concepts import ConceptDataset
    from captum_pse.dissection.network_dissection import NetworkDissection
    from captum_pse.dissection.result import Dissection


def plot_detectors(
    result: Dissection, layers: Sequence[str] | None = None, *, most: int = 30
) -> Figure:
    """The number of detectors of each concept in each layer.

    Args:
        result (Dissection): The dissection.
        layers (sequence of str, optional): Names of the layers to draw; None draws all.
            Default: None
        most (int, optional): Largest number of concepts to draw for each layer, 1 or
            more. Concepts with more detectors come first; the title states the number
            of concepts. Default: 30

    Returns:
        *Figure*: One panel for each layer. The height of a bar is the number of
        detectors, its colour is the concept's category.

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
    most = check_int("most", most, 1)
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
        concepts = [result.concepts[index] for index, _ in shown]
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
        text += f" ({most} shown)" if len(counts) > most else ""
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
    """The images with the highest activations of units, and the units' masks.

    Args:
        method (NetworkDissection): The method, with the model.
        result (Dissection): The result of the method on ``dataset``.
        dataset (ConceptDataset): The data set that was dissected.
        layer (str): Name of the layer.
        units (sequence of int, optional): Indices of the units; None means the eight
            with the largest IoU. Default: None
        n_images (int, optional): Number of images for each unit, at most 8. Default: 5

    Returns:
        *Figure*: ``len(units)`` rows of ``n_images`` panels. The outline is that of the
        unit's mask. Images with values outside [0, 1] are rescaled one by one.

    Raises:
        TypeError, ValueError: There is no such layer or unit, or ``n_images`` is not a
            positive int.

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
    iou, concepts = result.best(layer)
    if units is None:
        units = iou.argsort(descending=True, stable=True)[:8].tolist()
    units = [check_int("units", unit) for unit in units]
    n_images = check_int("n_images", n_images, 1)
    if not units or not all(0 <= unit < len(iou) for unit in units):
        raise ValueError(f"units: got {units}, want numbers from 0 to {len(iou) - 1}")
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
        concept = result.concepts[int(concepts[unit])].name if iou[unit] > 0 else "none"
        note = "" if iou[unit] > result.min_iou else ", not a detector"
        text = f"unit {unit}: {printable(concept, 30)}, IoU {iou[unit]:.3f}{note}"
        row[0].set_title(text, fontsize=9, loc="left", parse_math=False)
    return figure


def _shown(image: torch.Tensor) -> np.ndarray:
    """The image as ``(H, W, 3)`` in [0, 1], rescaled if its values are outside."""
    pixels = np.moveaxis(to_numpy(image), 0, -1)
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    return pixels
