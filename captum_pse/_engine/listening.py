"""Records the ATen operations that one node of a graph runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_pse._engine.ops.registry import rule_for
from captum_pse._engine.recorded_values import RecordedValues
from captum_pse._engine.tape import NotTraceableError, OpStep, refs


class Listener(TorchDispatchMode):
    """Records operations as steps.

    Args:
        name (str): The node.
        values (RecordedValues): The values so far; new ones are added.
        is_read (Callable): Whether a step of the tape reads the value of a number.
        check_write (Callable): Raises NotTraceableError where a tensor must not be
            written into.

    Attributes:
        steps (list[OpStep]): The operations that take a value of the tape.
        added (list[int]): The values that they give.
        overwrites (bool): Whether they write into an older value.
    """

    def __init__(
        self,
        name: str,
        values: RecordedValues,
        is_read: Callable[[int], bool],
        check_write: Callable[[Tensor], None],
    ) -> None:
        super().__init__()
        self.name, self.values = name, values
        self.is_read, self.check_write = is_read, check_write
        self.steps: list[OpStep] = []
        self.added: list[int] = []
        self.overwrites = False
        self._used: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            # The tag does not depend on the arguments: attention without dropout has
            # it, too.
            raise NotTraceableError(
                f"{self.name} calls {func}, which may draw random numbers"
            )
        known_args, known_kwargs = self.values.known((args, kwargs))
        used = set(refs((known_args, known_kwargs)))
        if not used:
            return func(*args, **kwargs)
        if rule_for(func).is_silent:
            returned = func(*args, **kwargs)
            self.values.assign(returned, known_args[0].number)
            return returned
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                if i > 0:
                    raise NotTraceableError(f"{self.name} writes into an argument")
                tensors = [x for x in tree_leaves((args, kwargs)) if is_map(x)]
                self._overwrite(args[0], used, alone=len(tensors) == 1)
        returned = func(*args, **kwargs)
        if not any(isinstance(x, Tensor) for x in tree_leaves(returned)):
            raise NotTraceableError(f"{self.name} depends on the values of a tensor")
        result = self.values.add_tensors(returned)
        self.added += refs(result)
        self._used |= used
        self.steps.append(OpStep(self.name, func, known_args, known_kwargs, result))
        return returned

    def _overwrite(self, x: Tensor, used: set[int], *, alone: bool) -> None:
        """Keeps a copy of a tensor that is written into, if the old value is needed.

        That is so unless the operation has no other tensor with dimensions: with one,
        it may run on whole maps, whose unperturbed part is the old value.
        """
        number = self.values.number(x)
        if number is None:
            raise NotTraceableError(f"{self.name} writes into the model")
        self.check_write(x)
        if number not in self.added:
            self.overwrites = True
        for other, value in self.values.of.items():
            if value is not x and share_memory(value, x):
                # A view of the same memory, which may be read around windows.
                self.values.of[other] = value.clone()
        if not alone or len(used) > 1 or number in self._used or self.is_read(number):
            self.values.of[number] = x.clone()


def is_map(value: Any) -> bool:
    """Whether a value is a tensor with at least one dimension."""
    return isinstance(value, Tensor) and value.dim() > 0


def share_memory(value: Any, x: Tensor) -> bool:
    """Whether a value is a tensor in the memory of another."""
    return (
        isinstance(value, Tensor)
        and not value.is_meta
        and value.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    )
