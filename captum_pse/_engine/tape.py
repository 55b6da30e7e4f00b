"""One pass of a model, written down as steps that can be run on other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

_aten = torch.ops.aten

BATCH_NORMS = {
    _aten.native_batch_norm.default,
    _aten._native_batch_norm_legit.default,
    _aten._native_batch_norm_legit_no_training.default,
    _aten._batch_norm_no_update.default,
    _aten.cudnn_batch_norm.default,
    _aten.miopen_batch_norm.default,
}


class NotTraceableError(Exception):
    """The model does something that the tape cannot hold; the text says what."""


class Ref(NamedTuple):
    """Stands for the value of that number."""

    number: int


def refs(tree: Any) -> Iterator[int]:
    """The numbers of the values that a structure of arguments names."""
    for leaf in tree_leaves(tree, is_leaf=is_ref):
        if isinstance(leaf, Ref):
            yield leaf.number


def resolve(tree: Any, value_of: Callable[[int], Any]) -> Any:
    """The structure with each value in the place of its number."""
    return tree_map(
        lambda leaf: value_of(leaf.number) if isinstance(leaf, Ref) else leaf,
        tree,
        is_leaf=is_ref,
    )


def assign(names: Any, returned: Any, values: dict[int, Any]) -> None:
    """Puts what a step returned under the numbers of its result."""
    if isinstance(names, Ref):
        values[names.number] = returned
        return
    for name, value in zip(leaves(names), tree_leaves(returned), strict=True):
        if isinstance(name, Ref):
            values[name.number] = value


def leaves(tree: Any) -> list[Any]:
    return tree_leaves(tree, is_leaf=is_ref)


def is_ref(x: Any) -> bool:
    return isinstance(x, Ref)


@dataclass(frozen=True)
class Step:
    """A function of earlier values.

    Attributes:
        name (str): The node of the model's graph.
        func (Callable): An ATen operation, or what the model calls.
        args, kwargs: Its arguments, with :class:`Ref` for values.
        result: What it gives: a structure of :class:`Ref` and constants.
        is_call (bool): Whether ``func`` is an operation that the engine may know.
        opaque (Step, optional): Does the same for a batch of any size, where ``func``
            with these arguments does not.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    is_call: bool
    opaque: Step | None = None

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(refs((self.args, dict(self.kwargs)))))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        return tuple(refs(self.result))

    def run(self, value_of: Callable[[int], Any]) -> Any:
        args, kwargs = resolve((self.args, dict(self.kwargs)), value_of)
        return self.func(*args, **kwargs)


@dataclass
class Tape:
    """The steps of a model on one example, and every value there.

    Attributes:
        inputs (list[int]): The numbers of the arguments.
        steps (list[Step]): In order.
        output: The model's result, a structure of :class:`Ref`.
        values (dict): Value by number; tensors have one example.
    """

    inputs: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    output: Any = None
    values: dict[int, Any] = field(default_factory=dict)


def without_unused(tape: Tape) -> Tape:
    """Without what nobody asks for, such as the places of maxima."""
    wanted = set(refs(tape.output))
    steps: list[Step] = []
    for step in reversed(tape.steps):
        result = tree_map(
            lambda leaf: None if is_ref(leaf) and leaf.number not in wanted else leaf,
            step.result,
            is_leaf=is_ref,
        )
        if not any(is_ref(leaf) for leaf in leaves(result)):
            continue
        wanted.update(step.inputs, () if step.opaque is None else step.opaque.inputs)
        steps.append(replace(step, result=result))
    wanted.update(tape.inputs)
    values = {number: x for number, x in tape.values.items() if number in wanted}
    return replace(tape, steps=steps[::-1], values=values)
