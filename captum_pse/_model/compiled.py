"""Models compiled by ``torch.compile``, as they were before.

Compiled code runs without the hooks that its modules got after it was compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

_LOCK = Lock()
#: The ``with`` blocks of :func:`uncompiled`, in all threads, and what ends the first.
_BLOCKS: list[Any] = []


def original(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` was given; any other module itself."""
    # Not by class: its module takes seconds to load.
    while "_orig_mod" in module._modules:
        module = module._modules["_orig_mod"]  # type: ignore[assignment]
    return module


def original_name(name: str) -> str:
    """The name of a layer before the modules around it were compiled."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def is_compiled(module: nn.Module) -> bool:
    """Whether a call of the module runs compiled code."""
    return original(module) is not module or module._compiled_call_impl is not None


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within the block, compiled code runs as it is written, in all threads.

    Nothing is compiled either: it would be compiled with the hooks of the block.
    """
    # What is not loaded has compiled nothing, and takes seconds to load.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with _LOCK:
        # Blocks of several threads overlap: the first sets it, the last one restores.
        stance = None if _BLOCKS else torch.compiler.set_stance("force_eager")
        _BLOCKS.append(stance or _BLOCKS[0])
    try:
        yield
    finally:
        with _LOCK:
            stance = _BLOCKS.pop()
            if not _BLOCKS:
                stance.__exit__(None, None, None)
