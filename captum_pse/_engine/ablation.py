"""The task that every engine gets: examples, baselines and groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_pse._model.forward import ForwardFunc
from captum_pse.groups.groups import Groups

#: Called with the number of copies done since the last call.
Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Ablation:
    """N examples, of which one group of features at a time is ablated.

    Attributes:
        forward_func (Callable): The model, or a function around it.
        inputs (tuple[Tensor, ...]): Shape ``(N, ...)`` each.
        baselines (tuple[Tensor, ...]): The values of ablated features; shapes that
            broadcast to the inputs'.
        groups (Groups): The groups of features.
        additional_forward_args (tuple): The arguments after the inputs.
        select (Callable): From scores ``(B, ...)`` and the example of each, int64
            ``(B,)``, to the K requested scores, ``(B, K)``.
        before (Tensor): The scores of the unperturbed inputs, ``(N, K)``.
    """

    forward_func: ForwardFunc
    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    groups: Groups
    additional_forward_args: tuple[Any, ...]
    select: Callable[[Tensor, Tensor], Tensor]
    before: Tensor

    @cached_property
    def wanted(self) -> Tensor:
        """bool ``(N, n_groups)``: whether ablating the group changes a feature."""
        differs = tuple(
            (x != x0).to(torch.float32)
            for x, x0 in zip(self.inputs, self.baselines, strict=True)
        )
        return self.groups.sums(differs, self.inputs) > 0

    def run(self, batch: tuple[Tensor, ...], args: tuple[Any, ...]) -> Tensor:
        """All scores of a batch. The model may write into the batch."""
        scores = self.forward_func(*batch, *args)
        if not isinstance(scores, Tensor) or scores.shape[:1] != batch[0].shape[:1]:
            raise ValueError(
                f"forward_func: returned {describe(scores)} for {len(batch[0])} "
                "examples, want a tensor with one row of scores for each"
            )
        return scores

    def unperturbed(self) -> Tensor:
        """``(N, n_groups, K)``: the unperturbed scores, for every group."""
        return self.before.unsqueeze(1).repeat(1, len(self.groups), 1)


def describe(value: Any) -> str:
    """A value in words, for an error message."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return type(value).__name__
