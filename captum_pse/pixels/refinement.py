"""The result of :func:`captum_pse.refine`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from captum_pse._model.checks import check_fraction
from captum_pse.groups.groups import Groups
from captum_pse.pairs.labels import records
from captum_pse.pairs.scored import PairResult, ScoredPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTIONS = tuple(k / 10 for k in range(11))

#: See :meth:`Refinement.table`.
Curve: TypeAlias = list[dict[str, float]]

NORMS = {"L0": 0, "L1": 1, "L2": 2, "Linf": torch.inf}


@dataclass(frozen=True, eq=False, repr=False)
class Refinement(PairResult):
    """N attacks whose perturbation is kept on a fraction of the groups only.

    Returned by :func:`captum_pse.refine`. F is the number of fractions.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also available as
            ``inputs``, ``baselines`` and ``labels``.
        groups (Groups): The groups.
        ranks (Tensor): int64 ``(N, n_groups)``: the rank of each group. Groups are kept
            from rank 0 on; groups that an example lacks come last.
        fractions (tuple[float, ...]): Fractions of an example's groups that are kept.
        reaches (Tensor): bool ``(F, N)``: the prediction is still ``t``.
        leaves (Tensor): bool ``(F, N)``: the prediction is still not ``t0``.
        norms (dict[str, Tensor]): ``(F, N)`` each: ``L0`` (changed features), ``L1``,
            ``L2`` and ``Linf`` of the remaining perturbation.
        smallest_fraction (Tensor): float64 ``(N,)`` in [0, 1]: a fraction at which the
            attack still reaches ``t``, but not with one group fewer, found by
            bisection. 0 if the model predicts ``t`` on ``x0`` as well; NaN if the
            complete attack does not reach ``t``.

    Examples::

        >>> from captum_pse import PromotionSuppression, refine
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(2)
        >>> effect = PromotionSuppression(model).attribute(*pair)
        >>> refinement = refine(model, *pair, scores=effect, fractions=[0, 0.5, 1])
        >>> [row["reaches"] for row in refinement.table()]
        [0.0, 1.0, 1.0]
        >>> bool((refinement.smallest_fraction < 0.5).all())
        True
        >>> (half,) = refinement.at(0.5)
        >>> bool((model(half).argmax(dim=1) == pair.attack_label).all())
        True
    """

    groups: Groups
    ranks: Tensor
    fractions: tuple[float, ...]
    reaches: Tensor
    leaves: Tensor
    norms: dict[str, Tensor]
    smallest_fraction: Tensor

    def __repr__(self) -> str:
        return f"Refinement({len(self)} pair(s), {len(self.fractions)} fractions)"

    def keeps(self, fraction: float) -> Tensor:
        """Which groups are kept at any fraction in [0, 1], bool ``(N, n_groups)``.

        Raises:
            ValueError: ``fraction`` is out of range.
        """
        fraction = check_fraction("fraction", fraction)
        return self.ranks < group_counts(self.groups.sizes(self.inputs), fraction)

    def at(self, fraction: float) -> tuple[Tensor, ...]:
        """The refined inputs at any fraction.

        Args:
            fraction (float): Fraction of an example's groups that keep ``x'``, in
                [0, 1]. All other features are ``x0``.

        Returns:
            *tuple[Tensor, ...]*: Tensors of the inputs' shapes, as a tuple even for a
            single input.

        Raises:
            ValueError: ``fraction`` is out of range.
        """
        return kept_inputs(
            self.inputs, self.baselines, self.groups, self.keeps(fraction)
        )

    def table(self) -> Curve:
        """One record for each fraction, over all examples.

        Returns:
            *list[dict]*: ``fraction``; ``reaches`` and ``leaves``, the fractions of
            attacks whose prediction is still ``t`` and still not ``t0``, in [0, 1]; and
            the mean norms ``L0``, ``L1``, ``L2`` and ``Linf`` of the remaining
            perturbation, in input units (``L0``: in features).
        """
        return [
            {
                "fraction": fraction,
                "reaches": float(self.reaches[i].float().mean()),
                "leaves": float(self.leaves[i].float().mean()),
                **{name: float(norm[i].mean()) for name, norm in self.norms.items()},
            }
            for i, fraction in enumerate(self.fractions)
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each example: labels, predictions, changes of the scores, and
        the smallest fraction of groups that suffices.

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`~captum_pse.pairs.scored.ScoredPair.columns`, and
            ``smallest_fraction``.
        """
        return records(
            {**self.pair.columns(), "smallest_fraction": self.smallest_fraction}
        )

    def plot(self, **options: Any) -> Figure:
        """Draws the curve of :meth:`table`.

        Args:
            **options: Passed to :func:`captum_pse.visualization.plot_refinements`,
                which can draw several curves in one figure.
        """
        from captum_pse.pixels.figure import plot_refinements

        return plot_refinements({"": self}, **options)

    _FORMAT = "captum_pse.Refinement/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.pair.tensors() | self.groups.tensors()
        for name in ("ranks", "reaches", "leaves"):
            tensors[name] = getattr(self, name)
        tensors["smallest"] = self.smallest_fraction
        tensors |= {f"norms.{name}": norm for name, norm in self.norms.items()}
        return tensors, {"fractions": self.fractions, **self.pair.settings()}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Refinement:
        return cls(
            ScoredPair.of_saved(tensors, settings),
            Groups.of_tensors(tensors),
            ranks=tensors["ranks"],
            fractions=tuple(settings["fractions"]),
            reaches=tensors["reaches"],
            leaves=tensors["leaves"],
            norms={name: tensors[f"norms.{name}"] for name in NORMS},
            smallest_fraction=tensors["smallest"],
        )


