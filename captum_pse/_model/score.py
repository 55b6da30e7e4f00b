"""The kinds of scores: what a model returns, and what effects are differences of.

A user chooses a :data:`Score`. What the numbers of a result then are, its
:class:`ScoreKind`, depends on what the model returns as well: the chosen ``"logit"`` of
a model that ends in a softmax is a probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_pse._model.checks import check_choice
from captum_pse._model.targets import exact

#: The score of which effects are differences.
Score: TypeAlias = Literal["logit", "centered", "log_softmax"]
SCORES: tuple[str, ...] = get_args(Score)

#: Above this probability, a log-probability is saturated: near its maximum, 0.
SATURATED = 0.99


def _as_returned(scores: Tensor) -> Tensor:
    return scores


def _centered(scores: Tensor) -> Tensor:
    scores = exact(scores)
    return scores - scores.mean(dim=1, keepdim=True)


def _log_softmax(scores: Tensor) -> Tensor:
    return exact(scores).log_softmax(dim=1)


@dataclass(frozen=True)
class ScoreKind:
    """What scores are.

    Attributes:
        name, plural (str): Its name in tables, headings and files, and on axes.
        of (Callable): From what the model returns, ``(N, C, ...)``, to scores of this
            kind, in the same shape.
    """

    name: str
    plural: str
    of: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:
        return f"ScoreKind({self.name!r})"


LOGIT = ScoreKind("logit", "logits", _as_returned)
CENTERED = ScoreKind("centered logit", "centered logits", _centered)
# Log-probabilities are their own log-softmax.
LOG_PROBABILITY = ScoreKind("log-probability", "log-probabilities", _log_softmax)
PROBABILITY = ScoreKind("probability", "probabilities", _as_returned)
#: All kinds by name.
KINDS = {kind.name: kind for kind in (LOGIT, CENTERED, LOG_PROBABILITY, PROBABILITY)}


def kind_named(name: str) -> ScoreKind:
    """The kind of a name; ValueError if there is none."""
    check_choice("score", name, tuple(KINDS))
    return KINDS[name]


def returned_kind(*outputs: Tensor) -> ScoreKind:
    """What a model returns, judged by some of its outputs ``(N, C, ...)``.

    Floating-point outputs are probabilities if all values are in [0, 1] and sum to 1
    over the classes, and log-probabilities if that is true of their exponentials, up to
    rounding. Otherwise they are logits.
    """
    if all(_are_probabilities(output.detach()) for output in outputs):
        return PROBABILITY
    if all(_are_log_probabilities(output.detach()) for output in outputs):
        return LOG_PROBABILITY
    return LOGIT


def _are_probabilities(scores: Tensor) -> bool:
    if not scores.is_floating_point():
        return False
    tolerance = _tolerance(scores)
    if not bool(((scores >= 0) & (scores <= 1 + tolerance)).all()):
        return False
    return bool(((exact(scores).sum(dim=1) - 1).abs() <= tolerance).all())


def _are_log_probabilities(scores: Tensor) -> bool:
    if not scores.is_floating_point():
        return False
    tolerance = _tolerance(scores)
    if not bool((scores <= tolerance).all()):
        return False
    return bool((exact(scores).logsumexp(dim=1).abs() <= tolerance).all())


def _tolerance(scores: Tensor) -> float:
    return max(1e-4, 8 * torch.finfo(scores.dtype).eps)


def chosen_kind(score: Score, returned: ScoreKind) -> ScoreKind:
    """What the chosen scores of a model are that returns scores of some kind.

    Raises:
        ValueError: The score needs logits, and the model returns probabilities.
    """
    if score == "logit":
        return returned
    if returned == PROBABILITY:
        raise ValueError(
            f"score: got {score!r} for a model that returns probabilities, want one "
            "that returns logits; give the model without its last softmax"
        )
    return CENTERED if score == "centered" else LOG_PROBABILITY


def is_saturated(log_probabilities: Tensor) -> Tensor:
    """Whether log-probabilities are near 0, their maximum."""
    return log_probabilities.exp() > SATURATED
