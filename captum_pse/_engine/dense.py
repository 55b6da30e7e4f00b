"""Evaluates every perturbed input with a full pass through the model."""

from __future__ import annotations

import torch
from captum._utils.common import _expand_additional_forward_args
from torch import Tensor

from captum_pse._engine.ablation import Ablation, Progress
from captum_pse._engine.batches import DENSE_FACTOR, Batches, copies_in, size_of


def evaluate(ablation: Ablation, batch: tuple[Tensor, ...], copies: int) -> Tensor:
    """The K scores of a batch: ``copies`` copies of all inputs, one after another."""
    args = ablation.additional_forward_args
    expanded = _expand_additional_forward_args(args, copies) if args else args
    scores = ablation.run(batch, expanded)
    n = len(ablation.inputs[0])
    return ablation.select(scores, torch.arange(n).repeat(copies))


def dense_scores(
    ablation: Ablation,
    perturbations_per_eval: int | None,
    memory_limit: int,
    progress: Progress,
) -> Tensor:
    """The scores after each group alone is ablated, ``(N, n_groups, K)``.

    One pass holds ``perturbations_per_eval`` copies of all inputs; None: as many as
    ``memory_limit`` bytes allow.
    """
    inputs, wanted = ablation.inputs, ablation.wanted
    size = perturbations_per_eval or copies_in(
        memory_limit, DENSE_FACTOR * size_of(inputs)
    )
    chosen = wanted.any(dim=0).nonzero()[:, 0]
    scores = ablation.unperturbed()

    def of(chunk: slice) -> Tensor:
        numbers = chosen[chunk]
        perturbed = tuple(
            torch.where(
                index == numbers.reshape(-1, *(1,) * index.dim()), baseline, x
            ).flatten(0, 1)
            for index, x, baseline in zip(
                ablation.groups.index, inputs, ablation.baselines, strict=True
            )
        )
        return evaluate(ablation, perturbed, len(numbers))

    for chunk, returned in Batches(size).each(len(chosen), of):
        numbers = chosen[chunk].to(scores.device)
        ablated = returned.unflatten(0, (len(numbers), -1)).movedim(0, 1)
        here = wanted[:, chosen[chunk]].to(scores.device).unsqueeze(2)
        scores[:, numbers] = torch.where(here, ablated.to(scores), scores[:, numbers])
        progress(int(here.sum()))
    return scores
