"""Forward hooks that act in one thread only.

A hook is on the module, which all threads share. Each of these acts in the thread that
set it; in any other it does nothing. So the threads of one process can mask a model,
read it and call it at the same time.

Autograd runs parts of a model again in threads of its own: those of a checkpoint, on a
GPU. They act for the thread that asked for gradients, and get its thread-local objects
from torch, among them the hooks that act.

Compiled models run uncompiled while there are hooks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from captum_pse._model.compiled import is_compiled, uncompiled
from captum_pse._model.forward import ForwardFunc

#: Called with the module, its arguments and its output; returns a new output or None.
Hook: TypeAlias = Callable[[nn.Module, Any, Any], Any]

#: Held while hooks are set or removed: torch counts them without a lock, and a dict
#: must not change while it is copied.
LOCK = threading.RLock()


#: The name of the hooks that act, among torch's thread-local objects.
_ACTING = "captum_pse.hooks"


def _acting() -> frozenset[_ThreadHook]:
    """The hooks that act in this thread."""
    if not torch._C._is_key_in_tls(_ACTING):
        return frozenset()
    return torch._C._get_obj_in_tls(_ACTING)


def _act(hooks: frozenset[_ThreadHook]) -> None:
    torch._C._stash_obj_in_tls(_ACTING, hooks)


class _ThreadHook:
    """A hook that acts where it is among :func:`_acting`."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self._hook = hook

    def __call__(self, *args: Any) -> Any:
        return self._hook(*args) if self in _acting() else None

    def __deepcopy__(self, memo: Any) -> _ThreadHook:
        # A copy of the model, made within the block, is as the model until its end.
        return self


@contextmanager
def forward_hooks(
    forward_func: ForwardFunc, hooks: Sequence[tuple[nn.Module, Hook]]
) -> Iterator[None]:
    """Hooks on layers within a ``with`` block, which act in this thread only.

    Args:
        forward_func (Callable): The model that is called, or a function around it.
        hooks (sequence): Layers, each with its hook.

    Raises:
        ValueError: The layers of the model cannot take hooks.
    """
    _check_takes_hooks(forward_func, [layer for layer, _ in hooks])
    registered = [(layer.register_forward_hook, hook) for layer, hook in hooks]
    with thread_hooks(registered), uncompiled():
        yield


@contextmanager
def thread_hooks(
    hooks: Sequence[tuple[Callable[..., Any], Callable[..., Any]]],
) -> Iterator[Callable[[], None]]:
    """Hooks of any kind within a ``with`` block, which act in this thread only.

    Args:
        hooks (sequence): Methods of modules that register a hook, each with its hook.

    Yields:
        *Callable*: Removes the hooks before the end of the block.
    """
    handles: list[Any] = []
    ours = [_ThreadHook(hook) for _, hook in hooks]

    def remove() -> None:
        _act(_acting().difference(ours))
        with LOCK:
            for handle in handles:
                handle.remove()

    try:
        with LOCK:
            for (register, _), hook in zip(hooks, ours, strict=True):
                handles.append(register(hook))
        _act(_acting().union(ours))
        yield remove
    finally:
        remove()


def acting_hooks(module: nn.Module) -> list[Any]:
    """The forward hooks of a module, without those that do nothing in this thread."""
    with LOCK:
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    here = _acting()
    return [h for h in hooks if not isinstance(h, _ThreadHook) or h in here]


def remove_hooks(model: nn.Module) -> None:
    """Removes the hooks of :func:`thread_hooks` from a copy of a model."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, _ThreadHook):
                    del hooks[key]


def _check_takes_hooks(forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> None:
    """Raises ValueError if hooks on the layers would not act."""
    for layer in layers:
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(
                f"layer: this {layer.original_name} is TorchScript, which takes no "
                "hooks; want the original module"
            )
    modules = forward_func.modules() if isinstance(forward_func, nn.Module) else ()
    for module in modules:
        if is_compiled(module) and not hasattr(torch.compiler, "set_stance"):
            raise ValueError(
                "forward_func: got a model compiled by torch.compile, in which hooks "
                "do not act before torch 2.6; want the original module"
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError(
                "forward_func: got a DataParallel, which runs the model in a thread "
                f"for each of {len(module.device_ids)} devices; want its .module"
            )
