"""Estimates by how much each group changes the scores, from gradients on a path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._engine.ablation import Ablation
from captum_pse._engine.batches import GRADIENT_FACTOR, Batches, copies_in, size_of
from captum_pse._engine.dense import evaluate


@torch.enable_grad()
def path_changes(
    ablation: Ablation,
    n_steps: int,
    points_per_eval: int | None,
    memory_limit: int,
    progress: str | None = None,
) -> Tensor:
    r"""Integrated gradients from the baselines to the inputs, summed over groups.

    .. math::
        \Delta_i = \sum_{j \in G_i} (x_j - x_{0,j})
        \int_0^1 \frac{\partial Z}{\partial x_j}\big(x_0 + a (x - x_0)\big) \, da,

    by Gauss-Legendre quadrature. The sum over all features is ``Z(x) - Z(x0)``, up to
    the error of the quadrature.

    Args:
        ablation (Ablation): The examples and their groups.
        n_steps (int): How many points of the path are evaluated.
        points_per_eval (int, optional): How many of them one pass holds, N examples
            each; None: as many as the memory limit allows.
        memory_limit (int): Bytes that a pass may take beside the model.
        progress (str, optional): Title of a progress bar; None shows none.

    Returns:
        *Tensor*: Shape ``(N, n_groups, K)``.
    """
    weights_of, points_of = approximation_parameters("gausslegendre")
    weights, points = weights_of(n_steps), points_of(n_steps)
    inputs, baselines = ablation.inputs, ablation.baselines

    def weighted(chunk: slice) -> list[list[Tensor]]:
        """For each score, the weighted sum of its gradients for each input."""
        some = points[chunk]
        on_path = tuple(
            torch.cat([x0 + point * (x - x0) for point in some]).detach()
            for x, x0 in zip(inputs, baselines, strict=True)
        )
        for x in on_path:
            x.requires_grad_()
        # Cloned, since the model may write into its inputs.
        scores = evaluate(ablation, tuple(x.clone() for x in on_path), len(some))
        of_scores = scores.sum(dim=0).unbind()
        return [
            [
                torch.zeros_like(x) if gradient is None
                else _weighted(gradient, weights[chunk])
                for x, gradient in zip(
                    inputs,
                    torch.autograd.grad(
                        score, on_path, allow_unused=True,
                        retain_graph=k + 1 < len(of_scores),
                    ),
                    strict=True,
                )
            ]
            for k, score in enumerate(of_scores)
        ]  # fmt: skip

    size = points_per_eval or copies_in(memory_limit, GRADIENT_FACTOR * size_of(inputs))
    sums: list[list[Tensor]] = []
    with tqdm(total=n_steps, desc=progress, disable=progress is None) as bar:
        for chunk, found in Batches(size).each(n_steps, weighted):
            if not sums:
                sums = [[torch.zeros_like(x) for x in of_score] for of_score in found]
            for totals, of_score in zip(sums, found, strict=True):
                for total, gradient in zip(totals, of_score, strict=True):
                    total += gradient
            bar.update(chunk.stop - chunk.start)
    with torch.no_grad():
        differences = [x - x0 for x, x0 in zip(inputs, baselines, strict=True)]
        return torch.stack(
            [
                ablation.groups.sums(
                    tuple(t * d for t, d in zip(totals, differences, strict=True)),
                    inputs,
                )
                for totals in sums
            ],
            dim=2,
        )


def _weighted(gradients: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted sum of the gradients ``(P N, ...)`` at P points, ``(N, ...)``."""
    of_points = gradients.unflatten(0, (len(weights), -1))
    scale = torch.tensor(weights).to(gradients)
    return torch.tensordot(scale, of_points, dims=1)
