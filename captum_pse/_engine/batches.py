"""Limits how many copies of the inputs one pass holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

#: Bytes that a pass may take beside the model; safe on a machine or GPU of 8 GiB.
MEMORY_LIMIT = 1 << 30

#: Estimated memory of a pass, in sizes of the input: its two largest successive maps.
#: Wide networks on small images need the most.
DENSE_FACTOR = 256
#: The same for a pass that stores activations for its gradients.
GRADIENT_FACTOR = 512


def copies_in(memory_limit: int, bytes_per_copy: int) -> int:
    """How many copies a pass may hold; at least one."""
    return max(1, memory_limit // max(1, bytes_per_copy))


def size_of(inputs: tuple[Tensor, ...]) -> int:
    """Bytes of the inputs."""
    return sum(x.numel() * x.itemsize for x in inputs)


Result = TypeVar("Result")


class Batches:
    """Splits work into batches, and into smaller ones after running out of memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def each(
        self, total: int, evaluate: Callable[[slice], Result]
    ) -> Iterator[tuple[slice, Result]]:
        """The results of ``evaluate`` for slices that together are ``range(total)``.

        If it runs out of memory, all later batches have half the size. A batch of one
        raises the error.
        """
        start = 0
        while start < total:
            chunk = slice(start, min(start + self.size, total))
            try:
                result = evaluate(chunk)
            except RuntimeError as error:
                taken = chunk.stop - chunk.start
                if not is_out_of_memory(error) or taken == 1:
                    raise
                self.size = taken // 2
                continue
            yield chunk, result
            start = chunk.stop


def is_out_of_memory(error: BaseException) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
