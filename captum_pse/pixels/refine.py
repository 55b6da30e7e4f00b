"""Keeps a perturbation on the groups with the largest scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._model.checks import check_choice, check_fraction
from captum_pse._model.forward import (
    ForwardFunc,
    first_scores,
    forward_args,
    run_forward,
)
from captum_pse._model.score import SCORES, Score
from captum_pse._model.targets import Label, check_index, exact, predicted_class
from captum_pse.groups.groups import Groups, fits
from captum_pse.pairs.scored import ScoredPair, Sides, score_pair
from captum_pse.pixels.refinement import (
    FRACTIONS,
    NORMS,
    Refinement,
    group_counts,
    kept_inputs,
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
    score: Score = "logit",
    show_progress: bool = False,
) -> Refinement:
    r"""Keeps a perturbation on the groups with the largest scores only.

    A group's score is the mean of ``scores`` over its features; ties are broken by the
    group's id. At fraction f, the first ``ceil(f n)`` of an example's n groups keep
    ``x'``. All other features are ``x0``, including features in no group.

    Source: Xu et al., arXiv:1904.02057.

    Args:
        forward_func (Callable): As for :class:`captum_pse.PromotionSuppression`.
        inputs (Tensor, tuple[Tensor, ...] or ScoredPair): The adversarial ``x'``,
            ``(N, ...)``. Alternatively the ``pair`` of a result on the same model,
            which is not scored again; the next three arguments are then None.
        baselines (Tensor or tuple[Tensor, ...], optional): The natural ``x0``, of the
            same shape. Default: None
        target (int, tuple, list or Tensor, optional): The attack label ``t``. None
            means the model's prediction on ``inputs``. Default: None
        true_target (int, tuple, list or Tensor, optional): The true label ``t0``. None
            means the model's prediction on ``baselines``. Default: None
        scores (Tensor or tuple[Tensor, ...]): Scores that rank the groups,
            broadcastable to the inputs: an attribution such as the effect, a class
            activation map or its mask, ``(inputs - baselines).abs()``, or random
            numbers.
        fractions (sequence of float, optional): Fractions of groups to keep, in [0, 1].
            Default: 0, 0.1, ..., 1
        feature_mask (Tensor or tuple[Tensor, ...], optional): The groups, as for
            :class:`captum_pse.PromotionSuppression`. Default: None
        additional_forward_args (Any, optional): Passed to ``forward_func`` after the
            inputs. Default: None
        score (str, optional): The scores whose changes the summary states; see
            :class:`captum_pse.PromotionSuppression`. The refinement depends only on
            predictions. A scored pair has its own. Default: ``"logit"``
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *Refinement*: With ``.table()``, ``.smallest_fraction``, ``.at()``,
        ``.summary()``, ``.plot()`` and ``.save()``.

    Raises:
        TypeError, ValueError: An argument is not valid; the message names it.

    Warns:
        PredictionWarning: The prediction on ``inputs`` is not ``t``, or that on
            ``baselines`` is not ``t0``.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(3)
        >>> effect = PromotionSuppression(model).attribute(*pair)
        >>> refinement = refine(model, *pair, scores=effect, fractions=[0, 1])
        >>> refinement.reaches.tolist()
        [[False, False, False], [True, True, True]]
    """
    args = forward_args(additional_forward_args)
    check_choice("score", score, SCORES)
    if isinstance(inputs, ScoredPair):
        if score != "logit":
            raise ValueError(
                f"score: got {score!r}, want the default if inputs is a scored pair, "
                "which has its own"
            )
        if not (baselines is target is true_target is None):
            raise ValueError(
                "baselines, target and true_target: want None if inputs is a scored "
                "pair, which has them"
            )
        pair = inputs
        Groups.of(feature_mask, pair.inputs)
        _check_same_model(pair, first_scores(forward_func, pair.inputs, args))
    else:
        if baselines is None:
            raise TypeError("baselines: got None, want the natural inputs")
        sides = Sides.of(inputs, baselines)
        Groups.of(feature_mask, sides.inputs)
        pairs = score_pair(forward_func, sides, target, true_target, args, [score])
        pair = pairs[score]
    return refine_scored(
        forward_func,
        pair,
        scores=scores,
        fractions=fractions,
        feature_mask=feature_mask,
        args=args,
        show_progress=show_progress,
    )


@torch.no_grad()
def refine_scored(
    forward_func: ForwardFunc,
    pair: ScoredPair,
    *,
    scores: Tensor | tuple[Tensor, ...],
    fractions: Sequence[float] = FRACTIONS,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    args: tuple[Any, ...] = (),
    show_progress: bool = False,
) -> Refinement:
    """As :func:`refine`, for a pair that was just scored by this model."""
    wanted = tuple(check_fraction("fractions", f) for f in fractions)
    if not wanted:
        raise ValueError("fractions: got none, want at least one")
    xs, naturals, labels = pair.inputs, pair.baselines, pair.labels
    groups = Groups.of(feature_mask, xs)
    sizes = groups.sizes(xs)
    ranks = _ranks(groups.means(_like_inputs(scores, xs), xs), sizes)
    n_groups = (sizes > 0).sum(dim=1, keepdim=True)

    # 0 and 1 are always evaluated: they are the ends of the bisection.
    evaluated = dict.fromkeys((*wanted, 0.0, 1.0))
    halvings = (int(n_groups.max()) - 1).bit_length()
    passes = tqdm(
        total=len(evaluated) + halvings,
        desc="refining",
        unit="pass",
        disable=not show_progress,
    )

    def predictions(counts: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        kept = kept_inputs(xs, naturals, groups, ranks < counts)
        # A copy, since the model may overwrite its inputs.
        outputs = run_forward(forward_func, tuple(x.clone() for x in kept), args)
        passes.update()
        return kept, predicted_class(outputs, labels.target)

    reaches, leaves, norms = {}, {}, {}
    for fraction in evaluated:
        kept, predicted = predictions(group_counts(sizes, fraction))
        reaches[fraction] = predicted == labels.target[:, 0]
        leaves[fraction] = predicted != labels.true_target[:, 0]
        norms[fraction] = _norms(kept, naturals)

    # Bisection between a number of groups that fails and one that succeeds.
    none_reaches, all_reach = (reaches[end].to(n_groups.device) for end in (0.0, 1.0))
    low = torch.zeros_like(n_groups)
    high = torch.where(none_reaches.unsqueeze(1), 0, n_groups)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        succeeds = (predictions(middle)[1] == labels.target[:, 0]).unsqueeze(1)
        succeeds = succeeds.to(high.device)
        high = torch.where(succeeds, middle, high)
        low = torch.where(succeeds, low, middle)
    # Bisection may end one pass early.
    passes.update(passes.total - passes.n)
    passes.close()
    # In double precision, so that at() keeps the same number of groups.
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
            for name in NORMS
        },
        smallest_fraction=torch.where(all_reach, smallest, torch.nan),
    )


def _check_same_model(pair: ScoredPair, scores: Tensor) -> None:
    """Raises ValueError unless the scores of ``x'`` are those of the pair.

    They may differ by rounding, which depends on the batch size.
    """
    labels = pair.labels
    check_index("target", labels.target, scores)
    check_index("true_target", labels.true_target, scores)
    found = exact(pair.select(scores, torch.arange(len(scores))))
    known = labels.adversarial_scores.to(found)
    size = max(float(known.abs().max()), float(labels.natural_scores.abs().max()))
    tolerance = max(1e-3, 16 * torch.finfo(scores.dtype).eps) * size
    if not float((found - known).abs().max()) <= tolerance:
        raise ValueError(
            "inputs: got a pair with other scores than those of forward_func, want one "
            "that it scored; if its scores are random, pass inputs and baselines"
        )


def _like_inputs(scores: Any, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The scores, checked and expanded to the shapes of the inputs."""
    tensors = scores if isinstance(scores, tuple) else (scores,)
    if len(tensors) != len(xs) or not all(isinstance(v, Tensor) for v in tensors):
        raise TypeError(f"scores: want {len(xs)} tensor(s), one for each input")
    for values, x in zip(tensors, xs, strict=True):
        if not fits(values, x):
            raise ValueError(
                f"scores: got shape {tuple(values.shape)}, want one that broadcasts to "
                f"{tuple(x.shape)}"
            )
        if not values.isfinite().all():
            raise ValueError("scores: got NaN or infinite values, want finite ones")
    return tuple(
        v.detach().to(x.device).expand_as(x) for v, x in zip(tensors, xs, strict=True)
    )


def _ranks(means: Tensor, sizes: Tensor) -> Tensor:
    """The rank of each group by its mean score, 0 for the largest."""
    means = torch.where(sizes > 0, means, -torch.inf)
    order = means.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


def _norms(kept: tuple[Tensor, ...], x0s: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The norms ``(N,)`` of the perturbation that is kept."""
    delta = torch.cat(
        [exact(x - x0).flatten(1) for x, x0 in zip(kept, x0s, strict=True)], dim=1
    )
    return {
        name: torch.linalg.vector_norm(delta, order, dim=1)
        for name, order in NORMS.items()
    }
