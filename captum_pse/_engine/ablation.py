"""What both ways to evaluate perturbed inputs start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_pse._model.forward import ForwardFunc
from captum_pse.groups.groups import Groups

#: Takes how many more copies are done.
Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Ablation:
    """N examples, of which one group of features at a time is to be erased.

    Attributes:
        forward_func (Callable): The model, or a function around it.
        inputs (tuple[Tensor, ...]): Shape ``(N, ...)`` each.
        baselines (tuple[Tensor, ...]): What an erased feature becomes; shapes that
            broadcast to the inputs'.
        groups (Groups): The groups of features.
        additional_forward_args (tuple): What follows the inputs.
        select (Callable): From scores ``(B, ...)`` and int64 ``(B,)``, which example
            each is of, the K scores that are asked for, ``(B, K)``.
        before (Tensor): ``(N, K)``, the scores of the inputs themselves.
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
        """bool ``(N, n_groups)``: erasing the group changes a feature."""
        differs = tuple(
            (x != x0).to(torch.float32)
            for x, x0 in zip(self.inputs, self.baselines, strict=True)
        )
        return self.groups.sums(differs, self.inputs) > 0

    def run(self, batch: tuple[Tensor, ...], args: tuple[Any, ...]) -> Tensor:
        """All scores of a batch made for this call."""
        scores = self.forward_func(*batch, *args)
        if not isinstance(scores, Tensor) or scores.shape[:1] != batch[0].shape[:1]:
            raise ValueError(
                f"forward_func: returned {describe(scores)} for {len(batch[0])} "
                "examples, want a tensor with one row of scores for each"
            )
        return scores

    def unperturbed(self) -> Tensor:
        """``(N, n_groups, K)``: the scores if erasing did nothing."""
        return self.before.unsqueeze(1).repeat(1, len(self.groups), 1)


def describe(value: Any) -> str:
    """What came, for a message."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return type(value).__name__
