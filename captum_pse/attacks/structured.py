"""The structured attack: a small perturbation on few groups of features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args
from captum.robust import Perturbation
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._model.checks import check_int, check_tensors
from captum_pse._model.forward import ForwardFunc, first_scores
from captum_pse._model.score import returned_kind
from captum_pse._model.score_warnings import warn_of_probabilities
from captum_pse._model.targets import Label, check_index, label_index
from captum_pse._model.unchanged import unchanged
from captum_pse.attacks.admm import Problem, Weights, search
from captum_pse.groups.groups import Groups

Tensors = tuple[Tensor, ...]


class StructuredAttack(Perturbation):
    r"""Attacks with a small perturbation that is confined to few groups of features.

    For each input it solves

    .. math::
        \min_\delta \; c \, f(x_0 + \delta) + \gamma \lVert \delta \rVert_2^2 + \tau
        \sum_i \lVert \delta_{G_i} \rVert_2 \quad \text{subject to} \quad
        l \le x_0 + \delta \le u, \; \lVert \delta \rVert_\infty \le \epsilon,

    with the margin :math:`f(x) = \max(\max_{j \ne t} Z(x)_j - Z(x)_t + \kappa, 0)` of a
    target t or, untargeted, :math:`\max(Z(x)_{t_0} - \max_{j \ne t_0} Z(x)_j + \kappa,
    0)` of the true label.

    The solver is the alternating direction method of multipliers. The squared norm, the
    groups and the bounds each have a copy of :math:`\delta` with an update in closed
    form: a proximal step, a soft threshold on each group's norm, and a clip. The margin
    is linearised, with a step size that decreases as :math:`1 / \sqrt{k + 1}`. The copy
    that is sparse over groups, clipped to the bounds, is the candidate. Bisection finds
    c for each input. A second run without the group penalty, confined to the groups
    that the first run found, then reduces the perturbation.

    Source: Xu et al., "Structured Adversarial Attack: Towards General Implementation
    and Better Interpretability", ICLR 2019, arXiv:1808.01664. The default weights are
    those of the paper.

    Args:
        forward_func (Callable): A model in evaluation mode, or a function around it,
            that returns logits ``(N, classes)``.
        lower_bound, upper_bound (float, optional): l and u, in the inputs' units.
            Default: 0 and 1

    Raises:
        ValueError: ``lower_bound`` is not less than ``upper_bound``.

    Examples::

        >>> from captum_pse import grid_mask
        >>> from captum_pse.demo import CLASSES, load_model, make_pairs
        >>> model, pair = load_model(), make_pairs(1)
        >>> mask = grid_mask((64, 64), cell=16)
        >>> x = StructuredAttack(model).perturb(
        ...     pair.natural, CLASSES.index("boat"), targeted=True,
        ...     feature_mask=mask, iterations=30, search_steps=1,
        ... )
        >>> CLASSES[model(x).argmax()]
        'boat'
        >>> delta = x - pair.natural
        >>> 0 < len(mask.expand_as(x)[delta != 0].unique()) <= 8  # of 16 groups
        True
        >>> bool(delta.norm() < (pair.adversarial - pair.natural).norm())
        True
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        lower_bound: float = 0.0,
        upper_bound: float = 1.0,
    ) -> None:
        if not lower_bound < upper_bound:
            raise ValueError(
                f"lower_bound: got {lower_bound}, want less than upper_bound, "
                f"{upper_bound}"
            )
        self.forward_func = forward_func
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    def bound(self, x: Tensor) -> Tensor:
        """Clips a tensor of any shape to the bounds, like Captum's attacks.

        Args:
            x (Tensor): The values.
        """
        return x.clamp(self.lower_bound, self.upper_bound)

    def perturb(
        self,
        inputs: Tensor | Tensors,
        target: Label,
        additional_forward_args: Any = None,
        targeted: bool = False,
        *,
        feature_mask: Tensor | Tensors | None = None,
        epsilon: float | None = None,
        confidence: float = 0.0,
        group_weight: float = 3.0,
        l2_weight: float = 2.0,
        rho: float = 15.0,
        proximal_weight: float = 5.0,
        initial_constant: float = 1.0,
        search_steps: int = 4,
        iterations: int = 100,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        r"""Computes the adversarial inputs.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): ``x0``, N examples within the bounds,
                ``(N, ...)``, for example images ``(N, C, H, W)``.
            target (int, list or Tensor): The target labels if ``targeted``, else the
                true labels: one for all, or one for each example.
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs. Default: None
            targeted (bool, optional): Whether ``target`` are the labels to reach.
                Default: False
            feature_mask (Tensor or tuple[Tensor, ...], optional): The groups, as for
                :class:`captum_pse.PromotionSuppression`. Features in no group are not
                perturbed. Default: None
            epsilon (float, optional): The largest change of a feature, in the inputs'
                units; None for half of the range ``u - l``. Default: None
            confidence (float, optional): :math:`\kappa`, in logits. Default: 0.0
            group_weight (float, optional): :math:`\tau`; larger values give fewer
                groups. All weights apply to perturbations in units of the range.
                Default: 3.0
            l2_weight (float, optional): :math:`\gamma`. Default: 2.0
            rho (float, optional): Penalty weight on the differences between the copies.
                Default: 15.0
            proximal_weight (float, optional): The inverse of the first step size for
                the linearised margin. Default: 5.0
            initial_constant (float, optional): The first c. Default: 1.0
            search_steps (int, optional): Number of constants c in each of the two runs;
                8 in the paper. Default: 4
            iterations (int, optional): Iterations for each c; 1000 in the paper. An
                iteration takes two forward passes and one backward pass. Default: 100
            show_progress (bool, optional): Whether to show a progress bar.
                Default: False

        Returns:
            *Tensor or tuple[Tensor, ...]*: The adversarial inputs, in the shapes of
            ``inputs``. If no perturbation of an input succeeds, the one that came
            closest to success (the smallest margin) is returned.

        Raises:
            TypeError: ``inputs`` are not floating-point tensors.
            ValueError: ``inputs`` are not finite or out of bounds, ``target`` is not a
                label of the model, its scores are not ``(N, classes)``,
                ``feature_mask`` does not fit, or another argument is out of range; the
                message names the argument.

        Warns:
            ProbabilityWarning: The model returns probabilities instead of logits.
        """
        settings = {
            "epsilon": epsilon, "group_weight": group_weight, "l2_weight": l2_weight,
            "rho": rho, "proximal_weight": proximal_weight,
            "initial_constant": initial_constant,
        }  # fmt: skip
        _check_settings(settings, confidence)
        search_steps = check_int("search_steps", search_steps, 1)
        iterations = check_int("iterations", iterations, 1)
        modules = [f for f in (self.forward_func,) if isinstance(f, nn.Module)]
        with torch.inference_mode(False), torch.no_grad(), unchanged(*modules):
            problem = self._problem(
                inputs, target, additional_forward_args, targeted, feature_mask,
                epsilon, confidence,
            )  # fmt: skip
            weights = Weights(group_weight, l2_weight, rho, proximal_weight)
            start = torch.zeros_like(problem.low)
            everywhere = torch.ones_like(problem.norms(start), dtype=torch.bool)
            with tqdm(
                total=2 * search_steps * iterations,
                desc="structured attack",
                disable=not show_progress,
            ) as bar:
                run = partial(
                    search,
                    problem,
                    constant=initial_constant,
                    steps=search_steps,
                    iterations=iterations,
                    advance=bar.update,
                )
                sparse = run(weights, start, everywhere)
                support = problem.norms(sparse.delta) > 0
                smaller = run(replace(weights, group=0.0), sparse.delta, support)
            is_better = torch.where(
                sparse.succeeded,
                smaller.succeeded
                & (smaller.delta.norm(dim=1) < sparse.delta.norm(dim=1)),
                smaller.succeeded | (smaller.missed < sparse.missed),
            )
            delta = torch.where(is_better[:, None], smaller.delta, sparse.delta)
            found = tuple(self.bound(x).contiguous() for x in problem.inputs(delta))
        return found if isinstance(inputs, tuple) else found[0]

    def _problem(
        self,
        inputs: Tensor | Tensors,
        target: Label,
        additional_forward_args: Any,
        targeted: bool,
        feature_mask: Tensor | Tensors | None,
        epsilon: float | None,
        confidence: float,
    ) -> Problem:
        xs, _ = check_tensors(inputs, inputs, ("inputs", "inputs"))
        xs = tuple(x.detach().clone() for x in xs)
        for x in xs:
            if x.min() < self.lower_bound or x.max() > self.upper_bound:
                raise ValueError(
                    f"inputs: got values from {float(x.min()):.4g} to "
                    f"{float(x.max()):.4g}, want {self.lower_bound:g} to "
                    f"{self.upper_bound:g}"
                )
        args = _format_additional_forward_args(additional_forward_args) or ()
        scores = first_scores(self.forward_func, xs, args)
        warn_of_probabilities(returned_kind(scores))
        index = check_index("target", label_index("target", target, len(xs[0])), scores)
        if index.shape[1] != 1:
            raise ValueError(
                f"forward_func: returned shape {tuple(scores.shape)}, want (N, classes)"
            )
        span = self.upper_bound - self.lower_bound
        flat = torch.cat([x.flatten(1).float() for x in xs], dim=1)
        radius = 0.5 if epsilon is None else epsilon / span
        return Problem(
            self.forward_func,
            args,
            xs,
            span,
            ((self.lower_bound - flat) / span).clamp(min=-radius),
            ((self.upper_bound - flat) / span).clamp(max=radius),
            Groups.of(feature_mask, xs),
            index[:, 0],
            targeted,
            confidence,
        )


def _check_settings(settings: Mapping[str, float | None], confidence: float) -> None:
    for name, value in settings.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: got {value}, want a positive number")
    if not 0 <= confidence < math.inf:
        raise ValueError(f"confidence: got {confidence}, want 0 or more")
