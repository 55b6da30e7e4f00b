"""How every class of the package runs the user's model: unchanged, and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ForwardFunc = Callable[..., Any]


def require_eval_batch_norm(forward_func: ForwardFunc) -> None:
    """Raises ValueError where a batch norm of the model is in training mode.

    It would mix the examples of a batch, and every pass would move its running
    statistics.
    """
    if not isinstance(forward_func, nn.Module):
        return
    for name, module in forward_func.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"forward_func: got a model whose {name or 'batch norm'} is in "
                "training mode, which changes the model at every pass; want "
                "model.eval() first"
            )


def run_forward(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...],
) -> Tensor:
    """The scores ``(N, C, ...)`` of the N examples in ``inputs``.

    Raises:
        TypeError: The forward function does not return a tensor.
        ValueError: It does not return at least two scores for each example.
    """
    n, shape = len(inputs[0]), tuple(inputs[0].shape)
    try:
        scores = forward_func(*inputs, *additional_forward_args)
    except Exception as error:
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(
                f"forward_func raised this for inputs of shape {shape}; inputs start "
                "with the batch dimension"
            )
        raise
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"forward_func: returned {type(scores).__name__}, want a tensor of scores "
            f"({n}, classes, ...)"
        )
    if scores.dim() < 2 or len(scores) != n or scores.shape[1] < 2:
        raise ValueError(
            f"forward_func: returned shape {tuple(scores.shape)} for inputs of shape "
            f"{shape}, want ({n}, classes, ...): the scores of at "
            "least two classes for each example; inputs start with the batch "
            "dimension"
        )
    return scores
