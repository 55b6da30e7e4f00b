"""How far a unit changes, as one number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass


Norm: TypeAlias = Literal["l2", "l1", "linf", "mean"]


NORMS: tuple[str, ...] = get_args(Norm)


def unit_norm(values: Tensor, norm: Norm, channel_dim: int = 1) -> Tensor:
    """A norm over the positions of each unit, ``(N, K)``, at least single precision."""
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, want one of {', '.join(NORMS)}")
    exact = torch.promote_types(values.dtype, torch.float32)
    rows = values.movedim(channel_dim, 1).to(exact)
    rows = rows.reshape(*rows.shape[:2], -1)
    if norm == "mean":
        return rows.mean(dim=2)
    order = {"l2": 2, "l1": 1, "linf": torch.inf}[norm]
    return torch.linalg.vector_norm(rows, order, dim=2)


def relative_to(moved: Tensor, scale: Tensor) -> Tensor:
    """``moved / scale`` with 0/0 = 0."""
    return torch.where(moved == 0, 0, moved / scale)
