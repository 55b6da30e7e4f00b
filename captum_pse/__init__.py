"""Explains adversarial examples by what they promote and what they suppress.

A plugin for Captum, after Xu et al., "Interpreting Adversarial Examples by Activation
Promotion and Suppression", arXiv:1904.02057.
"""

from captum_pse._engine.choice import EngineWarning
from captum_pse.adversarial_cam import AdversarialCAM
from captum_pse.agreement import Agreement, agreement
from captum_pse.attacks import StructuredAttack
from captum_pse.dissection import Dissection, NetworkDissection
from captum_pse.dissection_sensitivity import DissectionSensitivity
from captum_pse.groups import (
    channel_mask,
    default_feature_mask,
    grid_mask,
    superpixel_mask,
)
from captum_pse.hardening import Hardened, harden, masked_copy
from captum_pse.incremental_ablation import IncrementalAblation
from captum_pse.interpretability import (
    InterpretabilityScore,
    interpretability_score,
)
from captum_pse.masking_curves import MaskingCurves, evaluate_masking
from captum_pse.pair import AdversarialPair
from captum_pse.pair_labels import PredictionWarning
from captum_pse.paired_attribution import PairedAttribution
from captum_pse.pixel_decomposition import PixelDecomposition
from captum_pse.promotion_suppression import PromotionSuppression
from captum_pse.refinement import Refinement, refine
from captum_pse.region_decomposition import RegionDecomposition
from captum_pse.relation import Relation, relate
from captum_pse.studies import Study, study
from captum_pse.unit_decomposition import UnitDecomposition
from captum_pse.unit_masking import UnitRange, mask_units, unit_range
from captum_pse.unit_sensitivity import UnitSensitivity

__version__ = "0.1.0"

__all__ = [
    "AdversarialCAM",
    "AdversarialPair",
    "Agreement",
    "Dissection",
    "DissectionSensitivity",
    "EngineWarning",
    "Hardened",
    "IncrementalAblation",
    "InterpretabilityScore",
    "MaskingCurves",
    "NetworkDissection",
    "PairedAttribution",
    "PixelDecomposition",
    "PredictionWarning",
    "PromotionSuppression",
    "Refinement",
    "RegionDecomposition",
    "Relation",
    "StructuredAttack",
    "Study",
    "UnitDecomposition",
    "UnitRange",
    "UnitSensitivity",
    "agreement",
    "channel_mask",
    "default_feature_mask",
    "evaluate_masking",
    "grid_mask",
    "harden",
    "interpretability_score",
    "mask_units",
    "masked_copy",
    "refine",
    "relate",
    "study",
    "superpixel_mask",
    "unit_range",
]
