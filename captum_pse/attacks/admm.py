"""The solver behind :class:`captum_pse.StructuredAttack`: copies of a perturbation that
are drawn together, one for each part of the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_pse._model.forward import ForwardFunc, run_forward
from captum_pse.groups.groups import Groups


@dataclass(frozen=True)
class Weights:
    """The settings of the attack, see :meth:`captum_pse.StructuredAttack.perturb`."""

    group: float
    l2: float
    rho: float
    proximal: float


@dataclass(frozen=True)
class Problem:
    """N inputs to be attacked. Perturbations are flat, ``(N, F)`` over all features of
    an input, in units of the inputs' range.

    Attributes:
        forward_func, additional_forward_args: The model.
        naturals (tuple[Tensor, ...]): The inputs.
        span (float): The inputs' range.
        low, high (Tensor): ``(N, F)``, what a perturbation may be.
        groups (Groups): Of the features.
        labels (Tensor): int64 ``(N,)``: what to reach or to leave.
        targeted (bool): Which of the two.
        confidence (float): By how much, in logits.
    """

    forward_func: ForwardFunc
    additional_forward_args: tuple[Any, ...]
    naturals: tuple[Tensor, ...]
    span: float
    low: Tensor
    high: Tensor
    groups: Groups
    labels: Tensor
    targeted: bool
    confidence: float

    def inputs(self, delta: Tensor) -> tuple[Tensor, ...]:
        """The inputs under a perturbation, of new memory."""
        parts = self.parts(delta * self.span)
        return tuple(
            _channels_last(x + part)
            for x, part in zip(self.naturals, parts, strict=True)
        )

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Values of all features, in the inputs' shapes."""
        sizes = [x[0].numel() for x in self.naturals]
        return tuple(
            part.reshape(x.shape).to(x.dtype)
            for part, x in zip(flat.split(sizes, dim=1), self.naturals, strict=True)
        )

    def missing(self, delta: Tensor) -> Tensor:
        """``(N,)``: by how many logits the attack misses; below 0, it succeeds."""
        scores = run_forward(
            self.forward_func, self.inputs(delta), self.additional_forward_args
        )
        chosen = scores.gather(1, self.labels[:, None])[:, 0]
        others = scores.scatter(1, self.labels[:, None], -torch.inf).amax(dim=1)
        return others - chosen if self.targeted else chosen - others

    def gradient(self, delta: Tensor) -> Tensor:
        """``(N, F)``, of the hinge ``max(missing + confidence, 0)``."""
        with torch.enable_grad():
            moved = delta.detach().requires_grad_()
            hinge = (self.missing(moved) + self.confidence).clamp(min=0)
            (gradient,) = torch.autograd.grad(hinge.sum(), moved)
        return gradient

    def within(self, delta: Tensor) -> Tensor:
        return delta.clamp(self.low, self.high)

    def norms(self, delta: Tensor) -> Tensor:
        """``(N, groups)``, the L2 norm of each group."""
        return self.groups.sums(self.parts(delta**2), self.naturals).sqrt()

    def over_features(self, values: Tensor) -> Tensor:
        """``(N, F)``, each feature with its group's value; 0 in no group."""
        spread = self.groups.spread(values, self.naturals)
        return torch.cat([part.flatten(1) for part in spread], dim=1)


def _channels_last(x: Tensor) -> Tensor:
    """Images in the order in which convolutions and poolings are faster."""
    if x.dim() != 4:
        return x
    return x.contiguous(memory_format=torch.channels_last)


class Best:
    """The best perturbation of each input so far: the cheapest that succeeds or, until
    one does, the one that misses by least."""

    def __init__(self, start: Tensor) -> None:
        n = len(start)
        self.delta = start
        self.cost = torch.full((n,), torch.inf, device=start.device)
        self.missed = torch.full((n,), torch.inf, device=start.device)

    @property
    def succeeded(self) -> Tensor:
        return self.cost.isfinite()

    def offer(self, delta: Tensor, cost: Tensor, missed: Tensor, done: Tensor) -> None:
        cheaper = done & (cost < self.cost)
        nearer = ~done & ~self.succeeded & (missed < self.missed)
        self.cost = torch.where(cheaper, cost, self.cost)
        self.missed = torch.where(cheaper | nearer, missed, self.missed)
        self.delta = torch.where((cheaper | nearer)[:, None], delta, self.delta)


def search(
    problem: Problem,
    weights: Weights,
    start: Tensor,
    allowed: Tensor,
    *,
    constant: float,
    steps: int,
    iterations: int,
    advance: Callable[[], Any],
) -> Best:
    """Runs the solver with several constants c of each input, by bisection.

    Args:
        problem (Problem): What to solve.
        weights (Weights): Of the objective and of the solver.
        start (Tensor): ``(N, F)``, where the first run starts.
        allowed (Tensor): bool ``(N, groups)``, which groups may be perturbed.
        constant (float): The first c; ten times as much until the attack succeeds.
        steps (int): How many constants are tried.
        iterations (int): Of the solver, for each constant.
        advance (Callable): Called after each iteration.
    """
    best = Best(start)
    c = torch.full_like(best.cost, constant)
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
    for _ in range(steps):
        found = _run(problem, weights, c, start, allowed, iterations, best, advance)
        high = torch.where(found, torch.minimum(high, c), high)
        low = torch.where(found, low, torch.maximum(low, c))
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
    return best


def _run(
    problem: Problem,
    weights: Weights,
    constant: Tensor,
    start: Tensor,
    allowed: Tensor,
    iterations: int,
    best: Best,
    advance: Callable[[], Any],
) -> Tensor:
    """One run of the solver; bool ``(N,)``: whether an iterate succeeded.

    z is the perturbation of the linearised margin; ``small``, ``inside`` and ``sparse``
    are its copies, and a dual each says how far it was from them so far.
    """
    rho = weights.rho
    z = start
    of_small, of_inside, of_sparse = (torch.zeros_like(z) for _ in range(3))
    succeeded = torch.zeros_like(constant, dtype=torch.bool)
    for k in range(iterations):
        gradient = constant[:, None] * problem.gradient(z)
        small = rho / (rho + 2 * weights.l2) * (z - of_small)
        inside = problem.within(z - of_inside)
        sparse = z - of_sparse
        # The soft threshold: a group whose norm is below it is gone.
        norms = problem.norms(sparse)
        shrink = (1 - weights.group / (rho * norms)).clamp(min=0) * allowed
        sparse = sparse * problem.over_features(torch.where(norms > 0, shrink, 0.0))
        step = weights.proximal * math.sqrt(k + 1)
        copies = small + of_small + inside + of_inside + sparse + of_sparse
        z = (step * z + rho * copies - gradient) / (step + 3 * rho)
        of_small += small - z
        of_inside += inside - z
        of_sparse += sparse - z
        tried = problem.within(sparse)
        missed = problem.missing(tried)
        done = (missed < 0) & (missed + problem.confidence <= 0)
        cost = weights.l2 * (tried**2).sum(dim=1)
        cost += weights.group * problem.norms(tried).sum(dim=1)
        best.offer(tried, cost, missed, done)
        succeeded |= done
        advance()
    return succeeded
