"""Traces a model's graph with ``torch.fx``."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import fx, nn

from captum_pse._engine.tape import NotTraceableError
from captum_pse._model.compiled import is_compiled, original
from captum_pse._model.hooks import acting_hooks

#: Two traces at once would leave on ``torch.nn.Module`` what each puts there.
_ONE_AT_A_TIME = threading.Lock()


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
    model, tracer = original(model), _Tracer()
    for name, module in model.named_modules():
        # torch.fx would call the hooks of non-leaf modules with proxies.
        is_leaf = bool(name) and tracer.is_leaf_module(module, name)
        if module._backward_hooks or (acting_hooks(module) and not is_leaf):
            raise NotTraceableError(f"{name or 'the model itself'} has hooks")
    with _ONE_AT_A_TIME:
        before = [(module, dict(vars(module))) for module in model.modules()]
        try:
            graph = tracer.trace(model)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise NotTraceableError(
                f"torch.fx cannot trace the model: {type(error).__name__}: {reason}"
            ) from error
        finally:
            constants = _clean(before, tracer)
    if any(str(n.target).startswith("*") for n in graph.nodes if n.op == "placeholder"):
        raise NotTraceableError("the model takes any number of arguments")
    return Traced(model, graph, constants)


def _clean(
    before: Sequence[tuple[nn.Module, Mapping[str, Any]]], tracer: fx.Tracer
) -> dict[str, Any]:
    """Takes from the modules what tracing left on them: constants, which it returns,
    and proxies that the model assigned to attributes.

    What other threads assign meanwhile stays.
    """
    nodes = tracer.graph.nodes if hasattr(tracer, "graph") else ()
    targets = {node.target for node in nodes if node.op == "get_attr"}
    constants = {}
    for module, attributes in before:
        for name, value in list(vars(module).items()):
            if isinstance(value, fx.Proxy):
                vars(module).pop(name)
                if name in attributes:
                    vars(module)[name] = attributes[name]
            elif module is before[0][0] and name in targets and name not in attributes:
                constants[name] = vars(module).pop(name)
    return constants


class _Tracer(fx.Tracer):
    """Follows the model in one thread.

    Torch.fx replaces ``__call__`` and ``__getattr__`` of ``torch.nn.Module`` while it
    traces, in all threads. In any other thread they have to do what they always do.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if original(m) is not m:
            forward = original(m)
        elif is_compiled(m):
            forward = m._call_impl
        return super().call_module(m, forward, args, kwargs)

    def getattr(
        self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Transforms return a proxy as it is, since it is not a tensor.
        is_transform = type(m).__module__.startswith("torchvision.transforms")
        return is_transform or super().is_leaf_module(m, module_qualified_name)


class _Method(NamedTuple):
    """Calls the method with this name."""

    name: str

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, self.name)(*args, **kwargs)
