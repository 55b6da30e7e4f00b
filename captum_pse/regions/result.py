"""The result of :class:`captum_pse.AdversarialCAM`: the four maps of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_pse._model.checks import check_choice
from captum_pse._model.input_channels import asked_for
from captum_pse.pairs.labels import records
from captum_pse.pairs.scored import PairResult, ScoredPair
from captum_pse.regions.interpretability import (
    PERCENTILE,
    InterpretabilityScore,
    interpretability_score,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ClassMap: TypeAlias = Literal[
    "natural_true", "adversarial_true", "natural_attack", "adversarial_attack"
]
RegionComponent: TypeAlias = Literal["promotion", "suppression"] | ClassMap
CLASS_MAPS: tuple[str, ...] = get_args(ClassMap)
REGION_COMPONENTS: tuple[str, ...] = ("promotion", "suppression", *CLASS_MAPS)

#: Promotion and suppression: the first map minus the second.
DIFFERENCES: dict[str, tuple[ClassMap, ClassMap]] = {
    "promotion": ("adversarial_attack", "natural_attack"),
    "suppression": ("natural_true", "adversarial_true"),
}

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False, repr=False)
class RegionDecomposition(PairResult):
    r"""The four maps of N pairs, and their differences.

    Returned by ``decompose`` of :class:`captum_pse.AdversarialCAM`, with class
    activation maps ``(N, 1, ...)``, and of :class:`captum_pse.PairedAttribution`, with
    attributions ``(N, ...)``. The maps are not normalised, so they can be compared and
    subtracted. All four have the same shape. Class activation maps are at least 0,
    unless computed with ``relu=False``.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also available as
            ``inputs``, ``baselines`` and ``labels``.
        source (str): Source of the maps: the name of the layer, or its class if it has
            no name; or the name of the attribution method.
        natural_true (Tensor): ``F(x0, t0)``.
        adversarial_true (Tensor): ``F(x', t0)``.
        natural_attack (Tensor): ``F(x0, t)``.
        adversarial_attack (Tensor): ``F(x', t)``.
        input_channel_dim (int, optional): The dimension of the channels or features in
            the input; None for inputs ``(N, A, B)`` of which it is not known.

    Examples::

        >>> from captum_pse import AdversarialCAM
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = AdversarialCAM(load_model(), "features.conv5", interpolate=False)
        >>> result = method.decompose(*make_pairs(2))
        >>> result.promotion.shape, result.on_inputs("promotion").shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 64, 64]))
        >>> score = result.interpretability("natural_true")
        >>> rows = result.summary()
        >>> [row["suppression_is"] for row in rows] == score.score.tolist()
        True
    """

    source: str
    natural_true: Tensor
    adversarial_true: Tensor
    natural_attack: Tensor
    adversarial_attack: Tensor
    input_channel_dim: int | None = 1

    @property
    def promotion(self) -> Tensor:
        """``F(x', t) - F(x0, t)``, signed, of the maps' shape: positive where evidence
        for the attack label increased."""
        return self._difference("promotion")

    @property
    def suppression(self) -> Tensor:
        """``F(x0, t0) - F(x', t0)``, signed, of the maps' shape: positive where
        evidence for the true label decreased."""
        return self._difference("suppression")

    def _difference(self, component: str) -> Tensor:
        more, less = DIFFERENCES[component]
        difference: Tensor = getattr(self, more) - getattr(self, less)
        return difference

    def __repr__(self) -> str:
        shape = tuple(self.natural_true.shape)
        return f"RegionDecomposition({shape} of {self.source!r})"

    def attribution(self, component: RegionComponent = "promotion") -> Tensor:
        """One map, or the difference of two.

        Args:
            component (str, optional): ``"promotion"``, ``"suppression"``,
                ``"natural_true"``, ``"adversarial_true"``, ``"natural_attack"`` or
                ``"adversarial_attack"``. Default: ``"promotion"``

        Returns:
            *Tensor*: ``(N, 1, ...)`` for class activation maps, ``(N, ...)`` for other
            attributions.

        Raises:
            ValueError: ``component`` is not one of the above.
        """
        check_choice("component", component, REGION_COMPONENTS)
        value: Tensor = getattr(self, component)
        return value

    def on_inputs(self, component: RegionComponent = "promotion") -> Tensor:
        """One map at the size of the (first) input.

        Args:
            component (str, optional): As for :meth:`attribution`.
                Default: ``"promotion"``

        Returns:
            *Tensor*: The map summed over its channels and interpolated linearly
            (bilinearly for images) to the positions of the input: ``(N, 1, H, W)`` for
            images, ``(N, T, 1)`` for embeddings ``(N, T, F)``. A map ``(N, F)`` is
            returned unchanged.

        Raises:
            ValueError: There is no such component, map and input have different numbers
                of dimensions, or ``input_channel_dim`` is None.
        """
        maps, x = self.attribution(component), self.inputs[0]
        if maps.dim() != x.dim():
            raise ValueError(
                f"component: {component} of {self.source} has shape "
                f"{tuple(maps.shape)}, which cannot be resized to inputs of shape "
                f"{tuple(x.shape)}"
            )
        if maps.dim() < 3:
            return maps
        if self.input_channel_dim is None:
            raise asked_for(x)
        dim = self.input_channel_dim
        if maps.shape in (x.shape, positions_of(x, dim)):
            return maps.sum(dim=dim, keepdim=True)
        return interpolate(maps.sum(dim=1, keepdim=True), x, dim)

    def interpretability(
        self, which: ClassMap = "natural_true", percentile: float = PERCENTILE
    ) -> InterpretabilityScore:
        """The interpretability score of delta on one of the four maps.

        The score on ``natural_true`` measures suppression, that on
        ``adversarial_attack`` promotion. The map is that of :meth:`on_inputs`.

        Args:
            which (str, optional): The map. Default: ``"natural_true"``
            percentile (float, optional): See
                :func:`captum_pse.interpretability_score`. Default: 70

        Returns:
            *InterpretabilityScore*: The scores of N examples.

        Raises:
            TypeError, ValueError: ``which`` is not one of the four maps, ``percentile``
                is not a number in [0, 100], or map and input have different numbers of
                dimensions.
        """
        check_choice("which", which, CLASS_MAPS)
        delta = self.inputs[0] - self.baselines[0]
        return interpretability_score(self.on_inputs(which), delta, percentile)

    def summary(self, percentile: float = PERCENTILE) -> list[dict[str, Any]]:
        """One record for each example: labels, predictions, changes of the scores, and,
        if the maps can be resized to the inputs, the interpretability scores.

        Args:
            percentile (float, optional): See
                :func:`captum_pse.interpretability_score`. Default: 70

        Returns:
            *list[dict]*: ``example``; the columns of
            :meth:`~captum_pse.pairs.scored.ScoredPair.columns`; ``suppression_is``,
            ``suppression_is_expected``, ``suppression_is_lift`` and
            ``suppression_is_rank``, the score on ``natural_true``; and
            ``promotion_is``, ``promotion_is_expected``, ``promotion_is_lift`` and
            ``promotion_is_rank``, the score on ``adversarial_attack``.

        Raises:
            TypeError, ValueError: ``percentile`` is not a number in [0, 100].
        """
        columns = self.pair.columns()
        is_known = self.input_channel_dim is not None or self.natural_true.dim() < 3
        if self.natural_true.dim() != self.inputs[0].dim() or not is_known:
            return records(columns)
        for name, which in (
            ("suppression", "natural_true"),
            ("promotion", "adversarial_attack"),
        ):
            result = self.interpretability(which, percentile)  # type: ignore[arg-type]
            columns[f"{name}_is"] = result.score
            columns[f"{name}_is_expected"] = result.expected
            columns[f"{name}_is_lift"] = result.lift
            columns[f"{name}_is_rank"] = result.rank
        return records(columns)

    def plot(self, example: int = 0, **options: Any) -> Figure:
        """Draws one example.

        Args:
            example (int, optional): Index of the example. Default: 0
            **options: Passed to :func:`captum_pse.visualization.plot_regions`.

        Raises:
            IndexError: ``example`` is out of range.
            ValueError: The inputs are not images, or the maps cannot be resized to
                them.
        """
        from captum_pse.regions.figure import plot_regions

        return plot_regions(self, example, **options)

    _FORMAT = "captum_pse.RegionDecomposition/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.pair.tensors()
        tensors |= {name: getattr(self, name) for name in CLASS_MAPS}
        settings = {"source": self.source, **self.pair.settings()}
        return tensors, {**settings, "input_channel_dim": self.input_channel_dim}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> RegionDecomposition:
        return cls(
            ScoredPair.of_saved(tensors, settings),
            source=settings["source"],
            natural_true=tensors["natural_true"],
            adversarial_true=tensors["adversarial_true"],
            natural_attack=tensors["natural_attack"],
            adversarial_attack=tensors["adversarial_attack"],
            # Older files lack it: positions were the dimensions after 1.
            input_channel_dim=settings.get("input_channel_dim", 1),
        )


def positions_of(x: Tensor, channel_dim: int) -> torch.Size:
    """The shape of a map on inputs, with 1 at the dimension of their channels."""
    return torch.Size([*x.shape[:channel_dim], 1, *x.shape[channel_dim + 1 :]])


def interpolate(maps: Tensor, x: Tensor, channel_dim: int) -> Tensor:
    """Maps ``(N, 1, ...)`` interpolated linearly to the positions of inputs ``x``."""
    size = tuple(n for i, n in enumerate(x.shape) if i not in (0, channel_dim))
    if maps.shape[2:] != size:
        maps = LayerAttribution.interpolate(maps, size, _INTERPOLATION[len(size)])
    return maps.movedim(1, channel_dim)
