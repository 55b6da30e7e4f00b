"""Turns class labels in Captum's target formats into one integer index tensor.

The label of an example is an index into its scores: a class number if the model returns
``(N, C)``, a tuple ``(class, row, column)`` if it returns ``(N, C, H, W)``. The rest of
the package takes labels as a tensor of shape ``(N, D)``, where ``D`` is the number of
dimensions of one example's scores.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_pse._model.checks import check_int, check_integers

#: Captum's formats of ``target``: one label for all examples, or one for each.
Label: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]]

_WANTED = "an int, a tuple of ints, a list of either, or an integer tensor"


def _integers(name: str, values: Sequence[Any]) -> list[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(
                f"{name}: got {value!r} of type {type(value).__name__}, want {_WANTED}"
            )
    return [check_int(name, value) for value in values]


def _rows(name: str, label: Any) -> Tensor:
    """The labels as given: ``(length, D)``, or ``(1, D)`` for a single one."""
    if isinstance(label, Tensor):
        rows = check_integers(name, label, _WANTED)
        if label.dim() > 2 or label.numel() == 0:
            raise ValueError(
                f"{name}: got a tensor of shape {tuple(label.shape)}, want one label "
                "(0-D), one for each example (N,) or one index for each example (N, D)"
            )
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


def never(k: int) -> bool:
    """No batch is repeated: each example needs its own label."""
    return False


def label_index(
    name: str,
    label: Label,
    n_examples: int,
    repeated: Callable[[int], bool] = never,
) -> Tensor:
    """The label as an index tensor.

    Args:
        name (str): The argument's name, for messages.
        label (int, tuple, list or Tensor): Labels in any of Captum's target formats.
            Numpy integers and tensors of shape ``(N, 1)`` are accepted as well.
        n_examples (int): N, the number of examples.
        repeated (Callable, optional): Takes k and returns whether the batch is N/k
            distinct examples, each repeated k times in a row. Then N/k labels are
            accepted. Default: never

    Returns:
        *Tensor*: int64, shape ``(N, D)``.

    Raises:
        TypeError: A label is not an integer.
        ValueError: The number of labels is not N, int64 does not hold a label, or
            tuples have different lengths.
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


def predicted_index(name: str, scores: Tensor) -> Tensor:
    """The predicted class of each example, ``(N, 1)``, from scores ``(N, C)``."""
    if scores.dim() != 2:
        raise ValueError(
            f"{name}: got None, but the forward function returns scores of shape "
            f"{tuple(scores.shape)}, which have no single predicted class; want an "
            f"index of {scores.dim() - 1} integers for each example"
        )
    return scores.argmax(dim=1, keepdim=True)


def check_index(name: str, index: Tensor, scores: Tensor) -> Tensor:
    """``index`` on the device of ``scores``; ValueError if it is not a valid index."""
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
    """Raises ValueError if an example's attack label equals its true label."""
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


def exact(scores: Tensor) -> Tensor:
    """The scores in at least single precision, for differences of scores.

    Integers become float64, which holds them exactly up to 2**53.
    """
    if not scores.is_floating_point():
        return scores.double()
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def select_scores(scores: Tensor, *indices: Tensor) -> Tensor:
    """The scores ``(B, K)`` at K indices ``(B, D)`` into scores ``(B, C, ...)``."""
    rows = torch.arange(len(scores), device=scores.device)
    positions = (index.to(scores.device).unbind(dim=1) for index in indices)
    return torch.stack([scores[(rows, *position)] for position in positions], dim=1)
