"""The little that is asked of torch.distributed, for one process as for many."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; ``(0, 1)`` without a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's tensor of that shape, everywhere."""
    if rank_and_size()[1] == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def of_all_processes(values: Tensor) -> list[Tensor]:
    """Every process's tensor of that shape, by rank, everywhere."""
    size = rank_and_size()[1]
    if size == 1:
        return [values]
    gathered = [torch.empty_like(values) for _ in range(size)]
    dist.all_gather(gathered, values.contiguous())
    return gathered
