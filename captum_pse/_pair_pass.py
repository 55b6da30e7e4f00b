"""Both sides of a pair through a model, with their labels and what its layers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from captum._utils.common import (
    _expand_additional_forward_args,
    _format_additional_forward_args,
)
from torch import Tensor, nn

from captum_pse._forward import ForwardFunc, first_scores
from captum_pse._layers import scores_and_activations
from captum_pse._tensors import check_tensors
from captum_pse.groups import Groups
from captum_pse.labels import Label
from captum_pse.pair_labels import PairLabels


class ScoredPair(NamedTuple):
    """A pair of N examples, and what the model says of it.

    Attributes:
        inputs, baselines (tuple[Tensor, ...]): ``x'`` and ``x0``, detached, N each.
        groups (Groups): Those of the feature mask.
        labels (PairLabels): ``t`` and ``t0``, and what the model says.
        additional_forward_args (tuple): As a tuple.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    groups: Groups
    labels: PairLabels
    additional_forward_args: tuple[Any, ...]


@torch.no_grad()
def score_pair(
    forward_func: ForwardFunc,
    inputs: Tensor | tuple[Tensor, ...],
    baselines: Tensor | tuple[Tensor, ...],
    target: Label | None,
    true_target: Label | None,
    additional_forward_args: Any,
    feature_mask: Tensor | tuple[Tensor, ...] | None,
) -> ScoredPair:
    """One pass over ``x'`` and one over ``x0``; arguments as everywhere in the package.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """
    xs, x0s, naturals, args = _checked(inputs, baselines, additional_forward_args)
    groups = Groups.of(feature_mask, xs)
    labels = PairLabels.resolve(
        target,
        true_target,
        first_scores(forward_func, xs, args),
        first_scores(forward_func, naturals, args),
        x0s,
    )
    return ScoredPair(
        tuple(x.detach() for x in xs),
        tuple(x0.detach() for x0 in naturals),
        groups,
        labels,
        args,
    )


class PairPass(NamedTuple):
    """What came of a pair of N examples.

    Attributes:
        inputs, baselines (tuple[Tensor, ...]): ``x'`` and ``x0``, detached, N each.
        labels (PairLabels): ``t`` and ``t0``, and what the model says.
        scores (Tensor): ``(2 N, C, ...)``, of ``x0`` and then of ``x'``.
        activations (list[Tensor]): The same of each layer, ``(2 N, ...)``.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    labels: PairLabels
    scores: Tensor
    activations: list[Tensor]


def pass_pair(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    baselines: Tensor | tuple[Tensor, ...],
    target: Label | None,
    true_target: Label | None,
    additional_forward_args: Any,
    *,
    differentiable: bool,
    may_agree: bool = False,
) -> PairPass:
    """One pass over ``x0`` and ``x'``; arguments as everywhere in the package.

    Raises:
        TypeError, ValueError: An argument or a layer does not fit.
    """
    xs, x0s, naturals, args = _checked(inputs, baselines, additional_forward_args)
    n = len(xs[0])
    scores, activations = scores_and_activations(
        forward_func,
        layers,
        tuple(torch.cat(sides) for sides in zip(naturals, xs, strict=True)),
        _expand_additional_forward_args(args, 2) if args else args,
        differentiable=differentiable,
    )
    labels = PairLabels.resolve(
        target, true_target, scores[n:], scores[:n], x0s, may_agree=may_agree
    )
    return PairPass(
        tuple(x.detach() for x in xs),
        tuple(x0.detach() for x0 in naturals),
        labels,
        scores,
        activations,
    )


def _checked(
    inputs: Any, baselines: Any, additional_forward_args: Any
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...], tuple[Any, ...]]:
    """The sides as given, ``x0`` for each example, and the arguments; all as tuples."""
    xs, x0s = check_tensors(
        inputs, baselines, ("inputs", "baselines"), share_natural=True
    )
    # One natural example for all is repeated: the arguments may have N examples.
    naturals = tuple(x0.expand_as(x) for x0, x in zip(x0s, xs, strict=True))
    args = _format_additional_forward_args(additional_forward_args) or ()
    return xs, x0s, naturals, args
