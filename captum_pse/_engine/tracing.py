"""A model's graph, by torch.fx."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from torch import fx, nn

from captum_pse._engine.tape import (
    NotTraceableError,
)


class Traced(NamedTuple):
    """A model's graph, and the tensors that its forward makes out of numbers."""

    graph: fx.Graph
    constants: dict[str, Any]


def trace(model: nn.Module) -> Traced:
    """The model's graph.

    Raises:
        NotTraceableError: torch.fx cannot follow the model.
    """
    tracer = _Tracer()
    for name, module in model.named_modules():
        # Hooks of what is traced into would be called with stand-ins for tensors.
        hooked = module._forward_hooks or module._forward_pre_hooks
        is_leaf = bool(name) and tracer.is_leaf_module(module, name)
        if module._backward_hooks or (hooked and not is_leaf):
            raise NotTraceableError(f"{name or 'the model itself'} has hooks")
    before = set(vars(model))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tracer.trace(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise NotTraceableError(
            f"torch.fx cannot trace the model: {type(error).__name__}: {reason}"
        ) from error
    finally:
        # torch.fx leaves them on the model.
        new = set(vars(model)) - before
        constants = {name: vars(model).pop(name) for name in new}
    if any(str(n.target).startswith("*") for n in graph.nodes if n.op == "placeholder"):
        raise NotTraceableError("the model takes any number of arguments")
    return Traced(graph, constants)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Transforms let pass what is no tensor, such as a proxy.
        is_transform = type(m).__module__.startswith("torchvision.transforms")
        return is_transform or super().is_leaf_module(m, module_qualified_name)
