"""The user's model, through work of others that would leave traces in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    """Afterwards modes, gradients and what requires them are as before.

    Within the block parameters require no gradient, for all threads: gradients of
    inputs, which is what attacks need, are cheaper so.
    """
    modules = {module for model in models for module in model.modules()}
    modes = [(module, module.training) for module in modules]
    parameters = {p for model in models for p in model.parameters()}
    states = [(p, p.requires_grad, p.grad) for p in parameters]
    try:
        for parameter, _, _ in states:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, grad in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
