"""Traces a model's graph with ``torch.fx``."""

from __future__ import annotations

import operator
import warnings
from typing import Any, NamedTuple

from torch import fx, nn

from captum_pse._engine.tape import NotTraceableError


class Traced(NamedTuple):
    """A model with its graph, and the tensors that its forward makes from numbers."""

    model: nn.Module
    graph: fx.Graph
    constants: dict[str, Any]

    def function(self, node: fx.Node) -> Any:
        """What the model calls at a node."""
        name = str(node.target)
        if node.op == "call_module":
            return self.model.get_submodule(name)
        if node.op == "call_method":
            return _Method(name)
        if node.op == "get_attr":
            if name in self.constants:
                return lambda: self.constants[name]
            return lambda: operator.attrgetter(name)(self.model)
        assert callable(node.target)
        return node.target


def trace(model: nn.Module) -> Traced:
    """Traces the model.

    Raises:
        NotTraceableError: torch.fx cannot follow the model.
    """
    tracer = _Tracer()
    for name, module in model.named_modules():
        # torch.fx would call the hooks of non-leaf modules with proxies.
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
    return Traced(model, graph, constants)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Transforms return a proxy as it is, since it is not a tensor.
        is_transform = type(m).__module__.startswith("torchvision.transforms")
        return is_transform or super().is_leaf_module(m, module_qualified_name)


class _Method(NamedTuple):
    """Calls the method with this name."""

    name: str

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, self.name)(*args, **kwargs)
