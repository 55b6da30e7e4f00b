"""What an adversarial perturbation promotes and suppresses, region by region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from captum.attr import LayerAttribution
from torch import Tensor

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

#: The maps that promotion and suppression subtract, the second from the first.
DIFFERENCES: dict[str, tuple[ClassMap, ClassMap]] = {
    "promotion": ("adversarial_attack", "natural_attack"),
    "suppression": ("natural_true", "adversarial_true"),
}

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False, repr=False)
class RegionDecomposition(PairResult):
    r"""The four maps of N pairs, and what follows from them.

    Made by ``decompose``: of :class:`captum_pse.AdversarialCAM`, with class activation
    maps ``(N, 1, ...)``; of :class:`captum_pse.PairedAttribution`, with attributions
    ``(N, ...)``. The maps are raw values, never normalised one by one, so that they can
    be compared and subtracted.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also as ``inputs``,
            ``baselines`` and ``labels``.
        source (str): Where the maps are from: the name of the layer, or its kind where
            it has none; or the name of the attribution method.
        natural_true (Tensor): ``F(x0, t0)``, ``(N, 1, ...)`` or ``(N, ...)``. Class
            activation maps are at least 0, unless made with ``relu=False``.
        adversarial_true (Tensor): ``F(x', t0)``, likewise.
        natural_attack (Tensor): ``F(x0, t)``.
        adversarial_attack (Tensor): ``F(x', t)``.

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

    @property
    def promotion(self) -> Tensor:
        """``F(x', t) - F(x0, t)``, signed, of the maps' shape: above 0 where evidence
        for the attack label appeared."""
        return self._difference("promotion")

    @property
    def suppression(self) -> Tensor:
        """``F(x0, t0) - F(x', t0)``, signed, of the maps' shape: above 0 where evidence
        for the true label went away."""
        return self._difference("suppression")

    def _difference(self, component: str) -> Tensor:
        more, less = DIFFERENCES[component]
        difference: Tensor = getattr(self, more) - getattr(self, less)
        return difference

    def __repr__(self) -> str:
        shape = tuple(self.natural_true.shape)
        return f"RegionDecomposition({shape} of {self.source!r})"

    def attribution(self, component: RegionComponent = "promotion") -> Tensor:
        """One map, of the shape in which it was made.

        Args:
            component (str, optional): ``"promotion"``, ``"suppression"``,
                ``"natural_true"``, ``"adversarial_true"``, ``"natural_attack"`` or
                ``"adversarial_attack"``. Default: ``"promotion"``

        Returns:
            *Tensor*: ``(N, 1, ...)`` of class activation maps, ``(N, ...)`` of other
            attributions.

        Raises:
            ValueError: There is no such component.
        """
        check_region_component(component)
        value: Tensor = getattr(self, component)
        return value

    def on_inputs(self, component: RegionComponent = "promotion") -> Tensor:
        """One map at the size of the (first) input.

        Args:
            component (str, optional): As for :meth:`attribution`.
                Default: ``"promotion"``

        Returns:
            *Tensor*: Summed over its channels and interpolated linearly (in two
            dimensions, bilinearly), ``(N, 1, H, W)`` for images; as it is for ``(N,
            F)``.

        Raises:
            ValueError: There is no such component, or the map has other dimensions than
                the input.
        """
        maps, x = self.attribution(component), self.inputs[0]
        if maps.dim() != x.dim():
            raise ValueError(
                f"component: {component} of {self.source} has shape "
                f"{tuple(maps.shape)}, which cannot be laid over inputs of shape "
                f"{tuple(x.shape)}"
            )
        if maps.dim() < 3:
            return maps
        return interpolate(maps.sum(dim=1, keepdim=True), x.shape[2:])

    def interpretability(
        self, which: ClassMap = "natural_true", percentile: float = PERCENTILE
    ) -> InterpretabilityScore:
        """The interpretability score of delta on one of the four maps.

        On ``natural_true`` it reads suppression, on ``adversarial_attack`` promotion.
        The map is taken as :meth:`on_inputs` gives it.

        Args:
            which (str, optional): The map. Default: ``"natural_true"``
            percentile (float, optional): See
                :func:`captum_pse.interpretability_score`. Default: 70

        Returns:
            *InterpretabilityScore*: Of N examples.

        Raises:
            ValueError: There is no such map, the percentile is out of range, or the map
                has other dimensions than the input.
        """
        if which not in CLASS_MAPS:
            raise ValueError(
                f"which: got {which!r}, want one of {', '.join(CLASS_MAPS)}"
            )
        delta = self.inputs[0] - self.baselines[0]
        return interpretability_score(self.on_inputs(which), delta, percentile)

    def summary(self, percentile: float = PERCENTILE) -> list[dict[str, Any]]:
        """One record for each example: labels, what the model says, how far the scores
        moved, and the interpretability scores that read suppression and promotion,
        where the maps can be laid over the inputs.

        Args:
            percentile (float, optional): See
                :func:`captum_pse.interpretability_score`. Default: 70

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`~captum_pse.pairs.labels.PairLabels.columns` and, of
            ``suppression`` on
            ``natural_true`` and ``promotion`` on ``adversarial_attack``, ``..._is``
            (the score), ``..._is_expected`` and ``..._is_lift``.

        Raises:
            ValueError: The percentile is out of range.
        """
        columns = self.labels.columns()
        if self.natural_true.dim() != self.inputs[0].dim():
            return records(columns)
        for name, which in (
            ("suppression", "natural_true"),
            ("promotion", "adversarial_attack"),
        ):
            result = self.interpretability(which, percentile)  # type: ignore[arg-type]
            columns[f"{name}_is"] = result.score
            columns[f"{name}_is_expected"] = result.expected
            columns[f"{name}_is_lift"] = result.lift
        return records(columns)

    def plot(self, example: int = 0, **options: Any) -> Figure:
        """The figure of one example; see
        :func:`captum_pse.visualization.plot_regions`.

        Args:
            example (int, optional): Which example. Default: 0
            **options: Passed to that function.

        Raises:
            IndexError: There is no such example.
            ValueError: The inputs are no images, or the maps do not fit them.
        """
        from captum_pse.regions.figure import plot_regions

        return plot_regions(self, example, **options)

    _FORMAT = "captum_pse.RegionDecomposition/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.pair.tensors()
        tensors |= {name: getattr(self, name) for name in CLASS_MAPS}
        return tensors, {"source": self.source, "is_tuple": self.pair.is_tuple}

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
        )


def check_region_component(component: str) -> None:
    if component not in REGION_COMPONENTS:
        raise ValueError(
            f"component: got {component!r}, want one of {', '.join(REGION_COMPONENTS)}"
        )


def interpolate(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps ``(N, 1, ...)`` at another spatial size, linearly between positions."""
    if maps.shape[2:] == size:
        return maps
    resized: Tensor = LayerAttribution.interpolate(
        maps, tuple(size), _INTERPOLATION[len(size)]
    )
    return resized
