"""Evaluates every perturbed input with a full pass through the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_pse.groups import Groups

#: Scores ``(k * N, K)`` of ``k`` perturbed copies of the batch, copy after copy.
Evaluate = Callable[[tuple[Tensor, ...], int], Tensor]


def ablated_scores(
    evaluate: Evaluate,
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    groups: Groups,
    chosen: Tensor,
    perturbations_per_eval: int,
    progress: str | None = None,
) -> Tensor:
    """The scores after each group alone was set to its baseline.

    Args:
        evaluate (Callable): Gives K scores for each example of a perturbed batch.
        inputs (tuple[Tensor, ...]): Shape ``(N, ...)`` each.
        baselines (tuple[Tensor, ...]): What is pasted in; shape ``(N or 1, ...)``.
        groups (Groups): The groups of features.
        chosen (Tensor): int64 ``(n,)``, the numbers of the groups to evaluate; at least
            one.
        perturbations_per_eval (int): How many groups one pass evaluates: it holds that
            many copies of the inputs.
        progress (str, optional): Title of a progress bar; None shows none.

    Returns:
        *Tensor*: Shape ``(N, n, K)``.
    """
    from tqdm.auto import tqdm

    chunks = chosen.split(perturbations_per_eval)
    bar = tqdm(chunks, desc=progress, disable=progress is None, unit="pass")
    scores = []
    for chunk in bar:
        perturbed = tuple(
            torch.where(
                index == chunk.reshape(-1, *(1,) * index.dim()), baseline, x
            ).flatten(0, 1)
            for index, x, baseline in zip(groups.index, inputs, baselines, strict=True)
        )
        scores.append(evaluate(perturbed, len(chunk)).unflatten(0, (len(chunk), -1)))
    return torch.cat(scores).movedim(0, 1)
