"""Activations of a model's layers, and what is needed to differentiate by them."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_pse._forward import ForwardFunc, first_scores

Layer: TypeAlias = nn.Module | str


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """The layer itself, checked to be one of the model's where that can be seen.

    Args:
        forward_func (Callable): The model, or a function around it.
        layer (nn.Module or str): The layer, or its name in a model.

    Raises:
        TypeError: ``layer`` is neither a module nor a name.
        ValueError: It is not in the model, or a name is given without a model.
    """
    if not isinstance(layer, (str, nn.Module)):
        raise TypeError(f"layer: got {type(layer).__name__}, want a module or its name")
    if not isinstance(forward_func, nn.Module):
        if isinstance(layer, str):
            raise ValueError(
                f"layer: got the name {layer!r}, but forward_func is no "
                "torch.nn.Module; want the module itself"
            )
        return layer
    modules = dict(forward_func.named_modules())
    if isinstance(layer, str):
        if layer not in modules:
            close = difflib.get_close_matches(layer, modules, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(f"layer: the model has no {layer!r}{hint}")
        return modules[layer]
    if not any(layer is module for module in modules.values()):
        raise ValueError(
            f"layer: got a {type(layer).__name__} that is not in the model"
        )
    return layer


def find_layers(
    forward_func: ForwardFunc, layer: Layer | Sequence[Layer]
) -> tuple[list[nn.Module], bool]:
    """The layers, and whether several were asked for rather than one.

    Raises:
        TypeError, ValueError: As :func:`find_layer`, or the sequence is empty.
    """
    # A Sequential is a layer, not a sequence of layers.
    if not isinstance(layer, Sequence) or isinstance(layer, str):
        return [find_layer(forward_func, layer)], False
    if not layer:
        raise ValueError("layer: got an empty sequence, want at least one layer")
    return [find_layer(forward_func, item) for item in layer], True


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """Its name in the model, or its kind where it has none."""
    if isinstance(forward_func, nn.Module):
        for name, module in forward_func.named_modules():
            if module is layer and name:
                return name
    return type(layer).__name__


def layer_names(forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> list[str]:
    """A name for each layer; kinds that stand for several are numbered."""
    names: list[str] = []
    for layer in layers:
        name = layer_name(forward_func, layer)
        again = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{again + 1}" if again else name)
    return names


def check_channel_dim(channel_dim: int, name: str, output: Tensor) -> None:
    """Raises ValueError unless that dimension can count the units of a layer's output,
    and is not the first one, the batch."""
    n = output.dim()
    if not -n < channel_dim < n or channel_dim == 0:
        raise ValueError(
            f"channel_dim: got {channel_dim}, but {name} has an output of shape "
            f"{tuple(output.shape)}"
        )


def scores_and_activations(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    additional_forward_args: tuple[Any, ...] = (),
    *,
    differentiable: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The scores of a batch, and the output of each layer, in one pass.

    With ``differentiable``, the graph of the scores begins at the first of the layers
    that runs: nothing below it is kept, and neither frozen parameters nor the caller's
    ``no_grad`` matter. Hooks live for this call alone, and act in this thread alone, so
    that several threads can use one model.

    Args:
        forward_func (Callable): The model, or a function around it.
        layers (sequence of nn.Module): Layers that run once in a pass and return one
            tensor.
        inputs (tuple[Tensor, ...]): The batch; stays as it is.
        additional_forward_args (tuple, optional): What follows the inputs. Default: ()
        differentiable (bool): Whether ``torch.autograd.grad`` of the scores by the
            activations is wanted.

    Returns:
        *tuple*: Scores ``(N, C, ...)``, and an activation for each layer.

    Raises:
        TypeError: A layer does not return one tensor.
        ValueError: A layer does not run, or runs several times; or as
            :func:`captum_pse._forward.first_scores`.
    """
    thread = threading.get_ident()
    outputs: dict[int, list[Any]] = {i: [] for i in range(len(layers))}

    def hook(i: int) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            if not isinstance(output, Tensor):
                outputs[i].append(output)
                return None
            if not differentiable:
                # A copy: an in-place operation may follow.
                outputs[i].append(output.clone())
                return None
            if not torch.is_grad_enabled():
                output = output.detach().requires_grad_()
                torch.set_grad_enabled(True)
            outputs[i].append(output)
            return output.clone()

        return keep

    handles = []
    try:
        for i, layer in enumerate(layers):
            handles.append(layer.register_forward_hook(hook(i)))
        # The hook of the first layer turns gradients on; leaving the block turns them
        # back to what the caller had.
        with torch.no_grad():
            scores = first_scores(forward_func, inputs, additional_forward_args)
    finally:
        for handle in handles:
            handle.remove()
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
    return scores, [got[0] for got in outputs.values()]


class _EnoughError(BaseException):
    """All wanted layers have run."""


class ActivationReader:
    """Gives the output of each layer, in passes that end when the last of them has run.

    An output is copied only where the model writes into it later, which the first pass
    finds out.

    Args:
        forward_func (Callable): The model, or a function around it.
        layers (sequence of nn.Module): Layers that :func:`scores_and_activations` was
            seen to take.
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
        thread = threading.get_ident()

        def hook(i: int) -> Any:
            def keep(module: nn.Module, args: Any, output: Tensor) -> None:
                if threading.get_ident() != thread:
                    return
                # Tensors of inference mode do not tell whether they were written into.
                silent = output.is_inference()
                copied = silent or i in self._overwritten
                outputs[i] = output.clone() if copied else output
                versions[i] = 0 if silent else outputs[i]._version
                if len(outputs) == len(self._layers):
                    raise _EnoughError

            return keep

        handles = []
        try:
            for i, layer in enumerate(self._layers):
                handles.append(layer.register_forward_hook(hook(i)))
            first_scores(self._forward_func, inputs)
        except _EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
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


def last_spatial_layer(forward_func: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """The name of the layer that gives out the last map of more than one position.

    That is the usual place for class activation maps: what a global pool then averages.
    Layers that run several times in a pass do not count.

    Raises:
        ValueError: No layer has such an output.
    """
    finished: list[str] = []
    spatial: set[str] = set()

    def hook(name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            finished.append(name)
            if isinstance(output, Tensor) and output.shape[2:].numel() > 1:
                spatial.add(name)

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in forward_func.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            first_scores(forward_func, inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name in reversed(finished):
        if name in spatial and finished.count(name) == 1:
            return name
    raise ValueError("layer: the model has no layer with a spatial output, name one")
