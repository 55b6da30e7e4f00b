"""How little of a perturbation is enough: keeping it on some groups only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._forward import ForwardFunc, run_forward
from captum_pse._pair_pass import score_pair
from captum_pse._results import (
    SavedResult,
    groups_of_tensors,
    groups_tensors,
    pair_of_tensors,
    pair_tensors,
)
from captum_pse.groups import Groups, fits
from captum_pse.labels import Label, predicted_class
from captum_pse.pair_labels import PairLabels, records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTIONS = tuple(k / 10 for k in range(11))

#: See :meth:`Refinement.curve`.
Curve: TypeAlias = list[dict[str, float]]

_NORMS = {"L0": 0, "L1": 1, "L2": 2, "Linf": torch.inf}


@dataclass(frozen=True, eq=False, repr=False)
class Refinement(SavedResult):
    """N attacks whose perturbation was kept on part of the groups only.

    Made by :func:`refine`. F is the number of fractions.

    Attributes:
        inputs, baselines (tuple[Tensor, ...]): The pair, ``x'`` and ``x0``.
        groups (Groups): The groups.
        labels (PairLabels): ``t`` and ``t0``, and what the model says of the whole.
        ranks (Tensor): int64 ``(N, n_groups)``: a group's place in the order in which
            groups are kept, 0 first; those that an example lacks come last.
        fractions (tuple[float, ...]): Which part of an example's groups is kept.
        reaches (Tensor): bool ``(F, N)``: the model still says ``t``.
        leaves (Tensor): bool ``(F, N)``: the model still does not say ``t0``.
        norms (dict[str, Tensor]): ``(F, N)`` each: ``L0`` (changed features), ``L1``,
            ``L2`` and ``Linf`` of what is left of the perturbation.
        smallest (Tensor): float64 ``(N,)`` in [0, 1]: a fraction at which the attack
            still reaches ``t``, and with one group less does not, found by bisection; 0
            where the model says ``t`` on ``x0``, too; NaN where not even the whole
            attack reaches it.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(2)
        >>> effect = PromotionSuppression(model).attribute(*pair)
        >>> refinement = refine(model, *pair, scores=effect, fractions=[0, 0.5, 1])
        >>> [row["reaches"] for row in refinement.curve()]
        [0.0, 1.0, 1.0]
        >>> bool((refinement.smallest < 0.5).all())
        True
        >>> (half,) = refinement.at(0.5)
        >>> bool((model(half).argmax(dim=1) == pair.attack_label).all())
        True
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    groups: Groups
    labels: PairLabels
    ranks: Tensor
    fractions: tuple[float, ...]
    reaches: Tensor
    leaves: Tensor
    norms: dict[str, Tensor]
    smallest: Tensor

    def __len__(self) -> int:
        return len(self.ranks)

    def __repr__(self) -> str:
        return f"Refinement({len(self)} pair(s), {len(self.fractions)} fractions)"

    def keeps(self, fraction: float) -> Tensor:
        """Which groups are kept at any fraction in [0, 1], bool ``(N, n_groups)``.

        Raises:
            ValueError: ``fraction`` is out of range.
        """
        counts = _counts(self.groups.sizes(self.inputs), _checked_fraction(fraction))
        return self.ranks < counts

    def at(self, fraction: float) -> tuple[Tensor, ...]:
        """The refined inputs at any fraction.

        Args:
            fraction (float): Which part of an example's groups keeps ``x'``, in [0, 1].

        Returns:
            *tuple[Tensor, ...]*: Of the inputs' shapes; ``x0`` everywhere else. A tuple
            of one for one input, too.

        Raises:
            ValueError: ``fraction`` is out of range.
        """
        return _kept(self.inputs, self.baselines, self.groups, self.keeps(fraction))

    def curve(self) -> Curve:
        """One record for each fraction, over all examples.

        Returns:
            *list[dict]*: ``fraction``; ``reaches`` and ``leaves``, the shares in [0, 1]
            of attacks that still reach ``t`` and still leave ``t0``; and the mean norms
            ``L0``, ``L1``, ``L2`` and ``Linf`` of what is left of the perturbation, in
            input units (``L0``: in features).
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
        """One record for each example: labels, what the model says, how far the scores
        moved, and the smallest fraction of groups that is enough.

        Returns:
            *list[dict]*: ``example``, the columns of
            :meth:`captum_pse.pair_labels.PairLabels.columns`, and ``smallest``.
        """
        return records({**self.labels.columns(), "smallest": self.smallest})

    def plot(self, **options: Any) -> Figure:
        """The curve as a figure; see
        :func:`captum_pse.visualization.plot_refinements` for several in one.

        Args:
            **options: Passed to that function.
        """
        from captum_pse.visualization import plot_refinements

        return plot_refinements({"": self}, **options)

    _FORMAT = "captum_pse.Refinement/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = pair_tensors(self.inputs, self.baselines, self.labels)
        tensors |= groups_tensors(self.groups)
        for name in ("ranks", "reaches", "leaves", "smallest"):
            tensors[name] = getattr(self, name)
        tensors |= {f"norms.{name}": norm for name, norm in self.norms.items()}
        return tensors, {"fractions": self.fractions}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Refinement:
        return cls(
            **pair_of_tensors(tensors),
            groups=groups_of_tensors(tensors),
            ranks=tensors["ranks"],
            fractions=tuple(settings["fractions"]),
            reaches=tensors["reaches"],
            leaves=tensors["leaves"],
            norms={name: tensors[f"norms.{name}"] for name in _NORMS},
            smallest=tensors["smallest"],
        )


@torch.no_grad()
def refine(
    forward_func: ForwardFunc,
    inputs: Tensor | tuple[Tensor, ...],
    baselines: Tensor | tuple[Tensor, ...],
    target: Label | None = None,
    true_target: Label | None = None,
    *,
    scores: Tensor | tuple[Tensor, ...],
    fractions: Sequence[float] = FRACTIONS,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    additional_forward_args: Any = None,
    show_progress: bool = False,
) -> Refinement:
    r"""Keeps a perturbation on the groups with the largest scores, and on no others.

    A group's score is the mean of ``scores`` over its features; ties are broken by the
    group's id. At fraction f, ``ceil(f n)`` of an example's n groups keep ``x'``, and
    everything else, features in no group too, is ``x0``.

    Source: Xu et al., arXiv:1904.02057.

    Args:
        forward_func (Callable): As for :class:`captum_pse.PromotionSuppression`.
        inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, ``(N, ...)``.
        baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, likewise.
        target (int, tuple, list or Tensor, optional): The attack label ``t``; None
            means what the model predicts on ``inputs``. Default: None
        true_target (int, tuple, list or Tensor, optional): The true label ``t0``; None
            means what the model predicts on ``baselines``. Default: None
        scores (Tensor or tuple[Tensor, ...]): What to rank by, broadcastable to the
            inputs: an attribution such as the effect, a class activation map or its
            mask, ``(inputs - baselines).abs()``, random numbers.
        fractions (sequence of float, optional): In [0, 1]. Default: 0, 0.1, ..., 1
        feature_mask (Tensor or tuple[Tensor, ...], optional): The groups, as for
            :class:`captum_pse.PromotionSuppression`. Default: None
        additional_forward_args (Any, optional): Passed to ``forward_func`` after the
            inputs. Default: None
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *Refinement*: With ``.curve()``, ``.smallest``, ``.at()``, ``.summary()``,
        ``.plot()`` and ``.save()``.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.

    Warns:
        PredictionWarning: The model does not say ``t`` on ``inputs``, or ``t0`` on
            ``baselines``.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(3)
        >>> effect = PromotionSuppression(model).attribute(*pair)
        >>> refinement = refine(model, *pair, scores=effect, fractions=[0, 1])
        >>> refinement.reaches.tolist()
        [[False, False, False], [True, True, True]]
    """
    wanted = tuple(_checked_fraction(f) for f in fractions)
    if not wanted:
        raise ValueError("fractions: got none, want at least one")
    xs, naturals, groups, labels, args = score_pair(
        forward_func,
        inputs,
        baselines,
        target,
        true_target,
        additional_forward_args,
        feature_mask,
    )
    sizes = groups.sizes(xs)
    ranks = _ranks(groups.means(_like_inputs(scores, xs), xs), sizes)
    n_groups = (sizes > 0).sum(dim=1, keepdim=True)

    # Nothing and the whole are looked at in any case: bisection starts from them.
    looked_at = dict.fromkeys((*wanted, 0.0, 1.0))
    halvings = (int(n_groups.max()) - 1).bit_length()
    passes = tqdm(
        total=len(looked_at) + halvings,
        desc="refining",
        unit="pass",
        disable=not show_progress,
    )

    def predictions(counts: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        kept = _kept(xs, naturals, groups, ranks < counts)
        # A copy: the model may overwrite what it is given.
        said = run_forward(forward_func, tuple(x.clone() for x in kept), args)
        passes.update()
        return kept, predicted_class(said, labels.target)

    reaches, leaves, norms = {}, {}, {}
    for fraction in looked_at:
        kept, said = predictions(_counts(sizes, fraction))
        reaches[fraction] = said == labels.target[:, 0]
        leaves[fraction] = said != labels.true_target[:, 0]
        norms[fraction] = _norms(kept, naturals)

    # Between a count that fails and one that succeeds, halve.
    nothing, whole = (reaches[end].to(n_groups.device) for end in (0.0, 1.0))
    low = torch.zeros_like(n_groups)
    high = torch.where(nothing.unsqueeze(1), 0, n_groups)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        succeeds = (predictions(middle)[1] == labels.target[:, 0]).unsqueeze(1)
        succeeds = succeeds.to(high.device)
        high = torch.where(succeeds, middle, high)
        low = torch.where(succeeds, low, middle)
    # Halving may end one pass early.
    passes.update(passes.total - passes.n)
    passes.close()
    # In double precision, so that at() finds the same number of groups in it.
    smallest = (high.double() / n_groups).squeeze(1)
    return Refinement(
        inputs=xs,
        baselines=naturals,
        groups=groups,
        labels=labels,
        ranks=ranks,
        fractions=wanted,
        reaches=torch.stack([reaches[fraction] for fraction in wanted]),
        leaves=torch.stack([leaves[fraction] for fraction in wanted]),
        norms={
            name: torch.stack([norms[fraction][name] for fraction in wanted])
            for name in _NORMS
        },
        smallest=torch.where(whole, smallest, torch.nan),
    )


def join(refinements: Sequence[Refinement]) -> Refinement:
    """One refinement of the pairs of several, with the same groups and fractions.

    Raises:
        ValueError: None, or not of the same ones: all examples must share the groups.
    """
    if not refinements:
        raise ValueError("refinements: got none, want at least one")
    first = refinements[0]
    if any(len(index) > 1 for index in first.groups.index):
        raise ValueError(
            "refinements: got groups of each example's own, want shared ones"
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
        inputs=tuple(map(joined, zip(*(r.inputs for r in refinements), strict=True))),
        baselines=tuple(
            map(joined, zip(*(r.baselines for r in refinements), strict=True))
        ),
        groups=first.groups,
        labels=PairLabels(
            **{
                name: joined(getattr(r.labels, name) for r in refinements)
                for name in vars(first.labels)
            }
        ),
        ranks=joined(r.ranks for r in refinements),
        fractions=first.fractions,
        reaches=joined((r.reaches for r in refinements), dim=1),
        leaves=joined((r.leaves for r in refinements), dim=1),
        norms={
            name: joined((r.norms[name] for r in refinements), dim=1)
            for name in first.norms
        },
        smallest=joined(r.smallest for r in refinements),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The curve of all pairs, from those of one pair each, at the same fractions."""
    return [
        {key: sum(point[key] for point in points) / len(points) for key in points[0]}
        for points in zip(*curves, strict=True)
    ]


