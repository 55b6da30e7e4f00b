"""The digest of a model: of its weights, and of what its state does not hold."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import nn

from captum_pse._io.digest import digest


def module_digest(model: nn.Module) -> str:
    """The digest of a model, which does not depend on its device.

    It covers the state and all other buffers; and of each module its name, class,
    source, mode, and plain attributes, such as a stride or the mean of a normalisation.
    It cannot see code and values elsewhere; digests of what the model computes can.
    """
    state = model.state_dict()
    tensors = {**dict(model.named_buffers()), **state}
    return digest(
        {name: _readable(value) for name, value in tensors.items()},
        {name: _description(module) for name, module in model.named_modules()},
    )


def _description(module: nn.Module) -> list[Any]:
    kind: Any = type(module)
    own = vars(module).keys() - vars(nn.Module()).keys()
    attributes = {
        name: _readable(vars(module)[name])
        for name in own
        if not name.startswith("_torchdynamo")  # addresses, of torch.compile
    }
    name = f"{kind.__module__}.{kind.__qualname__}"
    return [name, _source(kind), module.training, attributes]


def _readable(value: Any) -> str:
    """The digest of a value; the name of its type, or its own, if it has none."""
    try:
        return digest(value)
    except (TypeError, RecursionError):
        return str(getattr(value, "__qualname__", type(value).__qualname__))


@cache
def _source(kind: Any) -> str:
    """The source of a class; none of torch's, which has a version."""
    if kind.__module__.startswith("torch."):
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # a class made by code, or in an interpreter
        return ""
