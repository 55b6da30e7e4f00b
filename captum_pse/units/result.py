"""The units of a layer on both sides of a pair, and how they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from torch import Tensor

from captum_pse._model.checks import check_choice, check_int
from captum_pse.pairs.labels import records
from captum_pse.pairs.scored import PairResult, ScoredPair
from captum_pse.units.norms import Norm, relative_to, unit_norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UnitComponent: TypeAlias = Literal["change", "promotion", "suppression"]
UNIT_COMPONENTS: tuple[str, ...] = get_args(UnitComponent)


@dataclass(frozen=True, eq=False, repr=False)
class UnitDecomposition(PairResult):
    r"""The activations of a layer on both sides of N pairs, and their differences.

    Made by :meth:`captum_pse.DissectionSensitivity.decompose`.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also as ``inputs``,
            ``baselines`` and ``labels``.
        layer (str): The layer's name, or its type if it has no name.
        natural, adversarial (Tensor): ``A(x0)`` and ``A(x')``, in the shape of the
            layer's output, ``(N, K, ...)`` for ``channel_dim`` 1.
        channel_dim (int): The dimension of the K units.

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
        >>> row = result.table()[96 + 7]
        >>> row["example"], row["unit"]
        (1, 7)
        >>> row["sensitivity"] == float(result.sensitivity()[1, 7])
        True
    """

    layer: str
    natural: Tensor
    adversarial: Tensor
    channel_dim: int

    @property
    def change(self) -> Tensor:
        """``A(x') - A(x0)``, signed, in the shape of the layer's output."""
        return self.adversarial - self.natural

    @property
    def promotion(self) -> Tensor:
        """``max(A(x') - A(x0), 0)``, in the shape of the layer's output."""
        return self.change.clamp(min=0)

    @property
    def suppression(self) -> Tensor:
        """``max(A(x0) - A(x'), 0)``, in the shape of the layer's output."""
        return (-self.change).clamp(min=0)

    def __repr__(self) -> str:
        return f"UnitDecomposition({tuple(self.natural.shape)} of {self.layer!r})"

    def attribution(self, component: UnitComponent = "change") -> Tensor:
        """One component.

        Args:
            component (str, optional): ``"change"``, ``"promotion"`` or
                ``"suppression"``. Default: ``"change"``

        Returns:
            *Tensor*: The component, in the shape of the layer's output.

        Raises:
            ValueError: There is no such component.
        """
        check_choice("component", component, UNIT_COMPONENTS)
        value: Tensor = getattr(self, component)
        return value

    def sensitivity(self, norm: Norm = "l2", *, relative: bool = False) -> Tensor:
        """The norm of each unit's change in each pair.

        Args:
            norm (str, optional): Over the unit's positions: ``"l2"``, ``"l1"``,
                ``"linf"``, or ``"mean"``, the mean of the signed change.
                Default: ``"l2"``
            relative (bool, optional): Whether to divide by :meth:`scale`, because raw
                norms mostly follow it. A unit's scale counts as at least a tenth of the
                mean scale of the layer's units, so that units that are almost silent on
                natural examples do not lead. If all units are silent, changes are
                divided by their mean instead. Default: False

        Returns:
            *Tensor*: ``(N, K)``, in activation units, or without unit if relative; at
            least 0, except for ``"mean"``.

        Raises:
            ValueError: There is no such norm.
        """
        values = unit_norm(self.change, norm, self.channel_dim)
        return relative_to(values, self.scale(norm)) if relative else values

    def scale(self, norm: Norm = "l2") -> Tensor:
        """The mean norm of each unit's natural activation.

        Args:
            norm (str, optional): As for :meth:`sensitivity`. Default: ``"l2"``

        Returns:
            *Tensor*: ``(K,)``, at least 0: the mean over the natural examples of the
            norm of ``A_k(x0)``; for ``"mean"``, the mean of ``|A_k(x0)|``.

        Raises:
            ValueError: There is no such norm.
        """
        values = self.natural.abs() if norm == "mean" else self.natural
        return unit_norm(values, norm, self.channel_dim).mean(dim=0)

    def summary(self, top: int = 5) -> list[dict[str, Any]]:
        """One record for each example: labels, predictions, the changes of the scores,
        and the most sensitive units.

        Args:
            top (int, optional): Number of units to list. Default: 5

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`~captum_pse.pairs.scored.ScoredPair.columns`, ``mean_sensitivity``
            (the mean over units, L2) and ``most_sensitive_units``, the indices of the
            units with the largest relative :meth:`sensitivity`.

        Raises:
            TypeError, ValueError: ``top`` is not an int of 0 or more.
        """
        top = check_int("top", top, 0)
        relative = self.sensitivity(relative=True)
        order = relative.argsort(dim=1, descending=True, stable=True)[:, :top]
        return records(
            {
                **self.pair.columns(),
                "mean_sensitivity": self.sensitivity().mean(dim=1),
                "most_sensitive_units": order,
            }
        )

    def table(self) -> list[dict[str, Any]]:
        """One row for each unit of each example, ready for ``csv.DictWriter`` or
        ``pandas.DataFrame``.

        Returns:
            *list[dict]*: ``example``, ``layer``, ``unit``, ``sensitivity`` (the L2 norm
            of the change), ``scale`` (see :meth:`scale`), ``relative``
            (``sensitivity`` divided by ``scale``, which counts as at least a tenth of
            the layer's mean), ``promotion`` and ``suppression`` (the L2 norms of these
            components). See :meth:`sensitivity`.
        """
        sensitivity = self.sensitivity()
        columns = {
            "sensitivity": sensitivity,
            "scale": self.scale().expand_as(sensitivity),
            "relative": self.sensitivity(relative=True),
            "promotion": unit_norm(self.promotion, "l2", self.channel_dim),
            "suppression": unit_norm(self.suppression, "l2", self.channel_dim),
        }
        n_units = sensitivity.shape[1]
        rows = zip(*(x.flatten().tolist() for x in columns.values()), strict=True)
        return [
            {
                "example": i // n_units,
                "layer": self.layer,
                "unit": i % n_units,
                **dict(zip(columns, row, strict=True)),
            }
            for i, row in enumerate(rows)
        ]

    def plot(self, example: int = 0, **options: Any) -> Figure:
        """The units that changed most; see
        :func:`captum_pse.visualization.plot_unit_changes`.

        Args:
            example (int, optional): Index of the example. Default: 0
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
        return tensors, {**settings, **self.pair.settings()}

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
