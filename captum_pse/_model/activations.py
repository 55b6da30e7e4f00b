"""Reads the outputs of a model's layers by forward hooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._model.forward import ForwardFunc, first_scores
from captum_pse._model.hooks import forward_hooks


def scores_and_activations(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...] = (),
    *,
    differentiable: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The scores of a batch and the output of each layer, from one forward pass.

    With ``differentiable``, the autograd graph starts at the first of the layers that
    runs. Nothing before that layer is stored. Frozen parameters and the caller's
    ``no_grad`` make no difference. The hooks exist only during this call and act only
    in this thread, so several threads can share one model.

    Args:
        forward_func (Callable): The model, or a function around it.
        layers (sequence of nn.Module): Layers that run once in a pass and return one
            tensor.
        inputs (tuple[Tensor, ...]): The batch. It is not modified.
        additional_forward_args (tuple, optional): Arguments after the inputs.
            Default: ()
        differentiable (bool): Whether the caller takes gradients of the scores with
            respect to the activations.

    Returns:
        *tuple*: Scores ``(N, C, ...)``, and one activation for each layer.

    Raises:
        TypeError: A layer does not return one tensor of floating-point values.
        ValueError: A layer does not run, or runs several times. Also as
            :func:`captum_pse._model.forward.first_scores`.
    """
    outputs: dict[int, list[Any]] = {i: [] for i in range(len(layers))}

    def hook(i: int) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                outputs[i].append(output)
                return None
            if not differentiable:
                # Copied, since an in-place operation may follow.
                outputs[i].append(output.clone())
                return None
            if not torch.is_grad_enabled():
                output = output.detach().requires_grad_()
                torch.set_grad_enabled(True)
            outputs[i].append(output)
            return output.clone()

        return keep

    hooks = [(layer, hook(i)) for i, layer in enumerate(layers)]
    # The hook of the first layer enables gradients. Leaving the block restores the
    # caller's mode.
    with forward_hooks(forward_func, hooks), torch.no_grad():
        scores = first_scores(forward_func, inputs, additional_forward_args)
    for layer, got in zip(layers, outputs.values(), strict=True):
        kind = type(layer).__name__
        if len(got) != 1:
            raise ValueError(
                f"layer: this {kind} ran {len(got)} times in a pass, want a layer that "
                "runs once"
            )
        if not isinstance(got[0], Tensor):
            raise TypeError(
                f"layer: this {kind} returned {type(got[0]).__name__}, want one tensor"
            )
        if not got[0].is_floating_point():
            # Differences of unsigned integers wrap around.
            raise TypeError(
                f"layer: this {kind} returned {got[0].dtype}, want floating-point "
                "values"
            )
    return scores, [got[0] for got in outputs.values()]


class _EnoughError(BaseException):
    """All wanted layers have run."""


class ActivationReader:
    """Reads the output of each layer; a pass stops once all layers have run.

    An output is copied only if the model overwrites it later in the pass. The first
    pass detects this.

    Args:
        forward_func (Callable): The model, or a function around it.
        layers (sequence of nn.Module): Layers that :func:`scores_and_activations`
            accepted before.
    """

    def __init__(self, forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> None:
        self._forward_func = forward_func
        self._layers = layers
        self._overwritten: set[int] = set()

    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        outputs: dict[int, Tensor] = {}
        versions: dict[int, int] = {}

        def hook(i: int) -> Any:
            def keep(module: nn.Module, args: Any, output: Tensor) -> None:
                # Inference tensors have no version counter that detects a write.
                unversioned = output.is_inference()
                copied = unversioned or i in self._overwritten
                outputs[i] = output.clone() if copied else output
                versions[i] = 0 if unversioned else outputs[i]._version
                if len(outputs) == len(self._layers):
                    raise _EnoughError

            return keep

        hooks = [(layer, hook(i)) for i, layer in enumerate(self._layers)]
        with forward_hooks(self._forward_func, hooks), suppress(_EnoughError):
            first_scores(self._forward_func, inputs)
        idle = [
            type(x).__name__ for i, x in enumerate(self._layers) if i not in outputs
        ]
        if idle:
            raise ValueError(
                f"layer: this {idle[0]} did not run in a pass, want a layer that runs "
                "once"
            )
        changed = {
            i
            for i, x in outputs.items()
            if not x.is_inference() and x._version != versions[i]
        }
        if changed:
            self._overwritten |= changed
            return self(inputs)
        return [outputs[i] for i in range(len(self._layers))]
