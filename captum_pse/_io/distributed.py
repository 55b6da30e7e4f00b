"""Calls of torch.distributed that also work in a single process."""

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
    """Within the block, this process works as if it were the only one."""
    before = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(before)


def rank_and_size() -> tuple[int, int]:
    """The process's rank and the number of processes; ``(0, 1)`` without a group."""
    if not _is_alone.get() and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Sums tensors of one shape over all processes; every process gets the sum."""
    if rank_and_size()[1] == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def of_all_processes(values: Tensor) -> list[Tensor]:
    """Gathers tensors of one shape, by rank; every process gets all of them."""
    size = rank_and_size()[1]
    if size == 1:
        return [values]
    gathered = [torch.empty_like(values) for _ in range(size)]
    dist.all_gather(gathered, values.contiguous())
    return gathered


def barrier() -> None:
    """Waits until all processes arrive here."""
    if rank_and_size()[1] > 1:
        dist.barrier()


@contextmanager
def launched_group(device: str) -> Iterator[str]:
    """Opens the process group, if ``torchrun`` launched this process.

    Args:
        device (str): The device that the user chose; ``"cuda"`` becomes this process's
            own GPU.

    Yields:
        *str*: This process's device.
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