def join(refinements: Sequence[Refinement]) -> Refinement:
    """Joins the pairs of several refinements with the same groups and fractions.

    Raises:
        ValueError: There is no refinement, groups or fractions differ, or examples have
            their own groups.
    """
    if not refinements:
        raise ValueError("refinements: got none, want at least one")
    first = refinements[0]
    if any(len(index) > 1 for index in first.groups.index):
        raise ValueError(
            "refinements: got other groups for each example, want shared groups"
        )
    for other in refinements[1:]:
        same = torch.equal(other.groups.ids, first.groups.ids) and all(
            torch.equal(a, b)
            for a, b in zip(other.groups.index, first.groups.index, strict=True)
        )
        if not same or other.fractions != first.fractions:
            raise ValueError("refinements: want the same groups and fractions in all")

    def joined(values: Iterable[Tensor], dim: int = 0) -> Tensor:
        return torch.cat(list(values), dim=dim)

    return Refinement(
        ScoredPair.join([r.pair for r in refinements]),
        first.groups,
        ranks=joined(r.ranks for r in refinements),
        fractions=first.fractions,
        reaches=joined((r.reaches for r in refinements), dim=1),
        leaves=joined((r.leaves for r in refinements), dim=1),
        norms={
            name: joined((r.norms[name] for r in refinements), dim=1)
            for name in first.norms
        },
        smallest_fraction=joined(r.smallest_fraction for r in refinements),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of curves at the same fractions, each of as many pairs."""
    return [
        {key: sum(point[key] for point in points) / len(points) for key in points[0]}
        for points in zip(*curves, strict=True)
    ]


def group_counts(sizes: Tensor, fraction: float) -> Tensor:
    """The number of groups of each example that are kept, ``(N, 1)``."""
    n_groups = (sizes > 0).sum(dim=1, keepdim=True).double()
    # The slack undoes rounding: 0.3 of 10 groups must be 3 groups.
    return (n_groups * fraction - 1e-9).ceil().long()


def kept_inputs(
    xs: tuple[Tensor, ...], x0s: tuple[Tensor, ...], groups: Groups, keep: Tensor
) -> tuple[Tensor, ...]:
    """``xs`` on the groups to keep, bool ``(N, n_groups)``, and ``x0s`` elsewhere."""
    masks = groups.spread(keep, xs)
    return tuple(
        torch.where(mask, x, x0) for mask, x, x0 in zip(masks, xs, x0s, strict=True)
    )
