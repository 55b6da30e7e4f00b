"""Restores a model's modes, gradients and requires_grad after third-party code ran."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from captum_pse._model.compiled import original
from captum_pse._model.hooks import LOCK, remove_hooks


class _Held:
    """What something was before the first of the blocks that hold it now."""

    def __init__(self, thing: Any, state: Any) -> None:
        self.thing, self.state = thing, state
        self.threads: list[int] = []


#: The modules and parameters of all blocks, in all threads, by their id. No block must
#: take for the user's what another one has set.
_HELD: dict[int, _Held] = {}


@contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    """Restores train/eval modes, gradients and requires_grad of models on exit.

    Within the block, parameters require no gradient, in all threads: attacks need only
    gradients of inputs, which are cheaper to compute this way. Blocks of several
    threads may overlap: the last one restores gradients and requires_grad.
    """
    modules = {module for model in models for module in model.modules()}
    parameters = {p for model in models for p in model.parameters()}
    thread = threading.get_ident()
    with LOCK:
        # What a block of this thread has set, an inner one restores.
        modes = [(m, _hold(m, m.training, thread)) for m in modules]
        for p in parameters:
            _hold(p, (p.requires_grad, p.grad), thread)
            p.requires_grad_(False)
            p.grad = None
    try:
        yield
    finally:
        with LOCK:
            for module, training in modes:
                module.training = training
                _let_go(module, thread)
            for p in parameters:
                held = _let_go(p, thread)
                if not held.threads:
                    requires_grad, p.grad = held.state
                    p.requires_grad_(requires_grad)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, not compiled, without what blocks of any thread have set on the
    model: their hooks, modes and requires_grad."""
    copies: dict[int, Any] = {}
    with LOCK:
        # Inner ones first, which outer ones take from here.
        for module in reversed([*model.modules()]):
            copies[id(module)] = copy.deepcopy(original(module), copies)
        for module in model.modules():
            if id(module) in _HELD:
                copies[id(module)].training = _HELD[id(module)].state
        for p in model.parameters():
            if id(p) in _HELD:
                copies[id(p)].requires_grad_(_HELD[id(p)].state[0])
    copied: nn.Module = copies[id(model)]
    remove_hooks(copied)
    return copied


def _hold(thing: Any, state: Any, thread: int) -> Any:
    """The state to restore: as it is, unless only other threads hold the thing."""
    held = _HELD.setdefault(id(thing), _Held(thing, state))
    nested = not held.threads or thread in held.threads
    held.threads.append(thread)
    return state if nested else held.state


def _let_go(thing: Any, thread: int) -> _Held:
    held = _HELD[id(thing)]
    held.threads.remove(thread)
    if not held.threads:
        del _HELD[id(thing)]
    return held
