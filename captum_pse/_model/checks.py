"""Checks of arguments: tensors, integers, fractions, percentiles, choices."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

#: The largest integer of int64, the dtype in which torch holds indices and labels.
INT64_MAX = 2**63 - 1

Tensors = TypeVar("Tensors", Tensor, tuple[Tensor, ...])


def as_tuple(name: str, value: Any) -> tuple[Tensor, ...]:
    """A tensor or a tuple of tensors as a tuple; TypeError for anything else."""
    tensors = value if isinstance(value, tuple) else (value,)
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        kinds = ", ".join(type(x).__name__ for x in tensors) or "an empty tuple"
        raise TypeError(f"{name}: got {kinds}, want a tensor or a tuple of tensors")
    return tensors


def _check_kind(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"{name}: got {x.dtype}, want floating-point values; turn integer images "
            "into floats, e.g. images / 255"
        )
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(
            f"{name}: got shape {tuple(x.shape)}, want (N, ...) with a batch dimension "
            "and at least one example and feature"
        )


def check_tensors(
    adversarial: Any,
    natural: Any,
    names: tuple[str, str] = ("adversarial", "natural"),
    *,
    share_natural: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Both sides of a pair as tuples of tensors that match each other.

    Args:
        adversarial (Tensor or tuple[Tensor, ...]): The adversarial side.
        natural (Tensor or tuple[Tensor, ...]): The natural side.
        names (tuple[str, str], optional): The names of the two in messages.
            Default: ``("adversarial", "natural")``
        share_natural (bool, optional): Whether one natural example may be shared by all
            adversarial ones. Default: False

    Raises:
        TypeError: Not tensors, or not floating-point tensors.
        ValueError: Different shapes, dtypes, devices or numbers of inputs; no examples;
            NaN or infinite values.
    """
    name, other = names
    xs, x0s = as_tuple(name, adversarial), as_tuple(other, natural)
    if len(xs) != len(x0s):
        raise ValueError(f"{other}: got {len(x0s)} input(s), want {len(xs)} as {name}")
    for i, (x, x0) in enumerate(zip(xs, x0s, strict=True)):
        at = f"[{i}]" if len(xs) > 1 else ""
        _check_kind(f"{name}{at}", x)
        _check_kind(f"{other}{at}", x0)
        if x0.shape != x.shape and not (share_natural and x0.shape == x[:1].shape):
            raise ValueError(
                f"{other}{at}: got shape {tuple(x0.shape)}, want {tuple(x.shape)} as "
                f"{name}{at}"
            )
        for what in ("dtype", "device"):
            if getattr(x, what) != getattr(x0, what):
                raise ValueError(
                    f"{other}{at}: got {what} {getattr(x0, what)}, want "
                    f"{getattr(x, what)} as {name}{at}"
                )
        for which, value in ((name, x), (other, x0)):
            if bad := int((~value.isfinite()).sum()):
                raise ValueError(
                    f"{which}{at}: got {bad} NaN or infinite value(s), want finite ones"
                )
        if len(x) != len(xs[0]):
            raise ValueError(
                f"{name}{at}: got {len(x)} examples, want {len(xs[0])} as {name}[0]"
            )
    return xs, x0s


def check_int(name: str, value: Any, least: int | None = None) -> int:
    """``value`` as an int of Python; it may be of numpy's types, or a tensor ``()``.

    Args:
        name (str): The argument's name, for messages.
        value (Any): The argument.
        least (int, optional): The smallest valid value. None means no bound but that of
            int64. Default: None

    Raises:
        TypeError: It is not an integer; bool is not one.
        ValueError: It is below ``least``, or torch cannot hold it.
    """
    wanted = {None: "an int", 1: "a positive int"}.get(least)
    wanted = wanted or f"an int of {least} or more"
    if isinstance(value, Tensor) and value.dim() == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: got {value!r}, want {wanted}")
    number = int(value)
    if not (-INT64_MAX - 1 if least is None else least) <= number <= INT64_MAX:
        bound = "" if abs(number) <= INT64_MAX else " that int64 holds"
        raise ValueError(f"{name}: got {number}, want {wanted}{bound}")
    return number


def check_optional_int(name: str, value: Any, least: int) -> int | None:
    """None, or ``value`` as :func:`check_int` returns it."""
    return None if value is None else check_int(name, value, least)


def check_integers(
    name: str, values: Tensor, wanted: str = "a tensor of integers"
) -> Tensor:
    """``values`` as int64; TypeError unless they are integers, ValueError for those of
    uint64 that int64 does not hold."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name}: got a tensor of {values.dtype}, want {wanted}")
    held = values.detach().to(torch.int64)
    if values.dtype == torch.uint64 and (held < 0).any():
        got = int(held[held < 0][0]) + 2 * (INT64_MAX + 1)
        raise ValueError(f"{name}: got {got}, want an int that int64 holds")
    return held


def check_fraction(name: str, value: Any) -> float:
    """``value`` as a float; TypeError or ValueError unless it is a number in [0, 1]."""
    return _check_range(name, value, 1)


def check_percentile(name: str, value: Any) -> float:
    """``value`` as a float; TypeError or ValueError unless it is in [0, 100]."""
    return _check_range(name, value, 100)


def _check_range(name: str, value: Any, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {value!r}, want a number from 0 to {most}")
    number = float(value)
    if not 0 <= number <= most:
        raise ValueError(f"{name}: got {value}, want 0 to {most}")
    return number


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ValueError unless ``value`` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, want one of {', '.join(choices)}")
