"""A pair with its labels and scores, which the results of all levels hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from captum._utils.common import _expand_additional_forward_args
from torch import Tensor, nn

from captum_pse._io.saved import SavedResult, number, numbered
from captum_pse._model.activations import scores_and_activations
from captum_pse._model.checks import check_choice, check_tensors
from captum_pse._model.forward import ForwardFunc, first_scores, forward_args
from captum_pse._model.score import (
    LOG_PROBABILITY,
    LOGIT,
    PROBABILITY,
    SCORES,
    Score,
    ScoreKind,
    chosen_kind,
    is_saturated,
    kind_named,
    returned_kind,
)
from captum_pse._model.score_warnings import warn_of_probabilities, warn_of_saturation
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
        kind (ScoreKind): What the scores are; ``kind.name`` is ``"logit"``,
            ``"centered logit"``, ``"log-probability"`` or ``"probability"``.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    labels: PairLabels
    is_tuple: bool
    kind: ScoreKind = LOGIT

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(x.shape)) for x in self.inputs)
        return f"ScoredPair({len(self)} pair(s) {shapes})"

    @classmethod
    def join(cls, pairs: Sequence[ScoredPair]) -> ScoredPair:
        """Concatenates the examples of several pairs.

        Raises:
            ValueError: Their scores are of different kinds.
        """

        def joined(values: Iterable[Tensor]) -> Tensor:
            return torch.cat(list(values))

        first = pairs[0]
        kinds = dict.fromkeys(pair.kind.plural for pair in pairs)
        if len(kinds) > 1:
            raise ValueError(
                f"pairs: got {' and '.join(kinds)}, want one kind of score"
            )
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
            first.kind,
        )

    def select(self, scores: Tensor, examples: Tensor) -> Tensor:
        """The scores of ``t`` and ``t0``, of the pair's kind.

        Args:
            scores (Tensor): What the model returns, ``(B, C, ...)``.
            examples (Tensor): int64 ``(B,)``, the index of each row's pair.

        Returns:
            *Tensor*: Shape ``(B, 2)``.
        """
        return self.labels.select(self.kind.of(scores), examples)

    @property
    def saturated(self) -> Tensor:
        """bool ``(N,)``: whether the scores are log-probabilities, and that of ``t`` on
        ``x'`` is near 0, its maximum: its probability is above 0.99."""
        of_attack = self.labels.adversarial_scores[:, 0]
        if self.kind == LOG_PROBABILITY:
            return is_saturated(of_attack)
        return torch.zeros_like(of_attack, dtype=torch.bool)

    def warn_of_scores(self) -> None:
        """Warns if differences of the scores are near 0 by their kind: probabilities,
        or saturated log-probabilities."""
        warn_of_probabilities(self.kind)
        if self.kind == LOG_PROBABILITY:
            warn_of_saturation(self.labels.adversarial_scores[:, 0])

    def columns(self) -> dict[str, Tensor | list[str]]:
        """The columns of a summary on labels and scores, one value for each example.

        Returns:
            *dict*: Those of :meth:`captum_pse.pairs.labels.PairLabels.columns`;
            ``score``, what the scores are (``"logit"``, ``"centered logit"``,
            ``"log-probability"`` or ``"probability"``); and for log-probabilities,
            whether that of ``t`` on ``x'`` is ``saturated``.
        """
        columns: dict[str, Tensor | list[str]] = {**self.labels.columns()}
        columns["score"] = [self.kind.name] * len(self)
        if self.kind == LOG_PROBABILITY:
            columns["saturated"] = self.saturated
        return columns

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a saved result; see :meth:`of_saved`."""
        labels = {f"labels.{name}": x for name, x in vars(self.labels).items()}
        return (
            number("inputs", self.inputs) | number("baselines", self.baselines) | labels
        )

    def settings(self) -> dict[str, Any]:
        """All that is not a tensor, for a saved result; see :meth:`of_saved`."""
        return {"is_tuple": self.is_tuple, "score": self.kind.name}

    @classmethod
    def of_saved(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> ScoredPair:
        """The inverse of :meth:`tensors` and :meth:`settings`."""
        inputs = numbered(tensors, "inputs")
        return cls(
            inputs,
            numbered(tensors, "baselines"),
            PairLabels.of_tensors(tensors, "labels."),
            # Older files lack the kind of the scores, and some of them is_tuple.
            settings.get("is_tuple", len(inputs) > 1),
            kind_named(settings.get("score", LOGIT.name)),
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

    @property
    def score(self) -> str:
        """What the scores are, ``"logit"``, ``"centered logit"``,
        ``"log-probability"`` or ``"probability"``."""
        return self.pair.kind.name

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

    def scored(
        self,
        adversarial: Tensor,
        natural: Tensor,
        target: Label | None,
        true_target: Label | None,
        scores: Sequence[Score] | None,
        *,
        may_agree: bool = False,
    ) -> dict[Score, ScoredPair]:
        """The pair with its labels and each of its scores.

        Args:
            adversarial (Tensor): What the model returns for ``x'``, ``(N, C, ...)``.
            natural (Tensor): What it returns for ``x0``, ``(N, C, ...)``.
            target (Label, optional): ``t``.
            true_target (Label, optional): ``t0``.
            scores (sequence of str, optional): The scores; None means all that exist
                for what the model returns: no others than probabilities for these.
            may_agree (bool, optional): See :meth:`PairLabels.resolve`. Default: False

        Raises:
            TypeError, ValueError: A label or a score does not fit.

        Warns:
            PredictionWarning: A prediction differs from a given label.
        """
        returned = returned_kind(adversarial, natural)
        if scores is None:
            scores = ("logit",) if returned == PROBABILITY else get_args(Score)
        kinds = {score: chosen_kind(score, returned) for score in scores}
        labels = PairLabels.resolve(
            target, true_target, adversarial, natural, self.given, may_agree=may_agree
        )
        return {
            score: ScoredPair(
                tuple(x.detach() for x in self.inputs),
                tuple(x0.detach() for x0 in self.baselines),
                labels.rescored(kind, adversarial, natural),
                self.is_tuple,
                kind,
            )
            for score, kind in kinds.items()
        }


@torch.no_grad()
def score_pair(
    forward_func: ForwardFunc,
    sides: Sides,
    target: Label | None,
    true_target: Label | None,
    additional_forward_args: tuple[Any, ...],
    scores: Sequence[Score] | None = ("logit",),
) -> dict[Score, ScoredPair]:
    """Scores a pair, by one forward pass on ``x'`` and one on ``x0``.

    Returns:
        *dict*: The pair by each of the scores; see :meth:`Sides.scored`.

    Raises:
        TypeError, ValueError: A label or a score does not fit, or the model does not
            take the inputs.
    """
    adversarial, natural = (
        first_scores(forward_func, side, additional_forward_args)
        for side in (sides.inputs, sides.baselines)
    )
    return sides.scored(adversarial, natural, target, true_target, scores)


class PairPass(NamedTuple):
    """One forward pass on both sides of a pair of N examples.

    Attributes:
        pair (ScoredPair): The pair.
        scores (Tensor): What the model returns, ``(2 N, C, ...)``, on ``x0`` and then
            on ``x'``.
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
    score: Score,
    *,
    differentiable: bool,
    may_agree: bool = False,
) -> PairPass:
    """Scores a pair and records the outputs of layers, in one forward pass on both
    sides.

    Raises:
        TypeError, ValueError: An argument, a layer or the score does not fit.
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
    pairs = sides.scored(
        scores[n:], scores[:n], target, true_target, [score], may_agree=may_agree
    )
    return PairPass(pairs[score], scores, activations)


def check_pairs(
    model: nn.Module, pairs: AdversarialPair, device: str, score: Score
) -> tuple[torch.Tensor]:
    """Checks that the model takes the pairs, before a long computation.

    Returns:
        *tuple[Tensor]*: The first natural image, ``(1, C, H, W)``, on the device.

    Raises:
        ValueError: The pairs are not images, the model does not take them, a label is
            not one of its classes, or it does not return the score.

    Warns:
        ProbabilityWarning: The model returns probabilities.
    """
    check_choice("score", score, SCORES)
    if not isinstance(pairs.natural, torch.Tensor) or pairs.natural.dim() != 4:
        raise ValueError("pairs: want one image input of shape (N, C, H, W)")
    first = (pairs.natural[:1].to(device),)
    with torch.no_grad():
        scores = first_scores(model, first)
    returned = returned_kind(scores)
    chosen_kind(score, returned)
    warn_of_probabilities(returned)
    for name in ("true_label", "attack_label"):
        check_index(name, label_index(name, getattr(pairs, name), len(pairs)), scores)
    return first
