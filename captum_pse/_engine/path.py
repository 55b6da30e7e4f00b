"""Estimates what each group does to the scores from gradients along a path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._engine.dense import Evaluate
from captum_pse.groups import Groups


@torch.enable_grad()
def path_changes(
    evaluate: Evaluate,
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    groups: Groups,
    n_steps: int,
    points_per_eval: int,
    progress: str | None = None,
) -> Tensor:
    r"""Integrated gradients from the baselines to the inputs, summed over groups.

    .. math::
        \Delta_i = \sum_{j \in G_i} (x_j - x_{0,j})
        \int_0^1 \frac{\partial Z}{\partial x_j}\big(x_0 + a (x - x_0)\big) \, da,

    by Gauss and Legendre's rule. Over all features, it sums to ``Z(x) - Z(x0)`` up to
    the error of the rule.

    Args:
        evaluate (Callable): Gives K scores for each example of a batch.
        inputs, baselines (tuple[Tensor, ...]): Shape ``(N, ...)`` each.
        groups (Groups): The groups of features.
        n_steps (int): How many points of the path.
        points_per_eval (int): How many of them one pass holds, N examples each.
        progress (str, optional): Title of a progress bar; None shows none.

    Returns:
        *Tensor*: Shape ``(N, n_groups, K)``.
    """
    weights_of, points_of = approximation_parameters("gausslegendre")
    steps = list(zip(weights_of(n_steps), points_of(n_steps), strict=True))
    sums: list[list[Tensor]] = []
    starts = range(0, n_steps, points_per_eval)
    for start in tqdm(starts, progress, disable=progress is None, unit="pass"):
        weights, points = zip(*steps[start : start + points_per_eval], strict=True)
        on_path = tuple(
            torch.cat([x0 + point * (x - x0) for point in points]).detach()
            for x, x0 in zip(inputs, baselines, strict=True)
        )
        for x in on_path:
            x.requires_grad_()
        # Copies, as the model may write into what it gets.
        scores = evaluate(tuple(x.clone() for x in on_path), len(points))
        for k, score in enumerate(scores.sum(dim=0)):
            gradients = torch.autograd.grad(
                score, on_path, retain_graph=k + 1 < scores.shape[1], allow_unused=True
            )
            if start == 0:
                sums.append([torch.zeros_like(x) for x in inputs])
            for total, gradient in zip(sums[k], gradients, strict=True):
                if gradient is not None:
                    total += _weighted(gradient, weights)
    with torch.no_grad():
        return torch.stack(
            [
                groups.sums(
                    tuple(
                        total * (x - x0)
                        for total, x, x0 in zip(
                            of_score, inputs, baselines, strict=True
                        )
                    ),
                    inputs,
                )
                for of_score in sums
            ],
            dim=2,
        )


def _weighted(gradients: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted sum of the gradients ``(P N, ...)`` at P points, ``(N, ...)``."""
    of_points = gradients.unflatten(0, (len(weights), -1))
    scale = torch.tensor(weights).to(gradients)
    return torch.tensordot(scale, of_points, dims=1)
