"""Explains adversarial examples: what they promote and what they suppress.

A plugin for Captum. The methods are those of Xu et al., "Interpreting Adversarial
Examples by Activation Promotion and Suppression", arXiv:1904.02057.
"""

from captum_pse._engine.choice import EngineWarning
from captum_pse._io.manifest import package_version
from captum_pse._model.score_warnings import ProbabilityWarning, SaturationWarning
from captum_pse.attacks.structured import StructuredAttack
from captum_pse.comparison.agreement import Agreement, agreement
from captum_pse.comparison.paired_attribution import PairedAttribution
from captum_pse.dissection.network_dissection import NetworkDissection
from captum_pse.dissection.result import Dissection
from captum_pse.groups.masks import (
    channel_mask,
    default_feature_mask,
    grid_mask,
    superpixel_mask,
)
from captum_pse.pairs.labels import PredictionWarning
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pixels.incremental_ablation import IncrementalAblation
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.refine import refine
from captum_pse.pixels.refinement import Refinement
from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.regions.interpretability import (
    InterpretabilityScore,
    interpretability_score,
)
from captum_pse.regions.result import RegionDecomposition
from captum_pse.studies.result import Study
from captum_pse.studies.run import study
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.hardening import Hardened, harden
from captum_pse.units.masked_copy import masked_copy
from captum_pse.units.masking import UnitRange, mask_units, unit_range
from captum_pse.units.masking_curves import MaskingCurves, evaluate_masking
from captum_pse.units.masking_test import MaskingTest, masking_test
from captum_pse.units.relation import Relation, relate
from captum_pse.units.result import UnitDecomposition
from captum_pse.units.sensitivity import UnitSensitivity

__version__ = package_version()

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
    "MaskingTest",
    "NetworkDissection",
    "PairedAttribution",
    "PixelDecomposition",
    "PredictionWarning",
    "ProbabilityWarning",
    "PromotionSuppression",
    "Refinement",
    "RegionDecomposition",
    "Relation",
    "SaturationWarning",
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
    "masking_test",
    "refine",
    "relate",
    "study",
    "superpixel_mask",
    "unit_range",
]
