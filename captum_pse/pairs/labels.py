"""The two labels of a pair, and what the model says of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

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


class PredictionWarning(UserWarning):
    """The model does not say what the labels of a pair say.

    The message names the first example. The numbers are those of the labels given.

    Examples::

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
    """The labels of N pairs, and what the model says of them.

    Attributes:
        target, true_target (Tensor): int64 ``(N, D)``, the attack label ``t`` and the
            true label ``t0``.
        adversarial_class, natural_class (Tensor): int64 ``(N,)``, the class that the
            model predicts on ``x'`` and on ``x0``, for dense scores at the labels'
            positions.
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
        """The labels as given, or as predicted where None is given.

        Args:
            target (Label, optional): ``t``, in any of Captum's formats.
            true_target (Label, optional): ``t0``, likewise.
            adversarial (Tensor): Scores ``(N, C, ...)`` on ``x'``.
            natural (Tensor): Those on ``x0``.
            baselines (tuple[Tensor, ...]): ``x0`` itself. Where each example stands k
                times in a row, ``true_target`` may have one label for k of them.
            may_agree (bool, optional): Whether ``t`` may be ``t0`` where both are as
                predicted. Default: False

        Raises:
            TypeError, ValueError: A label that does not fit, or the same label twice.

        Warns:
            PredictionWarning: The model does not say what a given label says.
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
        # NoiseTunnel and captum.metrics repeat inputs, baselines and target, but no
        # argument that they do not know.
        repeated = partial(_stand_in_a_row, baselines)
        t0 = resolved("true_target", true_target, natural, repeated)
        predicted = target is None or true_target is None
        if not (may_agree and target is None and true_target is None):
            hint = "; give both where predictions agree" if predicted else ""
            check_differ(t, t0, hint)
        sides = adversarial.detach(), natural.detach()
        scores = [exact(select_scores(side, t, t0)) for side in sides]
        if not all(values.isfinite().all() for values in scores):
            raise ValueError("forward_func: returned NaN or infinite scores")
        said, said_before = predicted_class(sides[0], t), predicted_class(sides[1], t0)
        _warn_unless_said("inputs", "target", said, t)
        _warn_unless_said("baselines", "true_target", said_before, t0)
        return cls(t, t0, said, said_before, *scores)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> PairLabels:
        """From the tensors that are named after the attributes, behind ``prefix``."""
        return cls(**{f.name: tensors[f"{prefix}{f.name}"] for f in fields(cls)})

    def columns(self) -> dict[str, Tensor]:
        """What a summary says of labels and scores, a value for each example.

        Returns:
            *dict[str, Tensor]*: ``true_label`` and ``attack_label``;
            ``natural_prediction`` and ``adversarial_prediction``, the classes that the
            model says; ``natural_agrees`` and ``attack_holds``, whether they are those
            labels'; ``attack_score_gain``, ``Z(x')_t - Z(x0)_t``, and
            ``true_score_loss``, ``Z(x0)_t0 - Z(x')_t0``.
        """
        moved = self.adversarial_scores - self.natural_scores
        return {
            "true_label": _plain(self.true_target),
            "attack_label": _plain(self.target),
            "natural_prediction": self.natural_class,
            "adversarial_prediction": self.adversarial_class,
            "natural_agrees": self.natural_class == self.true_target[:, 0],
            "attack_holds": self.adversarial_class == self.target[:, 0],
            "attack_score_gain": moved[:, 0],
            "true_score_loss": -moved[:, 1],
        }

    def select(self, scores: Tensor, examples: Tensor) -> Tensor:
        """The scores of ``t`` and ``t0``, in this order.

        Args:
            scores (Tensor): Shape ``(B, C, ...)``.
            examples (Tensor): int64 ``(B,)``: which pair each is of.

        Returns:
            *Tensor*: Shape ``(B, 2)``.
        """
        rows = examples.to(self.target.device)
        return select_scores(scores, self.target[rows], self.true_target[rows])


def records(columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Columns of N values as N plain dicts, each with the number of its example."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"example": i, **dict(zip(columns, row, strict=True))}
        for i, row in enumerate(rows)
    ]


def _plain(index: Tensor) -> Tensor:
    """Class numbers ``(N,)`` where an index is nothing more."""
    return index[:, 0] if index.shape[1] == 1 else index


def _warn_unless_said(side: str, name: str, said: Tensor, index: Tensor) -> None:
    wrong = (said != index[:, 0]).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        warnings.warn(
            f"the model does not predict {name} on {len(wrong)} of {len(said)} {side}; "
            f"the first is example {row}, where it says {int(said[row])}, not "
            f"{int(index[row, 0])}",
            PredictionWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The ``stacklevel`` of the first frame that is neither ours nor our libraries'."""
    level, frame = 1, sys._getframe(1)
    ours = ("captum_pse", "captum", "torch")
    while frame.f_globals.get("__name__", "").split(".")[0] in ours and frame.f_back:
        level, frame = level + 1, frame.f_back
    return level


def _stand_in_a_row(examples: tuple[Tensor, ...], k: int) -> bool:
    """Whether each example stands k times in a row; one alone stands for any number."""
    if len(examples[0]) == 1:
        return True
    blocks = (x.reshape(-1, k, *x.shape[1:]) for x in examples)
    return all(torch.equal(b, b[:, :1].expand_as(b)) for b in blocks)
