"""The result of :class:`captum_pse.PromotionSuppression`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_pse._model.checks import check_choice
from captum_pse.groups.groups import Groups
from captum_pse.groups.types import (
    TYPES,
    dominance,
    group_types,
    is_inactive,
    log_ratio,
    type_counts,
)
from captum_pse.pairs.labels import records
from captum_pse.pairs.scored import PairResult, ScoredPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Component: TypeAlias = Literal["effect", "promotion", "suppression", "ratio", "type"]
COMPONENTS: tuple[str, ...] = get_args(Component)
PixelMethod: TypeAlias = Literal["exact", "gradient"]
PIXEL_METHODS: tuple[str, ...] = get_args(PixelMethod)

_SETTINGS = ("method", "engine", "engine_note", "eps", "threshold")


@dataclass(frozen=True, eq=False, repr=False)
class PixelDecomposition(PairResult):
    r"""Promotion and suppression of every group of features, for N pairs.

    Returned by :meth:`captum_pse.PromotionSuppression.decompose`. ``score`` states what
    the scores ``Z`` are. ``n`` is the number of groups; a group that an example lacks
    has the change 0 for that example.

    Attributes:
        pair (ScoredPair): The pair, its labels and scores; also available as
            ``inputs``, ``baselines`` and ``labels``.
        groups (Groups): Ids and positions of the groups.
        promotion_change (Tensor): ``(N, n)``, signed: ``Z(x')_t - Z(x'_i)_t``.
        suppression_change (Tensor): ``(N, n)``, signed: ``Z(x'_i)_t0 - Z(x')_t0``.
        method (str): ``"exact"`` changes, or estimates by ``"gradient"``.
        engine (str): ``"dense"`` or ``"incremental"``: the passes that evaluated the
            model.
        engine_note (str): The reason for that engine, or the work that it saved.
        eps, threshold (float): See :class:`captum_pse.PromotionSuppression`.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> result = PromotionSuppression(load_model()).decompose(*make_pairs(2))
        >>> result.effect.shape, result.attribution("effect").shape
        (torch.Size([2, 169]), torch.Size([2, 3, 64, 64]))
        >>> record, row = result.summary()[0], result.table()[0]
        >>> row["group"], row["features"], row["type"]
        (0, 75, 'promotion')
        >>> kinds = ["promotion_dominated", "balanced", "suppression_dominated"]
        >>> sum(record[kind] for kind in [*kinds, "inactive"]) == record["groups"]
        True

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(f"{folder}/pairs.safetensors")
        ...     loaded = PixelDecomposition.load(f"{folder}/pairs.safetensors")
        >>> torch.equal(loaded.effect, result.effect)
        True
    """

    groups: Groups
    promotion_change: Tensor
    suppression_change: Tensor
    method: PixelMethod
    engine: str
    engine_note: str
    eps: float
    threshold: float

    @property
    def promotion(self) -> Tensor:
        """``(N, n)``, at least 0: ``max(Z(x')_t - Z(x'_i)_t, 0)``, the decrease of the
        attack label's score when a group is ablated."""
        return self.promotion_change.clamp(min=0)

    @property
    def suppression(self) -> Tensor:
        """``(N, n)``, at least 0: ``max(Z(x'_i)_t0 - Z(x')_t0, 0)``, the increase of
        the true label's score when a group is ablated."""
        return self.suppression_change.clamp(min=0)

    @property
    def effect(self) -> Tensor:
        """``(N, n)``, at least 0: promotion plus suppression, in score units."""
        return self.promotion + self.suppression

    @property
    def ratio(self) -> Tensor:
        """``(N, n)`` in octaves: ``log2(max(promotion, eps) / max(suppression, eps))``,
        0 if both are at most ``eps``."""
        return log_ratio(self.promotion, self.suppression, self.eps)

    @property
    def type(self) -> Tensor:
        """``(N, n)``: -1 suppression-dominated (``ratio < -threshold``), 1
        promotion-dominated (``ratio > threshold``), 0 balanced."""
        return dominance(self.ratio, self.threshold)

    @property
    def inactive(self) -> Tensor:
        """bool ``(N, n)``: neither promotion nor suppression exceeds ``eps``. Such a
        group is balanced by its ratio, but counted separately."""
        return is_inactive(self.promotion, self.suppression, self.eps)

    @property
    def type_codes(self) -> Tensor:
        """``(N, n)``: as :attr:`type`, but 2 for inactive groups."""
        return group_types(self.promotion, self.suppression, self.eps, self.threshold)

    @property
    def convergence_delta(self) -> Tensor:
        """``(N, 2)``, in score units: the sum of all promotion changes minus the
        increase of the attack label's score, and the sum of all suppression changes
        minus the decrease of the true label's. If every feature is in a group, both are
        0 up to rounding for linear models, and the error of the integral for
        ``"gradient"``."""
        gains = self.labels.adversarial_scores - self.labels.natural_scores
        wanted = torch.stack([gains[:, 0], -gains[:, 1]], dim=1)
        sums = torch.stack(
            [self.promotion_change.sum(1), self.suppression_change.sum(1)], dim=1
        )
        return sums - wanted.to(sums.device)

    @cached_property
    def sizes(self) -> Tensor:
        """int64 ``(N, n)``: number of features of each group in each example, 0 if the
        example lacks the group."""
        return self.groups.sizes(self.inputs)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(x.shape)) for x in self.inputs)
        kind = "" if self.method == "exact" else ", estimated"
        groups = f"{len(self.groups)} groups{kind}"
        return f"PixelDecomposition({len(self)} pair(s) {shapes}, {groups})"

    def attribution(
        self, component: Component = "effect"
    ) -> Tensor | tuple[Tensor, ...]:
        """One component with the shape and dtype of the inputs.

        Args:
            component (str, optional): ``"effect"``, ``"promotion"``, ``"suppression"``,
                ``"ratio"`` or ``"type"``. Default: ``"effect"``

        Returns:
            *Tensor* or *tuple[Tensor, ...]*: A tuple if the inputs were one. Every
            feature has the value of its group, or 0 if it is in no group.

        Raises:
            ValueError: ``component`` is not one of the above.
        """
        check_choice("component", component, COMPONENTS)
        spread = self.groups.spread(getattr(self, component), self.inputs)
        values = tuple(v.to(x) for v, x in zip(spread, self.inputs, strict=True))
        return values if self.pair.is_tuple else values[0]

    def table(self) -> list[dict[str, Any]]:
        """One row for each group of each example, as for ``csv.DictWriter`` or
        ``pandas.DataFrame``. Groups that an example lacks are left out.

        Returns:
            *list[dict]*: ``example``, ``group`` (the id in the mask), ``features``
            (their number), ``promotion``, ``suppression``, ``effect``, ``ratio``,
            ``type`` (``"promotion"``, ``"balanced"`` or ``"suppression"``),
            ``inactive``, and the signed ``promotion_change`` and
            ``suppression_change``.
        """
        columns = {
            "features": self.sizes,
            "promotion": self.promotion,
            "suppression": self.suppression,
            "effect": self.effect,
            "ratio": self.ratio,
            "type": self.type.long(),
            "inactive": self.inactive,
            "promotion_change": self.promotion_change,
            "suppression_change": self.suppression_change,
        }
        values = {name: column.tolist() for name, column in columns.items()}
        ids = self.groups.ids.tolist()
        names = {kind.code: kind.name for kind in TYPES}
        return [
            {"example": i, "group": ids[g], **row, "type": names[row["type"]]}
            for i in range(len(self))
            for g, row in enumerate(
                dict(zip(values, cells, strict=True))
                for cells in zip(*(v[i] for v in values.values()), strict=True)
            )
            if row["features"] > 0
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each example: labels, predictions, changes of the scores, sums
        over groups, and the number of groups of each type.

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`~captum_pse.pairs.scored.ScoredPair.columns`, ``promotion`` and
            ``suppression`` (sums over groups), ``groups`` (their number), and the
            numbers of groups that are ``suppression_dominated``, ``balanced``,
            ``promotion_dominated`` or ``inactive``. Each group is counted once.
        """
        present = self.sizes > 0
        return records(
            {
                **self.pair.columns(),
                "promotion": self.promotion.sum(1),
                "suppression": self.suppression.sum(1),
                "groups": present.sum(1),
                **type_counts(self.type_codes, present),
            }
        )

    def plot(self, example: int = 0, **options: Any) -> Figure:
        """Draws one example by :func:`captum_pse.visualization.plot_pair` if the only
        input is images, else by :func:`captum_pse.visualization.plot_groups`.

        Args:
            example (int, optional): Index of the example. Default: 0
            **options: Passed to that function.

        Raises:
            IndexError: ``example`` is out of range.
        """
        from captum_pse.pixels.figure import plot_groups, plot_pair

        is_image = len(self.inputs) == 1 and self.inputs[0].dim() == 4
        draw = plot_pair if is_image else plot_groups
        return draw(self, example, **options)

    _FORMAT = "captum_pse.PixelDecomposition/2"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.pair.tensors() | self.groups.tensors()
        tensors["promotion_change"] = self.promotion_change
        tensors["suppression_change"] = self.suppression_change
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return tensors, {**settings, **self.pair.settings()}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> PixelDecomposition:
        return cls(
            ScoredPair.of_saved(tensors, settings),
            Groups.of_tensors(tensors),
            promotion_change=tensors["promotion_change"],
            suppression_change=tensors["suppression_change"],
            **{name: settings[name] for name in _SETTINGS},
        )
