"""The little that is asked of torch.distributed, for one process as for many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_is_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process counts as the only one: it does all the work."""
    before = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(before)


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; ``(0, 1)`` without a group."""
    if not _is_alone.get() and dist.is_available() and dist.is_initialized():
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


def barrier() -> None:
    """Waits for all processes."""
    if rank_and_size()[1] > 1:
        dist.barrier()


@contextmanager
def launched_group(device: str) -> Iterator[str]:
    """The process group that ``torchrun`` asks for, if it launched this process.

    Yields:
        *str*: This process's own device.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()
