"""Quantiles of the activations of units, computed in one pass.

Both classes compute ``numpy.quantile(values, 1 - quantile)`` for each unit and can be
combined over processes. :class:`TopValues` is exact; :class:`ValueHistogram` is
accurate to 0.2 % and uses constant memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from captum_pse._io.distributed import of_all_processes, sum_over_processes


class Quantiles(ABC):
    """Quantiles of K units from a stream of activations.

    Attributes:
        values (Tensor): The state, which is saved and gathered from other processes.
        seen (int): Number of values of each unit so far.
    """

    values: Tensor
    seen: int = 0

    @abstractmethod
    def update(self, activations: Tensor) -> None:
        """Adds activations ``(N, K, ...)``."""

    @abstractmethod
    def thresholds(self, quantile: float) -> Tensor | None:
        """The value that each unit exceeds at the fraction ``quantile`` of positions,
        ``(K,)``; None if too few values were kept."""

    @abstractmethod
    def _merge(self, values: Tensor) -> None:
        """Adds the state of another process."""

    def state(self) -> dict[str, Tensor]:
        """The state, for a checkpoint."""
        return {"values": self.values, "seen": torch.tensor(self.seen)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        self.values = state["values"].to(self.values.device)
        self.seen = int(state["seen"])

    def combine(self) -> None:
        """Adds the states of all processes. Every process must call it."""
        seen = torch.tensor(self.seen, device=self.values.device)
        self.seen = int(sum_over_processes(seen))
        self.values, *others = of_all_processes(self.values)
        for values in others:
            self._merge(values)


def kept_for(seen: int, quantile: float) -> int:
    """The number of largest values, of ``seen``, on which the quantile depends."""
    return seen - math.floor((seen - 1) * (1 - quantile))


class TopValues(Quantiles):
    """Each unit's largest values, ``(K, keep)``, descending; -inf for missing ones.

    Args:
        n_units (int): K, the number of units.
        keep (int): Number of values to keep for each unit.
        dtype (torch.dtype, optional): The dtype of the values. Use that of the
            activations, so that a constant unit never exceeds its threshold.
            Default: torch.float32
        device (torch.device, optional): The device of the values. Default: None
    """

    def __init__(
        self,
        n_units: int,
        keep: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        shape = n_units, keep
        self.values = torch.full(shape, -torch.inf, dtype=dtype, device=device)

    def update(self, activations: Tensor) -> None:
        maps = activations.flatten(2).to(self.values.dtype)
        n_units, n_positions = maps.shape[1:]
        self.seen += len(maps) * n_positions
        floor = self.values[:, -1:]
        if bool((floor == -torch.inf).any()):
            return self._merge(maps.transpose(0, 1).flatten(1))
        above = maps > floor
        index = above.flatten().nonzero()[:, 0]
        if len(index) == 0:
            return None
        # One row for each unit's values, padded with -inf.
        units, order = (index // n_positions % n_units).sort(stable=True)
        counts = units.bincount(minlength=n_units)
        first = counts.cumsum(0) - counts
        column = torch.arange(len(units), device=units.device) - first[units]
        new = maps.new_full((n_units, int(counts.max())), -torch.inf)
        new[units, column] = maps.flatten()[index[order]]
        return self._merge(new)

    def _merge(self, values: Tensor) -> None:
        # 32 units at a time: sorting takes several times their memory.
        for kept, new in zip(self.values.split(32), values.split(32), strict=True):
            kept.copy_(torch.cat([kept, new], dim=1).topk(kept.shape[1], dim=1).values)

    def thresholds(self, quantile: float) -> Tensor | None:
        needed = kept_for(self.seen, quantile)
        if needed > self.values.shape[1]:
            return None
        rank = (self.seen - 1) * (1 - quantile)
        low = self.values[:, needed - 1].double()
        high = self.values[:, max(needed - 2, 0)].double()
        return (low + (rank - math.floor(rank)) * (high - low)).to(self.values)


class ValueHistogram(Quantiles):
    """Counts of values by sign, exponent and 9 bits of the mantissa, ``(K, 65536)``.

    Bins are 0.2 % wide, for magnitudes from ``2**-32`` to ``2**32``. The threshold is
    the upper edge of the quantile's bin, so that a constant unit never exceeds it.

    Args:
        n_units (int): K, the number of units.
        device (torch.device, optional): The device of the counts. Default: None
    """

    #: The number of bins for each sign, and the bits of the first bin's magnitude.
    _HALF = 64 << 9
    _SMALLEST = (127 - 32) << 9
    _SHIFT = 23 - 9

    def __init__(self, n_units: int, device: torch.device | None = None) -> None:
        shape = n_units, 2 * self._HALF
        self.values = torch.zeros(shape, dtype=torch.int64, device=device)

    def update(self, activations: Tensor) -> None:
        rows = activations.transpose(0, 1).flatten(1).float()
        self.seen += rows.shape[1]
        magnitude = (rows.abs().view(torch.int32) >> self._SHIFT) - self._SMALLEST
        magnitude = magnitude.clamp(0, self._HALF - 1).long()
        bins = self._HALF + magnitude.where(rows >= 0, -1 - magnitude)
        self.values.scatter_add_(1, bins, torch.ones_like(bins))

    def _merge(self, values: Tensor) -> None:
        self.values = self.values + values

    def thresholds(self, quantile: float) -> Tensor:
        rank = (self.seen - 1) * (1 - quantile)
        bins = (self.values.cumsum(dim=1) <= rank).sum(dim=1) - self._HALF
        if int(bins.max()) == self._HALF - 1:
            raise ValueError("layers: got activations above 2**32, want smaller ones")
        # The upper edge: the larger magnitude for positive values, the smaller one for
        # negative values.
        edge = torch.where(bins >= 0, bins + 1, -1 - bins) + self._SMALLEST
        bits = (edge << self._SHIFT) - (bins >= 0).long()
        magnitude = bits.int().view(torch.float32)
        return torch.where(bins >= 0, magnitude, -magnitude)
