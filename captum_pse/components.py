"""The vocabulary of promotion and suppression, for any kind of group.

All functions are element-wise. ``promotion`` and ``suppression`` are in units of the
model's scores (logits) and at least 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Effects at or below ``EPS`` logits count as none.
EPS = 1e-3
#: A group is dominated where the ratio is beyond this many octaves on either side.
DOMINANCE = 1.0


def log_ratio(promotion: Tensor, suppression: Tensor, eps: float = EPS) -> Tensor:
    """``log2(max(promotion, eps) / max(suppression, eps))``, in octaves."""
    return torch.log2(promotion.clamp(min=eps)) - torch.log2(suppression.clamp(min=eps))


def dominance(ratio: Tensor, threshold: float = DOMINANCE) -> Tensor:
    """-1 suppression-dominated, 0 balanced, 1 promotion-dominated; same dtype."""
    return (ratio > threshold).to(ratio.dtype) - (ratio < -threshold).to(ratio.dtype)


def is_inactive(promotion: Tensor, suppression: Tensor, eps: float = EPS) -> Tensor:
    """Where neither effect is above ``eps``."""
    return (promotion <= eps) & (suppression <= eps)
