"""The value that a unit exceeds at a small share of all positions, from a stream.

Both classes see each activation once, can be merged with what other processes saw, and
give ``numpy.quantile(values, 1 - quantile)`` of every unit: :class:`TopValues` exactly,
:class:`ValueHistogram` to 0.2 %, in memory that does not depend on the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from captum_pse._io.distributed import of_all_processes, sum_over_processes


class Quantiles(ABC):
    """What is known of the values of K units.

    Attributes:
        values (Tensor): What there is to save, and to gather from other processes.
        seen (int): How many values of each unit were seen.
    """

    values: Tensor
    seen: int = 0

    @abstractmethod
    def update(self, activations: Tensor) -> None:
        """Takes in activations ``(N, K, ...)``."""

    @abstractmethod
    def thresholds(self, quantile: float) -> Tensor | None:
        """Shape ``(K,)``; None where too little was kept to tell."""

    @abstractmethod
    def _merge(self, values: Tensor) -> None:
        """Takes in what another process saw."""

    def state(self) -> dict[str, Tensor]:
        """All of it, to be saved."""
        return {"values": self.values, "seen": torch.tensor(self.seen)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what :meth:`state` gave."""
        self.values = state["values"].to(self.values.device)
        self.seen = int(state["seen"])

    def combine(self) -> None:
        """Takes in what all processes saw; every process has to call it."""
        seen = torch.tensor(self.seen, device=self.values.device)
        self.seen = int(sum_over_processes(seen))
        self.values, *others = of_all_processes(self.values)
        for values in others:
            self._merge(values)


def kept_for(seen: int, quantile: float) -> int:
    """How many of the largest of so many values the quantile depends on."""
    return seen - math.floor((seen - 1) * (1 - quantile))


class TopValues(Quantiles):
    """Each unit's largest values, ``(K, keep)``, descending; -inf where there is none.

    Args:
        n_units (int): K.
        keep (int): How many values of each unit to keep.
        dtype (torch.dtype, optional): In which; that of the activations, so that a
            constant unit never exceeds its threshold. Default: torch.float32
        device (torch.device, optional): Where to keep them. Default: None
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
        places = above.flatten().nonzero()[:, 0]
        if len(places) == 0:
            return None
        # Each unit's values become a row of their own, filled up with -inf.
        units, order = (places // n_positions % n_units).sort(stable=True)
        counts = units.bincount(minlength=n_units)
        first = counts.cumsum(0) - counts
        column = torch.arange(len(units), device=units.device) - first[units]
        new = maps.new_full((n_units, int(counts.max())), -torch.inf)
        new[units, column] = maps.flatten()[places[order]]
        return self._merge(new)

    def _merge(self, values: Tensor) -> None:
        # A few units at a time, as what is sorted takes several times their memory.
        for kept, new in zip(self.values.split(32), values.split(32), strict=True):
            kept.copy_(torch.cat([kept, new], dim=1).topk(kept.shape[1], dim=1).values)

    def thresholds(self, quantile: float) -> Tensor | None:
        needed = kept_for(self.seen, quantile)
        if needed > self.values.shape[1]:
            return None
        place = (self.seen - 1) * (1 - quantile)
        low = self.values[:, needed - 1].double()
        high = self.values[:, max(needed - 2, 0)].double()
        return (low + (place - math.floor(place)) * (high - low)).to(self.values)


class ValueHistogram(Quantiles):
    """Counts of values by their sign, exponent and 9 bits of mantissa, ``(K, 65536)``.

    Bins are 0.2 % wide, for magnitudes of ``2**-32`` to ``2**32``. The quantile is the
    upper edge of its bin, so that a constant unit never exceeds its threshold.

    Args:
        n_units (int): K.
        device (torch.device, optional): Where to keep the counts. Default: None
    """

    #: How many bins either sign has, and the bits of the magnitude of the first one.
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
        place = (self.seen - 1) * (1 - quantile)
        bins = (self.values.cumsum(dim=1) <= place).sum(dim=1) - self._HALF
        if int(bins.max()) == self._HALF - 1:
            raise ValueError("layers: got activations above 2**32, want smaller ones")
        # The edge nearer to the larger values: above for positive, below for negative.
        edge = torch.where(bins >= 0, bins + 1, -1 - bins) + self._SMALLEST
        bits = (edge << self._SHIFT) - (bins >= 0).long()
        magnitude = bits.int().view(torch.float32)
        return torch.where(bins >= 0, magnitude, -magnitude)
