"""One pass of a model, recorded as steps that can be run on other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_unflatten,
)


class NotTraceableError(Exception):
    """The model does something that a tape cannot hold; the message states what."""


class Ref(NamedTuple):
    """Stands for the value with that number."""

    number: int


def is_ref(x: Any) -> bool:
    return isinstance(x, Ref)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a structure of :class:`Ref` and constants."""
    return tree_leaves(tree, is_leaf=is_ref)


def refs(tree: Any) -> Iterator[int]:
    """The numbers of the values that a structure refers to."""
    return (leaf.number for leaf in leaves(tree) if isinstance(leaf, Ref))


def map_refs(function: Callable[[int], Any], tree: Any) -> Any:
    """The structure with ``function(number)`` instead of each :class:`Ref`."""
    return tree_map(
        lambda leaf: function(leaf.number) if isinstance(leaf, Ref) else leaf,
        tree,
        is_leaf=is_ref,
    )


@dataclass(frozen=True)
class Step:
    """A function of earlier values.

    Attributes:
        name (str): The node of the model's graph.
        func (Callable): The function.
        args, kwargs: Its arguments, with a :class:`Ref` for each value.
        result: What it returns: a structure of :class:`Ref` and constants.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the values that it takes."""
        arguments, _ = self._flat
        return tuple(dict.fromkeys(x.number for x in arguments if isinstance(x, Ref)))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The numbers of the values that it gives."""
        return tuple(x.number for x in self.results if isinstance(x, Ref))

    @cached_property
    def results(self) -> tuple[Any, ...]:
        """The leaves of ``result``."""
        return tuple(leaves(self.result))

    @cached_property
    def _flat(self) -> tuple[list[Any], TreeSpec]:
        return tree_flatten((self.args, dict(self.kwargs)), is_leaf=is_ref)

    @property
    def per_batch(self) -> Step:
        """A step with the same result that is independent of the batch size."""
        return self

    @property
    def reads(self) -> set[int]:
        """The values that the step or its ``per_batch`` takes."""
        return {*self.inputs, *self.per_batch.inputs}

    @property
    def overwritten(self) -> int | None:
        """The number of the value that it writes into."""
        return None

    def run(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Runs the function on other values.

        Args:
            values (sequence): One for each of ``inputs``.

        Returns:
            *tuple*: One value for each of ``results``.
        """
        value_of = dict(zip(self.inputs, values, strict=True))
        arguments, structure = self._flat
        args, kwargs = tree_unflatten(
            [value_of[x.number] if isinstance(x, Ref) else x for x in arguments],
            structure,
        )
        returned = self.func(*args, **kwargs)
        if isinstance(self.result, Ref):
            return (returned,)
        outputs = tuple(tree_leaves(returned))
        if len(outputs) != len(self.results):
            raise ValueError("the number of outputs depends on the batch size")
        return outputs


@dataclass(frozen=True)
class NodeStep(Step):
    """A whole node of the graph: calls what the model calls."""

    def run(self, values: Sequence[Any]) -> tuple[Any, ...]:
        # A view in the model may need the default memory format.
        return super().run(
            [x.contiguous() if isinstance(x, Tensor) else x for x in values]
        )


@dataclass(frozen=True)
class OpStep(Step):
    """One ATen operation, or ``torch.nn.functional.linear``.

    Attributes:
        node (NodeStep, optional): The node that makes this operation, if the arguments
            of the operation fix the batch size, as those of a view do. None: they do
            not.
    """

    node: NodeStep | None = None

    @property
    def per_batch(self) -> Step:
        return self.node or self

    @property
    def overwritten(self) -> int | None:
        schema = getattr(self.func, "_schema", None)
        if schema is None or not schema.is_mutable:
            return None
        number: int = self.args[0].number
        return number


@dataclass
class Tape:
    """The steps of a model on one example, and all values.

    Attributes:
        inputs (list[int]): The numbers of the model's arguments.
        steps (list[Step]): In the order of the pass.
        output: What the model returns, a structure of :class:`Ref`.
        values (dict): The values by number; tensors have one example.
    """

    inputs: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    output: Any = None
    values: dict[int, Any] = field(default_factory=dict)


def without_unused(tape: Tape) -> Tape:
    """Removes dead steps and results (e.g. max-pool indices)."""
    wanted = set(refs(tape.output))
    steps: list[Step] = []
    for step in reversed(tape.steps):
        result = tree_map(
            lambda leaf: None if is_ref(leaf) and leaf.number not in wanted else leaf,
            step.result,
            is_leaf=is_ref,
        )
        kept = replace(step, result=result)
        if kept.outputs:
            wanted.update(kept.reads)
            steps.append(kept)
    wanted.update(tape.inputs)
    values = {number: x for number, x in tape.values.items() if number in wanted}
    return replace(tape, steps=steps[::-1], values=values)
