"""The dtypes that Captum's feature ablation gives ablated inputs and attributions.

An ablated input has the dtype of ``x + baseline``: an integer input with the baseline
0.5 becomes floating point. Only the inputs that a group is in are ablated; the others
keep their dtype. Attributions have the dtype of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from captum._utils.common import _format_baseline
from torch import Tensor

from captum_pse.groups.groups import Groups


def ablated_values(baselines: Any, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Captum's ``baselines`` in the shapes and dtypes of the ablated inputs.

    Raises:
        TypeError, ValueError: They do not fit the inputs.
    """
    given = _format_baseline(baselines, xs) if baselines is None else baselines
    given = given if isinstance(given, tuple) else (given,)
    if len(given) != len(xs):
        raise ValueError(
            f"baselines: got {len(given)}, want one for each of the {len(xs)} inputs"
        )
    return tuple(_ablated(value, x) for value, x in zip(given, xs, strict=True))


def _ablated(value: Any, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        dtype = torch.promote_types(x.dtype, value.dtype)
        try:
            return value.detach().to(x.device, dtype).broadcast_to(x.shape)
        except RuntimeError as error:
            raise ValueError(
                f"baselines: got shape {tuple(value.shape)}, want one that broadcasts "
                f"to the input's {tuple(x.shape)}"
            ) from error
    if not isinstance(value, (int, float)):
        raise TypeError(
            f"baselines: got {type(value).__name__}, want numbers or tensors"
        )
    # The type of the number counts, but not its size.
    dtype = torch.result_type(x.new_zeros(1), type(value)(0))
    if not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool):
        limits = torch.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            raise ValueError(
                f"baselines: got {value}, want {limits.min} to {limits.max} for inputs "
                f"of {x.dtype}"
            )
    return torch.full((), value, dtype=dtype, device=x.device).broadcast_to(x.shape)


class Part(NamedTuple):
    """The groups whose ablation gives the inputs the same dtypes.

    Attributes:
        chosen (Tensor): bool ``(n_groups,)``: which groups.
        groups (Groups): All groups, of which only these have features.
        inputs, baselines (tuple[Tensor, ...]): In the dtypes of the ablated inputs.
        is_promoted (bool): Whether a dtype differs from that of the unperturbed input.
    """

    chosen: Tensor
    groups: Groups
    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    is_promoted: bool


def parts(
    xs: tuple[Tensor, ...], x0s: tuple[Tensor, ...], groups: Groups
) -> Iterator[Part]:
    """All groups, by the dtypes of the inputs after the group is ablated.

    Args:
        xs (tuple[Tensor, ...]): The inputs.
        x0s (tuple[Tensor, ...]): The baselines, from :func:`ablated_values`.
        groups (Groups): The groups.
    """
    differs = [x0.dtype != x.dtype for x, x0 in zip(xs, x0s, strict=True)]
    if not any(differs):
        every = torch.ones_like(groups.ids, dtype=torch.bool)
        yield Part(every, groups, xs, x0s, False)
        return
    promoted = groups.within() & torch.tensor(differs, device=groups.ids.device)
    for row in promoted.unique(dim=0):
        chosen = (promoted == row).all(dim=1)
        sides = [
            (x.to(x0), x0) if changes else (x, x0 if x0.dtype == x.dtype else x)
            for x, x0, changes in zip(xs, x0s, row.tolist(), strict=True)
        ]
        inputs, baselines = zip(*sides, strict=True)
        yield Part(chosen, groups.only(chosen), inputs, baselines, bool(row.any()))


def decrease(before: Tensor, after: Tensor) -> Tensor:
    """``before - after`` in the dtype of ``before``.

    Raises:
        TypeError: The scores are bool, or integers for the inputs alone.
        ValueError: A difference of integers is out of the range of their dtype.
    """
    if torch.bool in (before.dtype, after.dtype):
        raise TypeError("forward_func: returned torch.bool, want scores to subtract")
    change = before - after
    if not torch.can_cast(change.dtype, before.dtype):
        raise TypeError(
            f"forward_func: returned {before.dtype} for the inputs and {after.dtype} "
            "for ablated inputs, want one dtype, such as that of scores.float()"
        )
    change = change.to(before.dtype)
    if not (before.is_floating_point() or before.is_complex()) and bool(
        (before.long() - after.long() != change).any()
    ):
        raise ValueError(
            f"forward_func: returned {before.dtype}, which cannot hold the differences "
            "of scores, want a wider dtype, such as that of scores.float()"
        )
    return change
