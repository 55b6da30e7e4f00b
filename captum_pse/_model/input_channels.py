"""Which dimension of an input of the model holds its channels or features."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_pse._model.axes import UnitAxes
from captum_pse._model.checks import check_int


def check_input_channel_dim(value: Any) -> int | None:
    """The argument ``input_channel_dim`` of a method, checked.

    Raises:
        TypeError, ValueError: It is neither None nor the number of a dimension.
    """
    if value is None:
        return None
    if (dim := check_int("input_channel_dim", value)) == 0:
        raise ValueError("input_channel_dim: got 0, the batch, want another dimension")
    return dim


def input_channels(x: Tensor, given: int | None, axes: UnitAxes | None) -> int | None:
    """The dimension of an input's channels; the others are the batch and positions.

    It is the given one; else that which all layers take as channels that take the
    input; else dimension 1, but for inputs ``(N, A, B)`` and for those that look like
    images ``(N, H, W, C)``.

    Args:
        x (Tensor): The input, ``(N, ...)``.
        given (int, optional): The argument of the method.
        axes (UnitAxes, optional): A pass of the model on the input.

    Returns:
        *int, optional*: At least 1; None if it cannot be told.

    Raises:
        ValueError: The input lacks the given dimension.
    """
    if given is not None:
        if not -x.dim() < given < x.dim():
            raise ValueError(
                f"input_channel_dim: got {given}, but the input has shape "
                f"{tuple(x.shape)}"
            )
        return given % x.dim()
    found = None if axes is None else axes.of_input()
    looks_last = x.dim() > 3 and x.shape[-1] in (1, 3, 4) and x.shape[1] > 4
    return found or (None if x.dim() == 3 or looks_last else 1)


def asked_for(x: Tensor) -> ValueError:
    """The error for an input of which :func:`input_channels` cannot be told."""
    return ValueError(
        f"input_channel_dim: got None for inputs of shape {tuple(x.shape)}, want 1 for "
        "(N, C, ...), -1 for (N, ..., C)"
    )
