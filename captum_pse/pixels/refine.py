"""Keeps a perturbation on the groups that a score ranks first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._model.forward import ForwardFunc, forward_args, run_forward
from captum_pse._model.targets import Label, exact, predicted_class
from captum_pse.groups.groups import Groups, fits
from captum_pse.pairs.labels import PairLabels
from captum_pse.pairs.scored import ScoredPair, Sides, score_pair
from captum_pse.pixels.refinement import (
    _NORMS,
    FRACTIONS,
    Refinement,
    _checked_fraction,
    _counts,
    _kept,
)


@torch.no_grad()
def refine(
    forward_func: ForwardFunc,
    inputs: Tensor | tuple[Tensor, ...] | ScoredPair,
    baselines: Tensor | tuple[Tensor, ...] | None = None,
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
        inputs (Tensor, tuple[Tensor, ...] or ScoredPair): The adversarial ``x'``,
            ``(N, ...)``. Or the ``pair`` of a result on the same model, instead of
            this and the next three arguments: it is not scored again.
        baselines (Tensor or tuple[Tensor, ...], optional): The natural ``x0``, of the
            same shape. Default: None
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
        *Refinement*: With ``.table()``, ``.smallest_fraction``, ``.at()``,
        ``.summary()``, ``.plot()`` and ``.save()``.

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
    args = forward_args(additional_forward_args)
    if isinstance(inputs, ScoredPair):
        if not (baselines is target is true_target is None):
            raise ValueError(
                "baselines, target and true_target: want None where inputs is a scored "
                "pair, which has them"
            )
        pair = inputs
    else:
        if baselines is None:
            raise TypeError("baselines: got None, want the natural inputs")
        sides = Sides.of(inputs, baselines)
        Groups.of(feature_mask, sides.inputs)
        pair = score_pair(forward_func, sides, target, true_target, args)
    xs, naturals, labels = pair.inputs, pair.baselines, pair.labels
    groups = Groups.of(feature_mask, xs)
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
        if pair is inputs and all(map(torch.equal, kept, xs)):
            _check_same_model(labels, said)
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
        pair,
        groups,
        ranks=ranks,
        fractions=wanted,
        reaches=torch.stack([reaches[fraction] for fraction in wanted]),
        leaves=torch.stack([leaves[fraction] for fraction in wanted]),
        norms={
            name: torch.stack([norms[fraction][name] for fraction in wanted])
            for name in _NORMS
        },
        smallest_fraction=torch.where(whole, smallest, torch.nan),
    )


def _check_same_model(labels: PairLabels, scores: Tensor) -> None:
    """Raises ValueError where a scored pair has scores of another model.

    Batches of another size round differently: the scores need not be equal.
    """
    examples = torch.arange(len(scores))
    found = exact(labels.select(scores, examples)).to(labels.adversarial_scores)
    spread = float(scores.max() - scores.min())
    if float((found - labels.adversarial_scores).abs().max()) > 1e-2 * spread:
        raise ValueError(
            "inputs: got a pair with the scores of another model, want one that "
            "forward_func scored"
        )


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


def _norms(kept: tuple[Tensor, ...], x0s: tuple[Tensor, ...]) -> dict[str, Tensor]:
    delta = torch.cat(
        [(x - x0).flatten(1).float() for x, x0 in zip(kept, x0s, strict=True)], dim=1
    )
    return {
        name: torch.linalg.vector_norm(delta, order, dim=1)
        for name, order in _NORMS.items()
    }
