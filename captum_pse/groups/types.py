"""The types of groups: how they follow from promotion and suppression, and their names.

The functions are element-wise. ``promotion`` and ``suppression`` are at least 0, in
units of the model's scores (logits).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Effects of at most ``EPS`` logits count as none.
EPS = 1e-3
#: A group is dominated where its ratio is beyond this many octaves.
DOMINANCE = 1.0


class GroupType(NamedTuple):
    """One type of group.

    Attributes:
        name (str): In tables and figures.
        code (int): In tensors of types; see :func:`group_types`.
        color (str): In figures and on pages.
        column (str): The column of a summary that counts these groups.
    """

    name: str
    code: int
    color: str
    column: str


#: All types, in the order of figures and tables. Purple is suppression and orange is
#: promotion: they can be told apart with any colour vision. An inactive group is
#: balanced by the formula and counted apart.
TYPES = (
    GroupType("suppression", -1, "#5e3c99", "suppression_dominated"),
    GroupType("balanced", 0, "#bdbdbd", "balanced"),
    GroupType("promotion", 1, "#e66101", "promotion_dominated"),
    GroupType("inactive", 2, "#ffffff", "inactive"),
)
#: The names, in that order.
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
    """Where neither effect is above ``eps``."""
    return (promotion <= eps) & (suppression <= eps)


def group_types(
    promotion: Tensor,
    suppression: Tensor,
    eps: float = EPS,
    threshold: float = DOMINANCE,
) -> Tensor:
    """The code of each group's type, with inactive groups apart; NaN where an effect is
    NaN."""
    ratio = log_ratio(promotion, suppression, eps)
    codes = dominance(ratio, threshold)
    codes = torch.where(is_inactive(promotion, suppression, eps), 2.0, codes)
    return torch.where(ratio.isnan(), ratio, codes)


def type_counts(codes: Tensor, present: Tensor) -> dict[str, Tensor]:
    """How many groups of each type each example has.

    Args:
        codes (Tensor): ``(N, n)``, see :func:`group_types`.
        present (Tensor): bool ``(N, n)``: which groups each example has.

    Returns:
        *dict[str, Tensor]*: int64 ``(N,)``, by the columns of :data:`TYPES`.
    """
    return {kind.column: ((codes == kind.code) & present).sum(1) for kind in TYPES}
