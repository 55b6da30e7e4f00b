"""Follows the axis of units in passes that the user starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from captum_pse._model.axes import UnitAxes
from captum_pse._model.hooks import LOCK


class FollowedPasses(threading.local):
    """The passes through a model, or through parts of it, in this thread.

    Attributes:
        axes (UnitAxes, optional): Those of the last pass; None if it is not followed.
        inputs (list[Tensor]): What the last pass was called with.
    """

    def __init__(self) -> None:
        self.axes: UnitAxes | None = None
        self.inputs: list[Tensor] = []
        self._depth = 0

    def enter(self, args: Any, followed: bool) -> None:
        """A module begins."""
        if self._depth == 0:
            self.inputs = [x for x in args if followed and isinstance(x, Tensor)]
            self.axes = UnitAxes().__enter__() if followed else None
        self._depth += 1

    def leave(self) -> None:
        """A module ends."""
        self._depth -= 1
        if self._depth == 0 and self.axes is not None:
            self.axes.__exit__(None, None, None)


@contextmanager
def follow_passes(
    model: nn.Module, is_wanted: Callable[[], bool]
) -> Iterator[FollowedPasses]:
    """Follows the axes in the passes of this thread through a model, or through parts
    of it, that begin within the block while ``is_wanted`` returns True."""
    passes, handles, thread = FollowedPasses(), [], threading.get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        passes.enter(args, threading.get_ident() == thread and is_wanted())

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        passes.leave()

    try:
        with LOCK:
            for module in model.modules():
                handles += [
                    module.register_forward_pre_hook(enter),
                    module.register_forward_hook(leave, always_call=True),
                ]
        yield passes
    finally:
        with LOCK:
            for handle in handles:
                handle.remove()
