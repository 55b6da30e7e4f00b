"""Class labels in Captum's target formats, as one integer index tensor.

A label of one example is an index into the scores of that example: a class number where
the model returns ``(N, C)``, a tuple ``(class, row, column)`` where it returns
``(N, C, H, W)``. Everything else in the package sees labels as a tensor of shape
``(N, D)`` with ``D`` the number of dimensions of one example's scores.
"""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

#: What Captum takes as ``target``: one label for all examples, or one for each.
Label: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]]


class PredictionWarning(UserWarning):
    """The model does not say what the labels of a pair say."""


_WANTED = "an int, a tuple of ints, a list of either, or an integer tensor"


def _integers(name: str, values: Sequence[Any]) -> list[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(
                f"{name}: got {value!r} of type {type(value).__name__}, want {_WANTED}"
            )
        if abs(int(value)) >= 2**63:
            raise ValueError(f"{name}: got {value}, want a class of the model")
    return [int(value) for value in values]


def _rows(name: str, label: Any) -> Tensor:
    """The labels as given, shape ``(length, D)``, and ``(1, D)`` for a single one."""
    if isinstance(label, Tensor):
        if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
            raise TypeError(f"{name}: got a tensor of {label.dtype}, want {_WANTED}")
        if label.dim() > 2 or label.numel() == 0:
            raise ValueError(
                f"{name}: got a tensor of shape {tuple(label.shape)}, want one label "
                "(0-D), one for each example (N,) or one index for each example (N, D)"
            )
        rows = label.detach().to(torch.int64)
        return rows.reshape(1, 1) if rows.dim() == 0 else rows.reshape(len(rows), -1)
    if isinstance(label, tuple):
        return torch.tensor([_integers(name, label)])
    if isinstance(label, list):
        if not label:
            raise ValueError(f"{name}: got an empty list, want {_WANTED}")
        ragged = [
            _integers(name, item if isinstance(item, tuple) else (item,))
            for item in label
        ]
        if len({len(row) for row in ragged}) > 1:
            raise ValueError(f"{name}: got tuples of different lengths, {label!r}")
        return torch.tensor(ragged)
    return torch.tensor([_integers(name, (label,))])


def _never(k: int) -> bool:
    return False


def label_index(
    name: str,
    label: Label,
    n_examples: int,
    repeated: Callable[[int], bool] = _never,
) -> Tensor:
    """The label as an index tensor.

    Args:
        name (str): The argument's name, for messages.
        label (int, tuple, list or Tensor): In any of Captum's target formats; numpy
            integers and tensors of shape ``(N, 1)`` are taken as well.
        n_examples (int): N, the number of examples.
        repeated (Callable, optional): Says whether the examples are fewer ones, each k
            times in a row; then labels of those will do. Default: never

    Returns:
        *Tensor*: int64, shape ``(N, D)``.

    Raises:
        TypeError: The label, or one of them, is not an integer.
        ValueError: As many labels as there are examples are wanted, or they are ragged.
    """
    rows = _rows(name, label)
    shared = not isinstance(label, list) and len(rows) == 1
    if shared or len(rows) == n_examples:
        return rows.expand(n_examples, -1)
    k, rest = divmod(n_examples, len(rows))
    if rest == 0 and repeated(k):
        return rows.repeat_interleave(k, dim=0)
    raise ValueError(
        f"{name}: got {len(rows)} label(s), want one for each of {n_examples} examples"
    )


def _stand_in_a_row(examples: tuple[Tensor, ...], k: int) -> bool:
    """Whether each example stands k times in a row; one alone stands for any number."""
    if len(examples[0]) == 1:
        return True
    blocks = (x.reshape(-1, k, *x.shape[1:]) for x in examples)
    return all(torch.equal(b, b[:, :1].expand_as(b)) for b in blocks)


def predicted_index(name: str, scores: Tensor) -> Tensor:
    """The predicted class of each example, ``(N, 1)``, from scores ``(N, C)``."""
    if scores.dim() != 2:
        raise ValueError(
            f"{name}: got None, but the forward function returns scores of shape "
            f"{tuple(scores.shape)}, which have no single predicted class; give an "
            f"index of {scores.dim() - 1} integers for each example"
        )
    return scores.argmax(dim=1, keepdim=True)


def check_index(name: str, index: Tensor, scores: Tensor) -> Tensor:
    """``index`` on the device of ``scores``, or a ValueError where it does not fit."""
    size = scores.shape[1:]
    if index.shape[1] != len(size):
        raise ValueError(
            f"{name}: got an index of {index.shape[1]} integer(s), want {len(size)} "
            f"for scores of shape {tuple(scores.shape)}"
        )
    index = index.to(scores.device)
    outside = (index < 0) | (index >= torch.tensor(size, device=scores.device))
    if outside.any():
        example = int(outside.any(dim=1).nonzero()[0])
        got = index[example].tolist()
        raise ValueError(
            f"{name}: got {got[0] if len(got) == 1 else tuple(got)} for example "
            f"{example}, want 0 to {', '.join(str(n - 1) for n in size)}"
        )
    return index


def check_differ(target: Tensor, true_target: Tensor, hint: str = "") -> None:
    """Raises ValueError where an example's attack label is its true label."""
    same = (target == true_target).all(dim=1)
    if same.any():
        rows = same.nonzero().flatten().tolist()
        raise ValueError(
            f"target and true_target: got the same label {target[rows[0]].tolist()} "
            f"for {len(rows)} of {len(target)} example(s), the first at {rows[0]}; "
            f"want an attack label that differs from the true one{hint}"
        )


def predicted_class(scores: Tensor, index: Tensor) -> Tensor:
    """The class with the largest score at the position in ``index``, ``(N,)``."""
    rows = torch.arange(len(scores), device=scores.device)
    position = index[:, 1:].unbind(dim=1)
    return scores.movedim(1, -1)[(rows, *position)].argmax(dim=-1)


@dataclass(frozen=True)
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

    @classmethod
    def resolve(
        cls,
        target: Label | None,
        true_target: Label | None,
        adversarial: Tensor,
        natural: Tensor,
        baselines: tuple[Tensor, ...],
    ) -> PairLabels:
        """The labels as given, or as predicted where None is given.

        Args:
            target, true_target (Label, optional): In any of Captum's formats.
            adversarial, natural (Tensor): Scores ``(N, C, ...)`` on ``x'`` and ``x0``.
            baselines (tuple[Tensor, ...]): ``x0`` itself. Where each example stands k
                times in a row, ``true_target`` may have one label for k of them.

        Raises:
            TypeError, ValueError: A label that does not fit, or the same label twice.

        Warns:
            PredictionWarning: The model does not say what a given label says.
        """

        def resolved(
            name: str,
            label: Label | None,
            scores: Tensor,
            repeated: Callable[[int], bool] = _never,
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
        check_differ(t, t0, "; give both where predictions agree" if predicted else "")
        sides = adversarial.detach(), natural.detach()
        scores = [exact(_select(side, t, t0)) for side in sides]
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
        """What a summary says of labels and scores, a value for each example."""
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

    def select(self, scores: Tensor, repeats: int = 1) -> Tensor:
        """The scores of ``t`` and ``t0``, in this order.

        Args:
            scores (Tensor): Shape ``(repeats * N, C, ...)``, copy after copy of the
                pairs.
            repeats (int, optional): How many copies. Default: 1

        Returns:
            *Tensor*: Shape ``(repeats * N, 2)``.
        """
        return _select(
            scores, self.target.repeat(repeats, 1), self.true_target.repeat(repeats, 1)
        )


def records(columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Columns of N values as N plain dicts, each with the number of its example."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"example": i, **dict(zip(columns, row, strict=True))}
        for i, row in enumerate(rows)
    ]


def exact(scores: Tensor) -> Tensor:
    """At least single precision, in which differences of scores are taken."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _plain(index: Tensor) -> Tensor:
    """Class numbers ``(N,)`` where an index is nothing more."""
    return index[:, 0] if index.shape[1] == 1 else index


def _select(scores: Tensor, *indices: Tensor) -> Tensor:
    rows = torch.arange(len(scores), device=scores.device)
    places = (index.to(scores.device).unbind(dim=1) for index in indices)
    return torch.stack([scores[(rows, *place)] for place in places], dim=1)


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
