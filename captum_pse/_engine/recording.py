"""Records one pass of a model onto a tape.

``torch.fx`` gives the graph. Running it once on one example gives the ATen operations
of each node. So a convolution is the same to the rest of the engine, whether the model
calls a module, a function or a method. A node whose operations are independent of the
batch size becomes one step for each operation. Any other node becomes one step as a
whole, which calls what the model calls.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from captum_pse._engine.listening import Listener, share_memory
from captum_pse._engine.ops.registry import rule_of
from captum_pse._engine.recorded_values import RecordedValues
from captum_pse._engine.tape import (
    NodeStep,
    NotTraceableError,
    OpStep,
    Step,
    Tape,
    refs,
    without_unused,
)
from captum_pse._engine.tracing import Traced
from captum_pse._model.hooks import acting_hooks


def record(traced: Traced, args: tuple[Any, ...], *, keep_all: bool = False) -> Tape:
    """Runs the graph on one example.

    Args:
        traced (Traced): The traced model.
        args (tuple): Its arguments; tensors have one example. The model may write into
            them.
        keep_all (bool, optional): Whether to keep all values. Otherwise, values that no
            window needs are empty, on the device ``meta``. Default: False

    Raises:
        NotTraceableError: The model writes where the tape cannot follow.
    """
    return _Recorder(traced, keep_all).run(args)


class _Recorder:
    """Runs a graph node by node, and records the tape."""

    def __init__(self, traced: Traced, keep_all: bool) -> None:
        self.traced, self.keep_all = traced, keep_all
        self.nodes = list(traced.graph.nodes)
        self.last_use = {arg: n for n in self.nodes for arg in n.all_input_nodes}
        self.values = RecordedValues()
        self.tape = Tape(values=self.values.of)
        self.readers: dict[int, list[Step]] = defaultdict(list)
        #: What each node returned, and the same with numbers.
        self.found: dict[fx.Node, Any] = {}
        self.names: dict[fx.Node, Any] = {}

    def run(self, args: tuple[Any, ...]) -> Tape:
        given, names = iter(args), self.names
        for node in self.nodes:
            if node.op == "placeholder":
                # An argument that the caller omits has the default of the signature.
                value = self.found[node] = next(given, *node.args)
                is_tensor = isinstance(value, Tensor)
                names[node] = self.values.add(value) if is_tensor else value
                self.tape.inputs += refs(names[node])
            elif node.op == "output":
                self.tape.output = fx.node.map_arg(node.args[0], self.name_of)
                break
            else:
                names[node] = self.step(node)
            for arg in node.all_input_nodes:
                if self.last_use[arg] is node:
                    numbers = set(refs(self.name_of(arg)))
                    del self.found[arg]
                    if not self.keep_all:
                        self.release(numbers)
        return without_unused(self.tape)

    def name_of(self, node: fx.Node) -> Any:
        """What a node returned, by number: the newest, if it was written into since."""
        found = self.found[node]
        has_tensors = any(isinstance(x, Tensor) for x in tree_leaves(found))
        return self.values.known(found) if has_tensors else self.names[node]

    def release(self, numbers: set[int]) -> None:
        """Frees values read only by element-wise steps: those never need the
        unperturbed map.

        Large networks have many such values, before batch norms and activations.
        """
        live = {i for node in self.found for i in refs(self.name_of(node))}
        for number in numbers - live:
            if isinstance(self.values.of[number], Tensor) and all(
                rule_of(step).per_position(step, self.values.of)
                for step in self.readers[number]
            ):
                self.values.empty(number)

    def step(self, node: fx.Node) -> Any:
        """Runs a node, and records it; returns its result by number."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.name_of)
        values, named = fx.node.map_arg(
            (node.args, node.kwargs), self.found.__getitem__
        )
        func = self.traced.function(node)
        heard = Listener(
            node.name,
            self.values,
            is_read=lambda number: bool(self.readers.get(number)),
            check_write=lambda x: self.check_write(node, x),
        )
        with heard:
            returned = self.found[node] = func(*values, **named)
        known = self.values.known(returned)
        whole = NodeStep(node.name, func, tuple(args), kwargs, known)
        if not whole.inputs:
            return returned
        linear = as_linear(whole)
        operations = None if linear is not None else as_operations(whole, heard)
        if operations is not None:
            for operation in operations:
                self.put(operation)
            return known
        if heard.overwrites:
            raise NotTraceableError(f"{node.name} writes into a value of the model")
        for number in heard.added:
            self.values.drop(number)
        if any(isinstance(x, Tensor) for x in tree_leaves(returned)):
            result = self.values.add_tensors(returned)
        else:
            result = self.values.add(returned)
        self.put(replace(linear or whole, result=result))
        return result

    def put(self, step: Step) -> None:
        """Puts a step on the tape."""
        for number in step.reads:
            self.readers[number].append(step)
        self.tape.steps.append(step)

    def check_write(self, node: fx.Node, x: Tensor) -> None:
        """Raises NotTraceableError if a later node reads another view of ``x``."""
        later = [v for n, v in self.found.items() if self.last_use.get(n) is not node]
        if any(
            other is not x and share_memory(other, x) for other in tree_leaves(later)
        ):
            raise NotTraceableError(f"{node.name} writes into a view")


def as_operations(whole: NodeStep, heard: Listener) -> list[OpStep] | None:
    """The operations of a node as steps; None if it has to be a step as a whole."""
    if not whole.outputs or any(isinstance(x, Tensor) for x in whole.results):
        return None
    values = heard.values.of
    if all(rule_of(step).per_example(step, values) for step in heard.steps):
        return heard.steps
    if len(heard.steps) == 1:
        (only,) = heard.steps
        if only.results == whole.results:
            return [replace(only, node=whole)]
    return None


def as_linear(whole: NodeStep) -> OpStep | None:
    """A linear layer, which ATen records as reshapes and a matrix product."""
    args, func = whole.args, whole.func
    if type(func) is nn.Linear and not acting_hooks(func):
        args = (*args, func.weight, func.bias)
    elif func is not F.linear:
        return None
    if whole.kwargs or len(args) != 3:
        return None
    return OpStep(whole.name, F.linear, args, {}, None)
