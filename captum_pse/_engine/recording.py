"""Traces a model and writes one pass of it onto a tape.

``torch.fx`` gives the graph; running it once on one example gives what each node does
to tensors, as ATen operations. So a convolution is one thing to the rest of the engine,
whether the model calls a module, a function or a method. A node whose operations say
nothing of the batch's size is taken apart into them; any other node is a step as a
whole, which calls what the model calls.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from captum_pse._engine.tape import (
    BATCH_NORMS,
    NotTraceableError,
    Ref,
    Step,
    Tape,
    leaves,
    refs,
    without_unused,
)
from captum_pse._engine.tracing import Traced

_aten = torch.ops.aten

#: Operations that never mix examples, beside the element-wise ones.
_PER_EXAMPLE = {
    *BATCH_NORMS,
    _aten.convolution.default,
    _aten.max_pool2d_with_indices.default,
    _aten.avg_pool2d.default,
    _aten._adaptive_avg_pool2d.default,
    _aten.hardswish_.default,
    _aten.hardswish.default,
    _aten._to_copy.default,
}
#: Those whose second argument must not be the batch's dimension.
_ALONG = {_aten.mean.dim, _aten.cat.default, _aten._softmax.default}
#: What gives its argument again, as far as a later step can see.
_SILENT = {_aten.as_strided_.default, _aten.detach.default, _aten.alias.default}


def record(
    model: nn.Module, traced: Traced, args: tuple[Any, ...], *, keep_all: bool = False
) -> Tape:
    """Runs the graph on one example.

    Args:
        model (nn.Module): The model.
        traced (Traced): Of :func:`trace`.
        args (tuple): Its arguments; tensors have one example, and may be written to.
        keep_all (bool, optional): Whether to keep values that no window is pasted on;
            else they are empty, on the device ``meta``. Default: False

    Raises:
        NotTraceableError: The model writes where the tape cannot follow.
    """
    return _Recorder(model, traced, keep_all).run(args)


class _Recorder:
    """Runs a graph node by node, and writes the tape."""

    def __init__(self, model: nn.Module, traced: Traced, keep_all: bool) -> None:
        self.model, self.keep_all = model, keep_all
        self.nodes, self.constants = list(traced.graph.nodes), traced.constants
        self.tape = Tape()
        self.readers: dict[int, list[Step]] = defaultdict(list)
        self.count = itertools.count()
        self.numbers: dict[int, int] = {}
        #: No tensor that has a number may die, since another could get its id.
        self.alive: dict[int, Tensor] = {}
        self.names: dict[fx.Node, Any] = {}
        self.found: dict[fx.Node, Any] = {}
        self.last_use = {arg: n for n in self.nodes for arg in n.all_input_nodes}

    def run(self, args: tuple[Any, ...]) -> Tape:
        given, names = iter(args), self.names
        for node in self.nodes:
            if node.op == "placeholder":
                # What the caller leaves out has the default of the signature.
                value = next(given, *node.args)
                self.found[node] = value
                names[node] = self.named(value) if isinstance(value, Tensor) else value
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

    def named(self, value: Any) -> Ref:
        """A new number for a value."""
        number = next(self.count)
        self.tape.values[number] = value
        if isinstance(value, Tensor):
            self.call(value, number)
        return Ref(number)

    def call(self, x: Tensor, number: int) -> None:
        """Notes that a tensor is the value of that number from here on."""
        self.numbers[id(x)], self.alive[id(x)] = number, x

    def name_of(self, node: fx.Node) -> Any:
        """What a node gave, by number; of what was written into since, the new one."""
        found = self.found[node]
        has_tensors = any(isinstance(x, Tensor) for x in tree_leaves(found))
        return self.known(found) if has_tensors else self.names[node]

    def release(self, numbers: set[int]) -> None:
        """Frees values, all of whose readers see a changed place where it changed.

        Such readers take no part of the example's own map; large networks are full of
        them, before batch norms and activations.
        """
        live = {i for node in self.found for i in refs(self.name_of(node))}
        for number in numbers - live:
            value = self.tape.values[number]
            if isinstance(value, Tensor) and all(
                _is_place_by_place(step) for step in self.readers[number]
            ):
                self.tape.values[number] = torch.empty_like(value, device="meta")
                self.forget(value, number)

    def forget(self, x: Any, number: int) -> None:
        """Lets a tensor die, if it is the value of that number still."""
        if self.numbers.get(id(x)) == number:
            del self.numbers[id(x)], self.alive[id(x)]

    def known(self, tree: Any) -> Any:
        """The structure with numbers in the place of tensors that have one."""
        return tree_map(
            lambda x: Ref(self.numbers[id(x)]) if id(x) in self.numbers else x, tree
        )

    def step(self, node: fx.Node) -> Any:
        """Runs a node; gives the names of what it returns."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.name_of)
        values, named = fx.node.map_arg(
            (node.args, node.kwargs), self.found.__getitem__
        )
        func = self.function(node)
        whole = Step(node.name, func, tuple(args), kwargs, None, is_call=False)
        with _Listener(self, node) as heard:
            returned = self.found[node] = func(*values, **named)
        if not whole.inputs:
            return returned
        tensors = [x for x in tree_leaves(returned) if isinstance(x, Tensor)]
        are_known = bool(tensors) and all(id(x) in self.numbers for x in tensors)
        linear = self.linear(node, func, args, kwargs)
        if linear is None and are_known:
            if all(_is_per_example(call, self.tape.values) for call in heard.calls):
                for call in heard.calls:
                    self.put(call)
                return self.known(returned)
            if len(heard.calls) == 1:
                (call,) = heard.calls
                if leaves(call.result) == leaves(self.known(returned)):
                    self.put(replace(call, opaque=whole))
                    return self.known(returned)
        if heard.overwritten:
            raise NotTraceableError(f"{node.name} writes into a value of the model")
        for number in heard.numbered:
            self.forget(self.tape.values.pop(number), number)
        if tensors:
            result = tree_map(
                lambda x: self.named(x) if isinstance(x, Tensor) else x, returned
            )
        else:
            result = self.named(returned)
        step = replace(linear or whole, result=result)
        self.put(step)
        return result

    def put(self, step: Step) -> None:
        """Puts a step on the tape."""
        opaque = () if step.opaque is None else step.opaque.inputs
        for number in {*step.inputs, *opaque}:
            self.readers[number].append(step)
        self.tape.steps.append(step)

    def linear(
        self, node: fx.Node, func: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Step | None:
        """A linear layer on the last dimension, which ATen writes as a matrix."""
        if type(func) is nn.Linear and not (
            func._forward_hooks or func._forward_pre_hooks
        ):
            args = (*args, func.weight, func.bias)
        elif func is not F.linear:
            return None
        if kwargs or len(args) != 3:
            return None
        return Step(node.name, F.linear, tuple(args), {}, None, is_call=True)

    def function(self, node: fx.Node) -> Any:
        if node.op == "call_module":
            return self.model.get_submodule(str(node.target))
        if node.op == "get_attr":
            name = str(node.target)
            if name in self.constants:
                return lambda: self.constants[name]
            return lambda: operator.attrgetter(name)(self.model)
        if node.op == "call_method":
            return _Method(str(node.target))
        assert callable(node.target)
        return node.target

    def check_overwriting(self, node: fx.Node, x: Tensor) -> None:
        """Raises NotTraceableError where another value shares the memory of ``x``."""
        memory = x.untyped_storage().data_ptr()
        later = (v for n, v in self.found.items() if self.last_use.get(n) is not node)
        for other in tree_leaves(list(later)):
            if (
                isinstance(other, Tensor)
                and other is not x
                and other.untyped_storage().data_ptr() == memory
            ):
                raise NotTraceableError(f"{node.name} writes into a view")


class _Listener(TorchDispatchMode):
    """Writes down the operations of one node as steps.

    Attributes:
        calls (list[Step]): Those that take a value of the tape.
        numbered (list[int]): The values that they give.
        overwritten (bool): Whether they write into an older value.
    """

    def __init__(self, recorder: _Recorder, node: fx.Node) -> None:
        super().__init__()
        self.recorder, self.node = recorder, node
        self.calls: list[Step] = []
        self.numbered: list[int] = []
        self.used: set[int] = set()
        self.overwritten = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder, name = self.recorder, self.node.name
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotTraceableError(f"{name} draws random numbers")
        known_args, known_kwargs = recorder.known((args, kwargs))
        used = set(refs((known_args, known_kwargs)))
        if not used:
            return func(*args, **kwargs)
        if func in _SILENT:
            returned = func(*args, **kwargs)
            recorder.call(returned, recorder.numbers[id(args[0])])
            return returned
        for i, place in enumerate(func._schema.arguments):
            if place.alias_info is not None and place.alias_info.is_write:
                if i > 0:
                    raise NotTraceableError(f"{name} writes into an argument")
                self.overwrite(args[0], used)
        returned = func(*args, **kwargs)
        if not any(isinstance(x, Tensor) for x in tree_leaves(returned)):
            raise NotTraceableError(f"{name} depends on the values of a tensor")
        result = tree_map(
            lambda x: recorder.named(x) if isinstance(x, Tensor) else x, returned
        )
        self.numbered += refs(result)
        self.used |= used
        self.calls.append(
            Step(name, func, known_args, known_kwargs, result, is_call=True)
        )
        return returned

    def overwrite(self, x: Tensor, used: set[int]) -> None:
        """Keeps the old value of a tensor that is written into, if it is wanted."""
        recorder = self.recorder
        number = recorder.numbers.get(id(x))
        if number is None:
            raise NotTraceableError(f"{self.node.name} writes into the model")
        recorder.check_overwriting(self.node, x)
        if number not in self.numbered:
            self.overwritten = True
        memory = x.untyped_storage().data_ptr()
        for other, value in recorder.tape.values.items():
            if (
                isinstance(value, Tensor)
                and value is not x
                and not value.is_meta
                and value.untyped_storage().data_ptr() == memory
            ):
                # A view of the same memory, which may be read beside windows.
                recorder.tape.values[other] = value.clone()
        if len(used) > 1 or number in self.used or recorder.readers.get(number):
            recorder.tape.values[number] = x.clone()


class _Method(NamedTuple):
    """Calls the method of that name."""

    name: str

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, self.name)(*args, **kwargs)


