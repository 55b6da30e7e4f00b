"""A pair with its labels and scores, which the results of all levels hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from captum._utils.common import _expand_additional_forward_args
from torch import Tensor, nn

from captum_pse._io.saved import SavedResult, number, numbered
from captum_pse._model.activations import scores_and_activations
from captum_pse._model.checks import check_tensors
from captum_pse._model.forward import ForwardFunc, first_scores, forward_args
from captum_pse._model.targets import Label, check_index, label_index
from captum_pse.pairs.labels import PairLabels
from captum_pse.pairs.pair import AdversarialPair


@dataclass(frozen=True, eq=False, repr=False)
class ScoredPair:
    """A pair of N examples with its labels and the model's scores for them.

    Attributes:
        inputs, baselines (tuple[Tensor, ...]): ``x'`` and ``x0``, ``(N, ...)`` each,
            without gradients.
        labels (PairLabels): ``t`` and ``t0``, with the model's scores and predictions.
        is_tuple (bool): Whether the inputs came as a tuple.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    labels: PairLabels
    is_tuple: bool

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(x.shape)) for x in self.inputs)
        return f"ScoredPair({len(self)} pair(s) {shapes})"

    @classmethod
    def join(cls, pairs: Sequence[ScoredPair]) -> ScoredPair:
        """Concatenates the examples of several pairs."""

        def joined(values: Iterable[Tensor]) -> Tensor:
            return torch.cat(list(values))

        first = pairs[0]
        return cls(
            tuple(map(joined, zip(*(p.inputs for p in pairs), strict=True))),
            tuple(map(joined, zip(*(p.baselines for p in pairs), strict=True))),
            PairLabels(
                **{
                    name: joined(getattr(p.labels, name) for p in pairs)
                    for name in vars(first.labels)
                }
            ),
            first.is_tuple,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a saved result; see :meth:`of_saved`."""
        labels = {f"labels.{name}": x for name, x in vars(self.labels).items()}
        return (
            number("inputs", self.inputs) | number("baselines", self.baselines) | labels
        )

    @classmethod
    def of_saved(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> ScoredPair:
        """The inverse of :meth:`tensors`; ``settings`` hold ``is_tuple``."""
        inputs = numbered(tensors, "inputs")
        return cls(
            inputs,
            numbered(tensors, "baselines"),
            PairLabels.of_tensors(tensors, "labels."),
            # Older files of some results lack it.
            settings.get("is_tuple", len(inputs) > 1),
        )


@dataclass(frozen=True, eq=False, repr=False)
class PairResult(SavedResult):
    """A result on a scored pair: the base class of the results of all three levels.

    Attributes:
        pair (ScoredPair): The pair.
    """

    pair: ScoredPair

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The adversarial ``x'``, ``(N, ...)`` each."""
        return self.pair.inputs

    @property
    def baselines(self) -> tuple[Tensor, ...]:
        """The natural ``x0``, ``(N, ...)`` each."""
        return self.pair.baselines

    @property
    def labels(self) -> PairLabels:
        """``t`` and ``t0``, with the model's scores and predictions."""
        return self.pair.labels

    def __len__(self) -> int:
        return len(self.pair)


class Sides(NamedTuple):
    """Both sides of a pair of N examples, checked.

    Attributes:
        inputs (tuple[Tensor, ...]): ``x'``, ``(N, ...)`` each.
        baselines (tuple[Tensor, ...]): ``x0``, ``(N, ...)`` each.
        given (tuple[Tensor, ...]): ``x0`` as given, ``(N, ...)`` each, or ``(1, ...)``
            for one natural example that all share.
        is_tuple (bool): Whether the inputs came as a tuple.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    given: tuple[Tensor, ...]
    is_tuple: bool

    @classmethod
    def of(cls, inputs: Any, baselines: Any) -> Sides:
        """Checks the arguments ``inputs`` and ``baselines`` of a method.

        Raises:
            TypeError, ValueError: They do not match.
        """
        xs, x0s = check_tensors(
            inputs, baselines, ("inputs", "baselines"), share_natural=True
        )
        # additional_forward_args may have N examples, so a shared x0 is repeated.
        naturals = tuple(x0.expand_as(x) for x0, x in zip(x0s, xs, strict=True))
        return cls(xs, naturals, x0s, isinstance(inputs, tuple))

    def scored(self, labels: PairLabels) -> ScoredPair:
        """The pair with its labels and scores."""
        return ScoredPair(
            tuple(x.detach() for x in self.inputs),
            tuple(x0.detach() for x0 in self.baselines),
            labels,
            self.is_tuple,
        )


@torch.no_grad()
def score_pair(
    forward_func: ForwardFunc,
    sides: Sides,
    target: Label | None,
    true_target: Label | None,
    additional_forward_args: tuple[Any, ...],
) -> ScoredPair:
    """Scores a pair, by one forward pass on ``x'`` and one on ``x0``.

    Raises:
        TypeError, ValueError: A label does not fit, or the model does not take the
            inputs.
    """
    adversarial, natural = (
        first_scores(forward_func, side, additional_forward_args)
        for side in (sides.inputs, sides.baselines)
    )
    return sides.scored(
        PairLabels.resolve(target, true_target, adversarial, natural, sides.given)
    )


class PairPass(NamedTuple):
    """One forward pass on both sides of a pair of N examples.

    Attributes:
        pair (ScoredPair): The pair.
        scores (Tensor): ``(2 N, C, ...)``, on ``x0`` and then on ``x'``.
        activations (list[Tensor]): Each layer's output ``(2 N, ...)``, on ``x0`` and
            then on ``x'``.
    """

    pair: ScoredPair
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
    """Scores a pair and records the outputs of layers, in one forward pass on both
    sides.

    Raises:
        TypeError, ValueError: An argument or a layer does not fit.
    """
    sides = Sides.of(inputs, baselines)
    args = forward_args(additional_forward_args)
    n = len(sides.inputs[0])
    scores, activations = scores_and_activations(
        forward_func,
        layers,
        tuple(map(torch.cat, zip(sides.baselines, sides.inputs, strict=True))),
        _expand_additional_forward_args(args, 2) if args else args,
        differentiable=differentiable,
    )
    labels = PairLabels.resolve(
        target, true_target, scores[n:], scores[:n], sides.given, may_agree=may_agree
    )
    return PairPass(sides.scored(labels), scores, activations)


def check_pairs(
    model: nn.Module, pairs: AdversarialPair, device: str
) -> tuple[torch.Tensor]:
    """Checks that the model takes the pairs, before a long computation.

    Returns:
        *tuple[Tensor]*: The first natural image, ``(1, C, H, W)``, on the device.

    Raises:
        ValueError: The pairs are not images, the model does not take them, or a label
            is not one of its classes.
    """
    if not isinstance(pairs.natural, torch.Tensor) or pairs.natural.dim() != 4:
        raise ValueError("pairs: want one image input of shape (N, C, H, W)")
    first = (pairs.natural[:1].to(device),)
    with torch.no_grad():
        scores = first_scores(model, first)
    for name in ("true_label", "attack_label"):
        check_index(name, label_index(name, getattr(pairs, name), len(pairs)), scores)
    return first
