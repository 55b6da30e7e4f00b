"""The types of groups: their names, and how promotion and suppression define them.

All functions are element-wise. ``promotion`` and ``suppression`` are at least 0, in
units of the model's scores.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Promotion and suppression of at most ``EPS``, in score units, count as none.
EPS = 1e-3
#: A group is dominated if the absolute value of its ratio exceeds this many octaves.
DOMINANCE = 1.0


class GroupType(NamedTuple):
    """One type of group.

    Attributes:
        name (str): Name in tables and figures.
        code (int): Code in tensors of types; see :func:`group_types`.
        color (str): Colour in figures and reports.
        column (str): Column of a summary with the number of these groups.
    """

    name: str
    code: int
    color: str
    column: str


#: All types, in the order of figures and tables. Suppression is purple and promotion is
#: orange, which are distinct with any colour vision. An inactive group is balanced by
#: its ratio, but counted separately.
TYPES = (
    GroupType("suppression", -1, "#5e3c99", "suppression_dominated"),
    GroupType("balanced", 0, "#bdbdbd", "balanced"),
    GroupType("promotion", 1, "#e66101", "promotion_dominated"),
    GroupType("inactive", 2, "#ffffff", "inactive"),
)
#: The names of all types, in the order of :data:`TYPES`.
TYPE_NAMES = tuple(kind.name for kind in TYPES)
#: The colour of each type, by name.
COLORS = {kind.name: kind.color for kind in TYPES}


def log_ratio(promotion: Tensor, suppression: Tensor, eps: float = EPS) -> Tensor:
    """``log2(max(promotion, eps) / max(suppression, eps))``, in octaves."""
    return torch.log2(promotion.clamp(min=eps)) - torch.log2(suppression.clamp(min=eps))


def dominance(ratio: Tensor, threshold: float = DOMINANCE) -> Tensor:
    """-1 suppression-dominated, 0 balanced, 1 promotion-dominated; same dtype."""
    return (ratio > threshold).to(ratio.dtype) - (ratio < -threshold).to(ratio.dtype)


def is_inactive(promotion: Tensor, suppression: Tensor, eps: float = EPS) -> Tensor:
    """Whether neither promotion nor suppression exceeds ``eps``."""
    return (promotion <= eps) & (suppression <= eps)


def group_types(
    promotion: Tensor,
    suppression: Tensor,
    eps: float = EPS,
    threshold: float = DOMINANCE,
) -> Tensor:
    """The code of each group's type, including inactive; NaN if promotion or
    suppression is NaN."""
    ratio = log_ratio(promotion, suppression, eps)
    codes = dominance(ratio, threshold)
    codes = torch.where(is_inactive(promotion, suppression, eps), 2.0, codes)
    return torch.where(ratio.isnan(), ratio, codes)


def type_counts(codes: Tensor, present: Tensor) -> dict[str, Tensor]:
    """How many groups of each type each example has.

    Args:
        codes (Tensor): Codes of types, ``(N, n)``; see :func:`group_types`.
        present (Tensor): bool ``(N, n)``: which groups each example has.

    Returns:
        *dict[str, Tensor]*: int64 ``(N,)`` for each column of :data:`TYPES`.
    """
    return {kind.column: ((codes == kind.code) & present).sum(1) for kind in TYPES}
