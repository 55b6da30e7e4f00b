"""Restores a model's modes, gradients and requires_grad after third-party code ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    """Restores train/eval modes, gradients and requires_grad of models on exit.

    Within the block, parameters require no gradient, in all threads: attacks need only
    gradients of inputs, which are cheaper to compute this way.
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
