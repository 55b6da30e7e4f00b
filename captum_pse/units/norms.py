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


def relative_to(change: Tensor, scale: Tensor) -> Tensor:
    """``change / scale`` with 0/0 = 0."""
    return torch.where(change == 0, 0, change / scale)
