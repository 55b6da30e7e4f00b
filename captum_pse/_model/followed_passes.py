"""Follows the axis of units in passes that the user starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._model.axes import UnitAxes
from captum_pse._model.hooks import thread_hooks


class FollowedPasses:
    """The passes of this thread through a model, or through parts of it.

    Args:
        is_wanted (Callable): Returns whether the pass that begins is to be followed.

    Attributes:
        axes (UnitAxes, optional): Those of the pass that runs; None if it is not
            followed.
        inputs (list[Tensor]): What the pass was called with, if it is followed.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self.axes: UnitAxes | None = None
        self.inputs: list[Tensor] = []
        self._is_wanted = is_wanted
        #: The modules that have begun and not ended.
        self._running: list[nn.Module] = []

    @contextmanager
    def through(self, model: nn.Module) -> Iterator[None]:
        """Follows the passes through a model that begin within the block, until they
        are no longer wanted."""
        if not self._is_wanted():
            yield
            return
        # TorchScript takes no hooks.
        modules = [
            m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)
        ]
        enter = [(module.register_forward_pre_hook, self._enter) for module in modules]
        leave = [
            (partial(module.register_forward_hook, always_call=True), self._leave)
            for module in modules
        ]
        with thread_hooks([*enter, *leave]) as self._remove_hooks:
            try:
                yield
            finally:
                self._end()

    def _enter(self, module: nn.Module, args: Any) -> None:
        if module in self._running:
            # What a KeyboardInterrupt, for example, ends does not leave its modules.
            self._end()
        if not self._running:
            followed = self._is_wanted()
            self.inputs = [x for x in args if followed and isinstance(x, Tensor)]
            self.axes = UnitAxes().__enter__() if followed else None
        self._running.append(module)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        # A module whose own hook raised before it began was not entered.
        if module in self._running:
            del self._running[self._running.index(module) :]
            if not self._running:
                self._end()

    def _end(self) -> None:
        """A pass has ended, or is given up."""
        self._running.clear()
        if self.axes is not None:
            self.axes.__exit__(None, None, None)
            self.axes = None
        if not self._is_wanted():
            self._remove_hooks()
