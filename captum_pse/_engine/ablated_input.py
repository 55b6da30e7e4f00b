"""One input of one example, with one group ablated at a time."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from captum_pse._engine.rows import RowIndex
from captum_pse._engine.windows import Boxes


class AblatedInput:
    """Makes copies of an input in which a group has the values of the baseline.

    Args:
        x, baseline (Tensor): Shape ``(1, ...)``.
        index (Tensor): The group of each feature; broadcasts to ``x``.
        n_groups (int): How many groups there are.
    """

    def __init__(
        self, x: Tensor, baseline: Tensor, index: Tensor, n_groups: int
    ) -> None:
        self.x, self.baseline = x, baseline.expand_as(x)
        #: The group that changes each feature, -1 for none.
        self.owner = torch.where(x != baseline, index.expand_as(x), -1)
        self.n_groups = n_groups

    @property
    def is_image(self) -> bool:
        return self.x.dim() == 4

    @cached_property
    def changing(self) -> Tensor:
        """bool ``(n_groups,)``: which groups change a feature of this input."""
        found = torch.zeros(self.n_groups + 1, dtype=torch.bool, device=self.x.device)
        found[self.owner.flatten()] = True
        return found[:-1]

    def boxes(self, groups: Tensor) -> Boxes:
        """What each of these groups changes of an image ``(1, C, H, W)``.

        The box of a group that changes nothing is one pixel.
        """
        slots = torch.where(self.owner < 0, self.n_groups, self.owner).flatten()
        lo, hi = [], []
        for axis in (2, 3):
            n = self.x.shape[axis]
            shape = [n if a == axis else 1 for a in range(4)]
            at = torch.arange(n, device=self.x.device).reshape(shape)
            at = at.expand(self.x.shape).flatten()
            start = at.new_full((self.n_groups + 1,), n)
            lo.append(start.scatter_reduce(0, slots, at, "amin"))
            hi.append((start - n - 1).scatter_reduce(0, slots, at, "amax"))
        first, last = (
            torch.stack(side, dim=1)[groups].cpu().numpy() for side in (lo, hi)
        )
        nowhere = last < 0
        return Boxes(np.where(nowhere, 0, first), np.where(nowhere, 0, last))

    def windows(self, index: RowIndex, chunk: slice, groups: Tensor) -> Tensor:
        """Windows of an image, each with its group ablated, in channels last.

        Args:
            index (RowIndex): The rows of the windows in the image.
            chunk (slice): Which windows.
            groups (Tensor): The group of each of them.
        """
        numbers = index.of(chunk, self.x.device).flatten()
        x, baseline, owner = (
            rows.index_select(0, numbers).unflatten(0, (len(groups), index.area))
            for rows in self._rows
        )
        rows = torch.where(owner == groups[:, None, None], baseline, x)
        return rows.reshape(len(groups), *index.size, -1).movedim(-1, 1)

    @cached_property
    def _rows(self) -> list[Tensor]:
        """The image, the baseline and the owners with a row for each pixel."""
        return [
            value[0].movedim(0, -1).reshape(-1, value.shape[1])
            for value in (self.x, self.baseline, self.owner)
        ]

    def copies(self, groups: Tensor) -> Tensor:
        """The whole input, once for each group, which is ablated."""
        of = groups.reshape(-1, *(1,) * (self.x.dim() - 1))
        return torch.where(self.owner == of, self.baseline, self.x)
