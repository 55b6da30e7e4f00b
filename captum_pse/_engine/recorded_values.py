"""Numbers the values of a pass while it is recorded."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from captum_pse._engine.tape import Ref


class RecordedValues:
    """The values by number, and which tensor is currently which value.

    Attributes:
        of (dict): The value of each number.
    """

    def __init__(self) -> None:
        self.of: dict[int, Any] = {}
        self._count = itertools.count()
        self._numbers: dict[int, int] = {}
        #: Keeps numbered tensors alive, so that no other tensor gets their id.
        self._alive: dict[int, Tensor] = {}

    def add(self, value: Any) -> Ref:
        """Gives a value a new number."""
        number = next(self._count)
        self.of[number] = value
        if isinstance(value, Tensor):
            self.assign(value, number)
        return Ref(number)

    def add_tensors(self, tree: Any) -> Any:
        """The structure with a new number for each tensor."""
        return tree_map(lambda x: self.add(x) if isinstance(x, Tensor) else x, tree)

    def assign(self, x: Tensor, number: int) -> None:
        """Makes a tensor the value of that number from now on."""
        self._numbers[id(x)], self._alive[id(x)] = number, x

    def number(self, x: Any) -> int | None:
        """The number of a tensor."""
        return self._numbers.get(id(x))

    def known(self, tree: Any) -> Any:
        """The structure with a :class:`Ref` for each tensor that has a number."""
        return tree_map(
            lambda x: x if self.number(x) is None else Ref(self._numbers[id(x)]), tree
        )

    def drop(self, number: int) -> None:
        """Removes a value."""
        self._release(self.of.pop(number), number)

    def empty(self, number: int) -> None:
        """Frees the memory of a tensor; its shape and dtype stay."""
        value = self.of[number]
        self.of[number] = torch.empty_like(value, device="meta")
        self._release(value, number)

    def _release(self, x: Any, number: int) -> None:
        # A tensor that was written into has a newer number.
        if self.number(x) == number:
            del self._numbers[id(x)], self._alive[id(x)]