def _checked_fraction(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fractions: got {fraction}, want 0 to 1")
    return float(fraction)


def _like_inputs(scores: Any, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    parts = scores if isinstance(scores, tuple) else (scores,)
    if len(parts) != len(xs) or not all(isinstance(p, Tensor) for p in parts):
        raise TypeError(f"scores: want {len(xs)} tensor(s), one for each input")
    for part, x in zip(parts, xs, strict=True):
        if not fits(part, x):
            raise ValueError(
                f"scores: got shape {tuple(part.shape)}, want one that broadcasts to "
                f"{tuple(x.shape)}"
            )
        if not part.isfinite().all():
            raise ValueError("scores: got NaN or infinite values, want finite ones")
    return tuple(
        p.detach().to(x.device).expand_as(x) for p, x in zip(parts, xs, strict=True)
    )


def _ranks(means: Tensor, sizes: Tensor) -> Tensor:
    means = torch.where(sizes > 0, means, -torch.inf)
    order = means.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


def _counts(sizes: Tensor, fraction: float) -> Tensor:
    """How many groups of each example are kept, ``(N, 1)``."""
    n_groups = (sizes > 0).sum(dim=1, keepdim=True).double()
    # 0.3 of 10 groups is 3, whatever floating-point numbers say.
    return (n_groups * fraction - 1e-9).ceil().long()


def _kept(
    xs: tuple[Tensor, ...], x0s: tuple[Tensor, ...], groups: Groups, keep: Tensor
) -> tuple[Tensor, ...]:
    masks = groups.spread(keep.float(), xs)
    return tuple(
        torch.where(mask > 0, x, x0) for mask, x, x0 in zip(masks, xs, x0s, strict=True)
    )


def _norms(kept: tuple[Tensor, ...], x0s: tuple[Tensor, ...]) -> dict[str, Tensor]:
    delta = torch.cat(
        [(x - x0).flatten(1).float() for x, x0 in zip(kept, x0s, strict=True)], dim=1
    )
    return {
        name: torch.linalg.vector_norm(delta, order, dim=1)
        for name, order in _NORMS.items()
    }
