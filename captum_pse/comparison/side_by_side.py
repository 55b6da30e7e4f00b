"""A figure of several methods side by side, on one pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import Array, display_pair, positive, to_numpy
from captum_pse._drawing.panels import bare, draw_map, existing, headline
from captum_pse._io.text import printable
from captum_pse.comparison.agreement import TOP, agreement
from captum_pse.groups.groups import Groups
from captum_pse.pixels.maps import mean_over_channels
from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import RegionDecomposition

Result = PixelDecomposition | RegionDecomposition
# As in the other figures, promotion is orange and suppression is purple.
_COMPONENTS = (("promotion", "PuOr_r"), ("suppression", "PuOr"))


def plot_methods(
    results: Mapping[str, Result],
    example: int = 0,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    feature_mask: Tensor | None = None,
    top: int = TOP,
) -> Figure:
    """Promotion and suppression of one pair, by several methods side by side.

    Each method has one column. Its two maps share a colour scale in the method's units,
    which is symmetric about 0 and covers 99.5 % of the pixels. Arrows at the ends of
    the colour bar mark values beyond the scale. Attributions are summed over channels.
    The title of each map states the method's agreement with the first method on the
    groups of ``feature_mask``: Spearman's rho, and the overlap of their top groups; see
    :func:`captum_pse.agreement`. It names the scores if the results have several kinds.

    Args:
        results (mapping): Results on the same pairs by name of the method, from
            ``decompose`` of :class:`captum_pse.PromotionSuppression`,
            :class:`captum_pse.AdversarialCAM` or :class:`captum_pse.PairedAttribution`.
        example (int, optional): Index of the example. Default: 0
        class_names (sequence of str, optional): Names of the classes. Default: None
        title (str, optional): Text before the description of the example. Default: None
        feature_mask (Tensor, optional): The groups to compare. None means the groups of
            the first result with more than one group, or else the default groups.
            Default: None
        top (int, optional): Number of top groups to compare by overlap. Default: 20

    Returns:
        *Figure*: The pair in the first column, then one column for each method,
        promotion above suppression.

    Raises:
        ValueError: There is no result, a result is not of images, or results are of
            different pairs.
        IndexError: ``example`` is out of range.

    Examples::

        >>> from captum.attr import Saliency
        >>> from captum_pse import PairedAttribution, PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(1)
        >>> figure = plot_methods({
        ...     "PSE": PromotionSuppression(model).decompose(*pair),
        ...     "Saliency": PairedAttribution(Saliency(model)).decompose(*pair),
        ... })
        >>> [ax.get_title().splitlines()[:2] for ax in figure.axes[1:3]]
        [['PSE', 'promotion'], ['Saliency', 'promotion']]
        >>> figure.axes[2].get_title().splitlines()[2].startswith("rho")
        True
    """
    if not results:
        raise ValueError("results: got none, want at least one")
    (first_name, first), *others = results.items()
    existing(len(first), example)
    natural, adversarial, note = display_pair(first, example)
    for name, other in others:
        if not _same_pairs(first, other):
            raise ValueError(
                f"results: {first_name} and {name} are not of the same pairs"
            )
    figure = Figure(figsize=(2.6 + 2.9 * len(results), 6.2), layout="constrained")
    axes = figure.subplots(2, 1 + len(results), squeeze=False)
    for ax, image, name in (
        (axes[0, 0], adversarial, "adversarial"),
        (axes[1, 0], natural, "natural"),
    ):
        ax.imshow(image, interpolation="nearest")
        bare(ax, name + note)
    notes = _agreement_notes(results, example, feature_mask, top) if others else {}
    several_scores = len({result.score for result in results.values()}) > 1
    for column, (name, result) in enumerate(results.items(), start=1):
        maps = [_map(result, component, example) for component, _ in _COMPONENTS]
        sizes = np.abs(np.stack(maps))
        spread = float(np.nanquantile(sizes, 0.995))
        reach = positive(spread, float(np.nanmax(sizes)))
        for ax, values, (component, cmap) in zip(
            axes[:, column], maps, _COMPONENTS, strict=True
        ):
            text = f"{printable(name)}\n{component}"
            if several_scores:
                text += f", {result.pair.kind.plural}"
            if name != first_name:
                text += "\n" + notes[component, name]
            draw_map(ax, values, text, "", cmap, -reach, reach)
    heading = headline(first.pair, example, class_names, title)
    if others:
        heading += f"\nagreement with {printable(first_name)}, over groups of pixels"
    figure.suptitle(heading, fontsize=11, parse_math=False)
    return figure


def _same_pairs(a: Result, b: Result) -> bool:
    return torch.equal(a.inputs[0], b.inputs[0]) and all(
        torch.equal(getattr(a.labels, name), getattr(b.labels, name))
        for name in ("target", "true_target")
    )


def _map(result: Result, component: str, example: int) -> Array:
    if isinstance(result, PixelDecomposition):
        return to_numpy(mean_over_channels(result, getattr(result, component), example))
    return to_numpy(result.on_inputs(component)[example, 0])  # type: ignore[arg-type]


def _attribution(result: Result, component: str) -> Tensor:
    """One component, with the shape of the input or with a single channel."""
    if isinstance(result, PixelDecomposition):
        return result.groups.spread(getattr(result, component), result.inputs)[0]
    whole = result.attribution(component)  # type: ignore[arg-type]
    if whole.shape == result.inputs[0].shape:
        return whole
    return result.on_inputs(component)  # type: ignore[arg-type]


def _agreement_notes(
    results: Mapping[str, Result],
    example: int,
    feature_mask: Tensor | None,
    top: int,
) -> dict[tuple[str, str], str]:
    """Each method's agreement with the first, as text by component and name."""
    inputs = next(iter(results.values())).inputs
    used = [r.groups for r in results.values() if isinstance(r, PixelDecomposition)]
    groups = next((g for g in used if len(g) > 1), None)
    if feature_mask is not None or groups is None:
        groups = Groups.of(feature_mask, inputs)
    mask = groups.index[0]
    mask = mask if len(mask) == 1 else mask[example : example + 1]
    notes = {}
    for component, _ in _COMPONENTS:
        attributions = {
            name: _attribution(result, component)[example : example + 1]
            for name, result in results.items()
        }
        shape = inputs[0][:1].shape
        result = agreement(
            {name: values.expand(shape) for name, values in attributions.items()},
            feature_mask=mask,
            top=top,
        )
        for name, rho, overlap in zip(
            results, result.rank_correlation[0, 0], result.overlap[0, 0], strict=True
        ):
            number = "undefined" if rho.isnan() else f"{rho:.2f}"
            notes[component, name] = f"rho {number}, top {top} shared {overlap:.0%}"
    return notes