def _is_per_example(call: Step, values: Mapping[int, Any]) -> bool:
    """Whether the call is right for a batch of any size, since it says nothing of it
    and mixes no examples."""
    dims = [values[number].dim() for number in (*call.inputs, *call.outputs)]
    n_dims = values[next(refs((call.args, call.kwargs)))].dim()
    if torch.Tag.pointwise in call.func.tags:
        # A constant of more dimensions would move the batch's.
        return max(dims[: len(call.inputs)]) == max(dims)
    if call.func in _PER_EXAMPLE:
        return True
    if call.func is _aten.native_layer_norm.default:
        return len(call.args[1]) < n_dims
    if call.func is _aten.constant_pad_nd.default:
        return len(call.args[1]) // 2 < n_dims
    if call.func in _ALONG:
        (_, along, *_) = (*call.args, 0)
        places = along if isinstance(along, (list, tuple)) else [along]
        return all(d is not None and d % n_dims != 0 for d in places) and bool(places)
    return False


def _is_place_by_place(step: Step) -> bool:
    """Whether a step takes each place of one map by itself, whatever the map is."""
    if not step.is_call or step.opaque is not None or len(step.inputs) != 1:
        return False
    if step.func in BATCH_NORMS:
        return True
    constants = (*step.args, *step.kwargs.values())
    return torch.Tag.pointwise in getattr(step.func, "tags", ()) and not any(
        isinstance(x, Tensor) for x in constants
    )
