"""Finds and names the layers of a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_pse._model.compiled import original, original_name
from captum_pse._model.forward import ForwardFunc, first_scores
from captum_pse._model.hooks import forward_hooks
from captum_pse._model.normalized import named_layers

Layer: TypeAlias = nn.Module | str


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """The layer as a module; if the model is a module, a layer of that model.

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
                f"layer: got the name {layer!r}, but forward_func is not a "
                "torch.nn.Module; want the module itself"
            )
        return original(layer)
    modules = named_layers(forward_func)
    if isinstance(layer, str):
        layer = original_name(layer)
        if layer not in modules:
            close = difflib.get_close_matches(layer, modules, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(f"layer: the model has no {layer!r}{hint}")
        return modules[layer]
    if not any(layer is module for module in forward_func.modules()):
        raise ValueError(
            f"layer: got a {type(layer).__name__} that is not in the model"
        )
    return original(layer)


def find_layers(
    forward_func: ForwardFunc, layer: Layer | Sequence[Layer]
) -> tuple[list[nn.Module], bool]:
    """The layers, and whether ``layer`` was a sequence rather than one layer.

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
    """The layer's name in the model, or its class name if it has none."""
    for name, module in named_layers(forward_func).items():
        if module is layer and name:
            return name
    return type(layer).__name__


def layer_names(forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> list[str]:
    """A name for each layer; repeated class names are numbered."""
    names: list[str] = []
    for layer in layers:
        name = layer_name(forward_func, layer)
        repeats = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{repeats + 1}" if repeats else name)
    return names


def last_spatial_layer(forward_func: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """The name of the last layer whose output map has more than one position.

    This is the usual layer for class activation maps: the input of the global average
    pool. Layers that run several times in a pass are ignored.

    Raises:
        ValueError: No layer has such an output.
    """
    finished: list[str] = []
    spatial: set[str] = set()

    def hook(name: str) -> Any:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            finished.append(name)
            if isinstance(output, Tensor) and output.shape[2:].numel() > 1:
                spatial.add(name)

        return record

    hooks = [
        (module, hook(name))
        for name, module in named_layers(forward_func).items()
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    with forward_hooks(forward_func, hooks), torch.no_grad():
        first_scores(forward_func, inputs)
    for name in reversed(finished):
        if name in spatial and finished.count(name) == 1:
            return name
    raise ValueError(
        "layer: the model has no layer with a spatial output that takes hooks, as "
        "TorchScript does not; name one"
    )
