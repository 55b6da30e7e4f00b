"""Runs the user's model and checks what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from captum_pse._model.normalized import named_layers

ForwardFunc = Callable[..., Any]


def forward_args(additional_forward_args: Any) -> tuple[Any, ...]:
    """Captum's ``additional_forward_args`` as a tuple, empty for None."""
    return _format_additional_forward_args(additional_forward_args) or ()


def require_eval_batch_norm(forward_func: ForwardFunc) -> None:
    """Raises ValueError if a batch norm of the model is in training mode.

    Its output would depend on the other examples of the batch, and every pass would
    update its running statistics.
    """
    for name, module in named_layers(forward_func).items():
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"forward_func: got a model whose {name or 'batch norm'} is in "
                "training mode, which changes the model at every pass; want "
                "model.eval() first"
            )


def first_scores(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...] = (),
) -> Tensor:
    """The scores of the user's inputs, which are not modified.

    Inputs and scores are copied: a model may overwrite its inputs, or return the same
    buffer at every call.

    Raises:
        TypeError, ValueError: As :func:`run_forward`, or the model does not accept the
            inputs.
    """
    require_eval_batch_norm(forward_func)
    copies = tuple(x.clone() for x in inputs)
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    try:
        returned = forward_func(*copies, *additional_forward_args)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"forward_func: raised {type(error).__name__} ({error}) for inputs of "
            f"shape {shapes}; want a model that accepts them; inputs start with "
            "the batch dimension"
        ) from error
    return check_scores(returned, inputs).clone()


def run_forward(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...] = (),
) -> Tensor:
    """The scores ``(N, C, ...)`` of inputs that the model may overwrite.

    Raises:
        TypeError: The forward function does not return a tensor.
        ValueError: It does not return at least two scores for each example.
    """
    return check_scores(forward_func(*inputs, *additional_forward_args), inputs)


def check_scores(returned: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    """The scores as returned for ``inputs``; raises as :func:`run_forward`."""
    n = len(inputs[0])
    if not isinstance(returned, Tensor):
        raise TypeError(
            f"forward_func: returned {type(returned).__name__}, want a tensor of "
            f"scores ({n}, classes, ...)"
        )
    if returned.dim() < 2 or len(returned) != n or returned.shape[1] < 2:
        raise ValueError(
            f"forward_func: returned shape {tuple(returned.shape)} for inputs of shape "
            f"{tuple(inputs[0].shape)}, want ({n}, classes, ...): the scores of at "
            "least two classes for each example; inputs start with the batch dimension"
        )
    return returned
