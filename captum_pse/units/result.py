"""What an adversarial perturbation does to the units of a layer, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from torch import Tensor

from captum_pse.pairs.labels import records
from captum_pse.pairs.scored import PairResult, ScoredPair
from captum_pse.units.norms import Norm, relative_to, unit_norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UnitComponent: TypeAlias = Literal["change", "promotion", "suppression"]
UNIT_COMPONENTS: tuple[str, ...] = get_args(UnitComponent)


@dataclass(frozen=True, eq=False, repr=False)
class UnitDecomposition(PairResult):
    r"""The activations of a layer on both sides of N pairs, and how they differ.

    Made by :meth:`captum_pse.DissectionSensitivity.decompose`.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also as ``inputs``,
            ``baselines`` and ``labels``.
        layer (str): The layer's name, or its kind where it has none.
        natural, adversarial (Tensor): ``A(x0)`` and ``A(x')``, of the layer's shape,
            ``(N, K, ...)`` for ``channel_dim`` 1.
        channel_dim (int): Which dimension counts the K units.

    Examples::

        >>> import torch
        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = DissectionSensitivity(load_model(), "features.conv4")
        >>> result = method.decompose(*make_pairs(2))
        >>> result.change.shape, result.sensitivity().shape, result.scale().shape
        (torch.Size([2, 96, 8, 8]), torch.Size([2, 96]), torch.Size([96]))
        >>> torch.equal(result.change, result.promotion - result.suppression)
        True
        >>> len(result.summary(top=3)[0]["most_sensitive_units"])
        3
    """

    layer: str
    natural: Tensor
    adversarial: Tensor
    channel_dim: int

    @property
    def change(self) -> Tensor:
        """``A(x') - A(x0)``, signed, of the layer's shape."""
        return self.adversarial - self.natural

    @property
    def promotion(self) -> Tensor:
        """``max(A(x') - A(x0), 0)``, of the layer's shape."""
        return self.change.clamp(min=0)

    @property
    def suppression(self) -> Tensor:
        """``max(A(x0) - A(x'), 0)``, of the layer's shape."""
        return (-self.change).clamp(min=0)

    def __repr__(self) -> str:
        return f"UnitDecomposition({tuple(self.natural.shape)} of {self.layer!r})"

    def attribution(self, component: UnitComponent = "change") -> Tensor:
        """One component.

        Args:
            component (str, optional): ``"change"``, ``"promotion"`` or
                ``"suppression"``. Default: ``"change"``

        Returns:
            *Tensor*: Of the layer's shape.

        Raises:
            ValueError: There is no such component.
        """
        check_unit_component(component)
        value: Tensor = getattr(self, component)
        return value

    def sensitivity(self, norm: Norm = "l2", *, relative: bool = False) -> Tensor:
        """How much each unit moves in each pair.

        Args:
            norm (str, optional): Over the unit's positions: ``"l2"``, ``"l1"``,
                ``"linf"``, or ``"mean"`` of the signed change. Default: ``"l2"``
            relative (bool, optional): Whether to divide by :meth:`scale`: raw norms
                mostly follow it. A unit that is silent on all natural examples gives 0
                where it does not move, else infinity. Default: False

        Returns:
            *Tensor*: ``(N, K)``, in activation units or, if relative, without a unit;
            at least 0, but for ``"mean"``.

        Raises:
            ValueError: There is no such norm.
        """
        moved = unit_norm(self.change, norm, self.channel_dim)
        return relative_to(moved, self.scale(norm)) if relative else moved

    def scale(self, norm: Norm = "l2") -> Tensor:
        """How large the activation of each unit is.

        Args:
            norm (str, optional): As for :meth:`sensitivity`. Default: ``"l2"``

        Returns:
            *Tensor*: ``(K,)``, at least 0: the mean over the natural examples of the
            norm of ``A_k(x0)``, for ``"mean"`` of the mean of ``|A_k(x0)|``.

        Raises:
            ValueError: There is no such norm.
        """
        values = self.natural.abs() if norm == "mean" else self.natural
        return unit_norm(values, norm, self.channel_dim).mean(dim=0)

    def summary(self, top: int = 5) -> list[dict[str, Any]]:
        """One record for each example: labels, what the model says, how far the scores
        moved, and which units moved most.

        Args:
            top (int, optional): How many units to name. Default: 5

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`~captum_pse.pairs.labels.PairLabels.columns`,
            ``mean_sensitivity`` (L2,
            over units) and ``most_sensitive_units``, the numbers of those that moved
            most, relative to their scale.
        """
        moved = self.sensitivity()
        most = self.sensitivity(relative=True)
        order = most.argsort(dim=1, descending=True, stable=True)[:, :top]
        return records(
            {
                **self.labels.columns(),
                "mean_sensitivity": moved.mean(dim=1),
                "most_sensitive_units": order,
            }
        )

    def plot(self, example: int = 0, **options: Any) -> Figure:
        """The units that moved most; see
        :func:`captum_pse.visualization.plot_unit_changes`.

        Args:
            example (int, optional): Which example. Default: 0
            **options: Passed to that function.

        Raises:
            IndexError: There is no such example.
        """
        from captum_pse.units.figure import plot_unit_changes

        return plot_unit_changes(self, example, **options)

    _FORMAT = "captum_pse.UnitDecomposition/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.pair.tensors()
        tensors |= {"natural": self.natural, "adversarial": self.adversarial}
        settings = {"layer": self.layer, "channel_dim": self.channel_dim}
        return tensors, {**settings, "is_tuple": self.pair.is_tuple}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> UnitDecomposition:
        return cls(
            ScoredPair.of_saved(tensors, settings),
            layer=settings["layer"],
            natural=tensors["natural"],
            adversarial=tensors["adversarial"],
            channel_dim=settings["channel_dim"],
        )


def check_unit_component(component: str) -> None:
    if component not in UNIT_COMPONENTS:
        raise ValueError(
            f"component: got {component!r}, want one of {', '.join(UNIT_COMPONENTS)}"
        )
