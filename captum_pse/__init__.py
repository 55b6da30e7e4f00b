"""Explains adversarial examples by what they promote and what they suppress.

A plugin for Captum, after Xu et al., "Interpreting Adversarial Examples by Activation
Promotion and Suppression", arXiv:1904.02057.
"""

from captum_pse.decomposition import PixelDecomposition
from captum_pse.groups import (
    channel_mask,
    default_feature_mask,
    grid_mask,
    superpixel_mask,
)
from captum_pse.labels import PredictionWarning
from captum_pse.pair import AdversarialPair
from captum_pse.promotion_suppression import PromotionSuppression

__version__ = "0.1.0"

__all__ = [
    "AdversarialPair",
    "PixelDecomposition",
    "PredictionWarning",
    "PromotionSuppression",
    "channel_mask",
    "default_feature_mask",
    "grid_mask",
    "superpixel_mask",
]
