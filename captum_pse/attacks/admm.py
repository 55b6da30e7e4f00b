"""The solver of :class:`captum_pse.StructuredAttack`, by the alternating direction
method of multipliers (ADMM).

The perturbation has one copy for each term of the objective. The solver updates the
copies in turn and penalises their distance from each other.
"""

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
    """The weights of the attack, see :meth:`captum_pse.StructuredAttack.perturb`.

    Attributes:
        group, l2 (float): Those of the objective.
        rho, proximal (float): Those of the solver.
    """

    group: float
    l2: float
    rho: float
    proximal: float


@dataclass(frozen=True)
class Problem:
    """N inputs to attack, with the model and the constraints.

    A perturbation is a tensor ``(N, F)`` over the F features of all inputs, in units of
    the inputs' range.

    Attributes:
        forward_func (Callable): The model.
        additional_forward_args (tuple): Passed to it after the inputs.
        naturals (tuple[Tensor, ...]): The inputs ``x0``.
        span (float): The inputs' range, ``upper_bound - lower_bound``.
        low, high (Tensor): ``(N, F)``, the least and largest perturbation.
        groups (Groups): The groups of features.
        labels (Tensor): int64 ``(N,)``, the targets, or the true labels if untargeted.
        targeted (bool): Whether ``labels`` are targets.
        confidence (float): The wanted margin, in logits.
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
        """The perturbed inputs, as new tensors."""
        deltas = self.reshaped(delta * self.span)
        return tuple(
            _channels_last(x + d) for x, d in zip(self.naturals, deltas, strict=True)
        )

    def reshaped(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Values ``(N, F)`` in the shapes of the inputs."""
        sizes = [x[0].numel() for x in self.naturals]
        return tuple(
            values.reshape(x.shape).to(x.dtype)
            for values, x in zip(flat.split(sizes, dim=1), self.naturals, strict=True)
        )

    def missing(self, delta: Tensor) -> Tensor:
        """``(N,)``, how many logits the attack lacks; it succeeds below 0."""
        scores = run_forward(
            self.forward_func, self.inputs(delta), self.additional_forward_args
        )
        chosen = scores.gather(1, self.labels[:, None])[:, 0]
        others = scores.scatter(1, self.labels[:, None], -torch.inf).amax(dim=1)
        return others - chosen if self.targeted else chosen - others

    def gradient(self, delta: Tensor) -> Tensor:
        """``(N, F)``, the gradient of ``max(missing(delta) + confidence, 0)``."""
        with torch.enable_grad():
            leaf = delta.detach().requires_grad_()
            hinge = (self.missing(leaf) + self.confidence).clamp(min=0)
            (gradient,) = torch.autograd.grad(hinge.sum(), leaf)
        return gradient

    def clip(self, delta: Tensor) -> Tensor:
        """``delta`` clipped to ``low`` and ``high``."""
        return delta.clamp(self.low, self.high)

    def norms(self, delta: Tensor) -> Tensor:
        """``(N, groups)``, the L2 norm of each group."""
        return self.groups.sums(self.reshaped(delta**2), self.naturals).sqrt()

    def over_features(self, values: Tensor) -> Tensor:
        """``(N, F)``, the value of each feature's group, 0 for features in no group."""
        spread = self.groups.spread(values, self.naturals)
        return torch.cat([x.flatten(1) for x in spread], dim=1).to(self.low)


def _channels_last(x: Tensor) -> Tensor:
    """Images in channels-last memory, where convolutions and poolings are faster."""
    if x.dim() != 4:
        return x
    return x.contiguous(memory_format=torch.channels_last)


class Best:
    """The best perturbation of each input so far: the successful one of least cost or,
    until one succeeds, the one that lacks the fewest logits.

    Attributes:
        delta (Tensor): ``(N, F)``, the perturbations.
        cost (Tensor): ``(N,)``, their costs, infinite where none succeeded.
        missed (Tensor): ``(N,)``, the logits that they lack.
    """

    def __init__(self, start: Tensor) -> None:
        n = len(start)
        self.delta = start
        self.cost = torch.full((n,), torch.inf, device=start.device)
        self.missed = torch.full((n,), torch.inf, device=start.device)

    @property
    def succeeded(self) -> Tensor:
        """bool ``(N,)``, whether a perturbation succeeded."""
        return self.cost.isfinite()

    def offer(self, delta: Tensor, cost: Tensor, missed: Tensor, done: Tensor) -> None:
        """Takes each perturbation that is better than the best so far."""
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
    """Searches the constant c of each input by bisection.

    Args:
        problem (Problem): The problem.
        weights (Weights): Weights of the objective and of the solver.
        start (Tensor): ``(N, F)``, the perturbation that each run starts from.
        allowed (Tensor): bool ``(N, groups)``, which groups may be perturbed.
        constant (float): The first c. It grows tenfold until the attack succeeds.
        steps (int): The number of constants.
        iterations (int): Iterations of the solver for each constant.
        advance (Callable): Called after each iteration.

    Returns:
        *Best*: The best perturbations of all runs.
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
    """Runs the solver once; returns bool ``(N,)``, whether an iterate succeeded.

    ``z`` is the perturbation in the linearised margin. Its copies are ``small`` (for
    the L2 term), ``inside`` (for the bounds) and ``sparse`` (for the groups); each has
    a scaled dual variable, the sum of its differences from ``z``.
    """
    rho = weights.rho
    z = start
    dual_small, dual_inside, dual_sparse = (torch.zeros_like(z) for _ in range(3))
    succeeded = torch.zeros_like(constant, dtype=torch.bool)
    for k in range(iterations):
        gradient = constant[:, None] * problem.gradient(z)
        small = rho / (rho + 2 * weights.l2) * (z - dual_small)
        inside = problem.clip(z - dual_inside)
        sparse = z - dual_sparse
        # The soft threshold: a group whose norm is below it becomes 0.
        norms = problem.norms(sparse)
        shrink = (1 - weights.group / (rho * norms)).clamp(min=0) * allowed
        sparse = sparse * problem.over_features(torch.where(norms > 0, shrink, 0.0))
        step = weights.proximal * math.sqrt(k + 1)
        copies = small + dual_small + inside + dual_inside + sparse + dual_sparse
        z = (step * z + rho * copies - gradient) / (step + 3 * rho)
        dual_small += small - z
        dual_inside += inside - z
        dual_sparse += sparse - z
        tried = problem.clip(sparse)
        missed = problem.missing(tried)
        done = (missed < 0) & (missed + problem.confidence <= 0)
        cost = weights.l2 * (tried**2).sum(dim=1)
        cost += weights.group * problem.norms(tried).sum(dim=1)
        best.offer(tried, cost, missed, done)
        succeeded |= done
        advance()
    return succeeded
