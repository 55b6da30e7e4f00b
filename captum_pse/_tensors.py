"""The tensors of a pair, checked to belong together."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor

Tensors = TypeVar("Tensors", Tensor, tuple[Tensor, ...])


def as_tuple(name: str, value: Any) -> tuple[Tensor, ...]:
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
    """Both sides of a pair as tuples of tensors that belong together.

    Args:
        adversarial (Tensor or tuple[Tensor, ...]): The one side of the pair.
        natural (Tensor or tuple[Tensor, ...]): The other.
        names (tuple[str, str], optional): What messages call the two.
        share_natural (bool, optional): Whether one natural example may stand against
            many adversarial ones. Default: False

    Raises:
        TypeError: Not tensors, or not of floating-point numbers.
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
