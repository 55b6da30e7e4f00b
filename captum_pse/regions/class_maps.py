"""Class activation maps, for any number of spatial dimensions.

All functions take activations ``(N, K, ...)`` and return maps ``(N, 1, ...)`` without
ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): ``sum_k w_k A_k``, with mean gradients w."""
    spatial = tuple(range(2, activations.dim()))
    weights = gradients.mean(dim=spatial, keepdim=True)
    return (weights * activations).sum(dim=1, keepdim=True)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++ (Chattopadhay et al. 2018): ``sum_k w_k A_k``.

    The paper's score is ``Y = exp(S)`` of the logit ``S``. If S is piecewise linear in
    A and ``g = dS/dA_ij``, the first three derivatives of Y with respect to one
    activation are ``exp(S) g``, ``exp(S) g^2`` and ``exp(S) g^3``. Equation 19 of the
    paper becomes

    .. math::
        \alpha_{ij}^k = \frac{g_{ij}^2}{2 g_{ij}^2 + g_{ij}^3 \sum_{ab} A_{ab}^k},
        \qquad w_k = \sum_{ij} \alpha_{ij}^k \max(g_{ij}, 0),

    with 0/0 = 0. The factor ``exp(S)`` of ``w_k`` is the same for all units and is left
    out, since maps of different inputs could not be compared with it.
    """
    spatial = tuple(range(2, activations.dim()))
    total = activations.sum(dim=spatial, keepdim=True)
    square = gradients**2
    denominator = 2 * square + total * square * gradients
    alpha = torch.where(denominator == 0, 0, square / denominator)
    weights = (alpha * gradients.clamp(min=0)).sum(dim=spatial, keepdim=True)
    return (weights * activations).sum(dim=1, keepdim=True)


#: Of each method that needs gradients, its function.
GRADIENT_MAPS = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus}


def cam(activations: Tensor, weights: Tensor) -> Tensor:
    """CAM (Zhou et al. 2016): ``sum_k W_ck A_k``, with rows ``(N, K)`` of the head."""
    shape = (*weights.shape, *(1,) * (activations.dim() - 2))
    return (weights.reshape(shape) * activations).sum(dim=1, keepdim=True)
