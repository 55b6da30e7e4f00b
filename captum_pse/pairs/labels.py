"""The two labels of a pair, with the model's scores and predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_pse._model.score import LOGIT, ScoreKind
from captum_pse._model.score_warnings import ProbabilityWarning, SaturationWarning
from captum_pse._model.targets import (
    Label,
    check_differ,
    check_index,
    exact,
    label_index,
    never,
    predicted_class,
    predicted_index,
    select_scores,
)
from captum_pse._model.warn import warn


class PredictionWarning(UserWarning):
    """The model's prediction differs from a label of the pair.

    The message names the first such example. Results are computed for the given labels.

    Examples::

        >>> import warnings
        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> x, x0, t, t0 = make_pairs(1)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     values = PromotionSuppression(load_model()).attribute(x, x0, t + 3, t0)
        >>> [warning.category.__name__ for warning in caught]
        ['PredictionWarning']
    """


@dataclass(frozen=True, eq=False, repr=False)
class PairLabels:
    """The labels of N pairs, with the model's scores and predictions.

    Attributes:
        target, true_target (Tensor): int64 ``(N, D)``, the attack label ``t`` and the
            true label ``t0``.
        adversarial_class, natural_class (Tensor): int64 ``(N,)``, the class that the
            model predicts on ``x'`` and on ``x0``; for dense scores, at the positions
            of ``t`` and ``t0``.
        adversarial_scores, natural_scores (Tensor): ``(N, 2)``, the scores of ``t`` and
            ``t0``, in this order, on ``x'`` and on ``x0``; at least single precision.
    """

    target: Tensor
    true_target: Tensor
    adversarial_class: Tensor
    natural_class: Tensor
    adversarial_scores: Tensor
    natural_scores: Tensor

    def __repr__(self) -> str:
        return f"PairLabels({len(self.target)} pair(s))"

    @classmethod
    def resolve(
        cls,
        target: Label | None,
        true_target: Label | None,
        adversarial: Tensor,
        natural: Tensor,
        baselines: tuple[Tensor, ...],
        *,
        may_agree: bool = False,
    ) -> PairLabels:
        """Resolves the labels: as given, or as predicted if None.

        Their scores are as returned; see :meth:`rescored`.

        Args:
            target (Label, optional): ``t``, in any of Captum's formats.
            true_target (Label, optional): ``t0``, in any of Captum's formats.
            adversarial (Tensor): What the model returns for ``x'``, ``(N, C, ...)``.
            natural (Tensor): What it returns for ``x0``, ``(N, C, ...)``.
            baselines (tuple[Tensor, ...]): ``x0``. If they are N/k distinct examples,
                each repeated k times in a row, ``true_target`` may have N/k labels.
            may_agree (bool, optional): Whether ``t`` may equal ``t0`` if both are
                predicted. Default: False

        Raises:
            TypeError, ValueError: A label does not fit, or both labels are equal.

        Warns:
            PredictionWarning: A prediction differs from a given label.
        """

        def resolved(
            name: str,
            label: Label | None,
            scores: Tensor,
            repeated: Callable[[int], bool] = never,
        ) -> Tensor:
            if label is None:
                return predicted_index(name, scores)
            index = label_index(name, label, len(scores), repeated)
            return check_index(name, index, scores)

        t = resolved("target", target, adversarial)
        # NoiseTunnel and captum.metrics repeat inputs, baselines and target, but not
        # true_target, which is not among their arguments.
        repeated = partial(_are_repeated, baselines)
        t0 = resolved("true_target", true_target, natural, repeated)
        predicted = target is None or true_target is None
        if not (may_agree and target is None and true_target is None):
            hint = "; give both where predictions agree" if predicted else ""
            check_differ(t, t0, hint)
        scores = _label_scores(LOGIT, adversarial, natural, t, t0)
        classes = predicted_class(adversarial, t), predicted_class(natural, t0)
        _warn_unless_predicted("inputs", "target", classes[0], t)
        _warn_unless_predicted("baselines", "true_target", classes[1], t0)
        return cls(t, t0, *classes, *scores)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> PairLabels:
        """Reads the attributes from tensors of the same names after ``prefix``."""
        return cls(**{f.name: tensors[f"{prefix}{f.name}"] for f in fields(cls)})

    def rescored(
        self, kind: ScoreKind, adversarial: Tensor, natural: Tensor
    ) -> PairLabels:
        """The same labels, with scores of another kind.

        Args:
            kind (ScoreKind): The kind of the scores.
            adversarial (Tensor): What the model returns for ``x'``, ``(N, C, ...)``.
            natural (Tensor): What it returns for ``x0``, ``(N, C, ...)``.

        Raises:
            ValueError: The scores are not finite.
        """
        scores = _label_scores(
            kind, adversarial, natural, self.target, self.true_target
        )
        return replace(self, adversarial_scores=scores[0], natural_scores=scores[1])

    def columns(self) -> dict[str, Tensor]:
        """The columns of a summary on labels and scores, one value for each example.

        Returns:
            *dict[str, Tensor]*: ``true_label`` and ``attack_label``;
            ``natural_prediction`` and ``adversarial_prediction``, the predicted
            classes; ``natural_agrees`` and ``attack_holds``, whether these equal the
            true label and the attack label; ``attack_score_gain``,
            ``Z(x')_t - Z(x0)_t``, and ``true_score_loss``, ``Z(x0)_t0 - Z(x')_t0``.
        """
        change = self.adversarial_scores - self.natural_scores
        return {
            "true_label": _class_numbers(self.true_target),
            "attack_label": _class_numbers(self.target),
            "natural_prediction": self.natural_class,
            "adversarial_prediction": self.adversarial_class,
            "natural_agrees": self.natural_class == self.true_target[:, 0],
            "attack_holds": self.adversarial_class == self.target[:, 0],
            "attack_score_gain": change[:, 0],
            "true_score_loss": -change[:, 1],
        }

    def select(self, scores: Tensor, examples: Tensor) -> Tensor:
        """The scores of ``t`` and ``t0``, in this order.

        Args:
            scores (Tensor): Shape ``(B, C, ...)``.
            examples (Tensor): int64 ``(B,)``, the index of each row's pair.

        Returns:
            *Tensor*: Shape ``(B, 2)``.
        """
        rows = examples.to(self.target.device)
        return select_scores(scores, self.target[rows], self.true_target[rows])


@contextmanager
def warnings_in_records() -> Iterator[None]:
    """Ignores warnings on a pair whose record states the same: what the model predicts,
    what its scores are, and whether they are saturated."""
    with warnings.catch_warnings():
        for kind in (PredictionWarning, ProbabilityWarning, SaturationWarning):
            warnings.simplefilter("ignore", kind)
        yield


def records(columns: Mapping[str, Tensor | Sequence[Any]]) -> list[dict[str, Any]]:
    """Converts columns of N values to N dicts, each with its index ``example``."""
    values = (x.tolist() if isinstance(x, Tensor) else x for x in columns.values())
    rows = zip(*values, strict=True)
    return [
        {"example": i, **dict(zip(columns, row, strict=True))}
        for i, row in enumerate(rows)
    ]


def _class_numbers(index: Tensor) -> Tensor:
    """An index ``(N, 1)`` as class numbers ``(N,)``; a longer index as it is."""
    return index[:, 0] if index.shape[1] == 1 else index


def _label_scores(
    kind: ScoreKind, adversarial: Tensor, natural: Tensor, *labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The scores of labels on ``x'`` and on ``x0``, from all that a model returns."""
    on_adversarial, on_natural = (
        exact(select_scores(kind.of(side.detach()), *labels))
        for side in (adversarial, natural)
    )
    if not (on_adversarial.isfinite() & on_natural.isfinite()).all():
        raise ValueError("forward_func: returned NaN or infinite scores")
    return on_adversarial, on_natural


def _warn_unless_predicted(
    side: str, name: str, predicted: Tensor, index: Tensor
) -> None:
    wrong = (predicted != index[:, 0]).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        warn(
            f"the model does not predict {name} on {len(wrong)} of {len(predicted)} "
            f"{side}; the first is example {row}, where it predicts "
            f"{int(predicted[row])}, not {int(index[row, 0])}",
            PredictionWarning,
        )


def _are_repeated(examples: tuple[Tensor, ...], k: int) -> bool:
    """Whether each example is repeated k times in a row; True for a single example,
    which stands for any number of them."""
    if len(examples[0]) == 1:
        return True
    blocks = (x.reshape(-1, k, *x.shape[1:]) for x in examples)
    return all(torch.equal(b, b[:, :1].expand_as(b)) for b in blocks)
