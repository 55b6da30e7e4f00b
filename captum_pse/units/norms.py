"""The size of a unit's change, as one number."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_pse._model.checks import check_choice

Norm: TypeAlias = Literal["l2", "l1", "linf", "mean"]
NORMS: tuple[str, ...] = get_args(Norm)


def unit_norm(values: Tensor, norm: Norm, channel_dim: int = 1) -> Tensor:
    """A norm over the positions of each unit, ``(N, K)``, at least single precision."""
    check_choice("norm", norm, NORMS)
    exact = torch.promote_types(values.dtype, torch.float32)
    rows = values.movedim(channel_dim, 1).to(exact)
    rows = rows.reshape(*rows.shape[:2], -1)
    if norm == "mean":
        return rows.mean(dim=2)
    order = {"l2": 2, "l1": 1, "linf": torch.inf}[norm]
    return torch.linalg.vector_norm(rows, order, dim=2)


#: A unit's scale counts as at least this fraction of the mean scale of its layer.
FLOOR = 0.1


def relative_to(change: Tensor, scale: Tensor) -> Tensor:
    """``change`` of K units, ``(..., K)``, divided by their ``scale``, ``(K,)``.

    A scale counts as at least :data:`FLOOR` of the mean scale of the K units, so that
    units with a scale of almost 0 do not lead a ranking for that reason. If all scales
    are 0, changes are divided by the mean absolute change instead. 0/0 is 0.
    """
    mean = scale.mean()
    least = FLOOR * mean if mean > 0 else change.abs().mean()
    return torch.where(change == 0, 0, change / scale.clamp(min=least))
