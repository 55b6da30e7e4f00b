"""Figures of pairs and their decompositions.

Captum's ``visualize_image_attr`` accepts every component, too, but it normalises each
map separately and rejects maps that are 0 everywhere. Here, promotion and suppression
share one colour scale in the model's units, and every map can be drawn.

All functions return a :class:`matplotlib.figure.Figure` and do not show it.
"""

from captum_pse.comparison.figure import plot_agreement
from captum_pse.comparison.side_by_side import plot_methods
from captum_pse.dissection.figure import plot_detectors, plot_units
from captum_pse.groups.types import COLORS
from captum_pse.pixels.figure import plot_groups, plot_pair, plot_refinements
from captum_pse.regions.figure import plot_regions
from captum_pse.studies.figure import (
    plot_interpretability,
    plot_refinement_curves,
    plot_types,
)
from captum_pse.units.figure import (
    plot_masking,
    plot_relation,
    plot_sensitivity,
    plot_unit_changes,
)

__all__ = [
    "COLORS",
    "plot_agreement",
    "plot_detectors",
    "plot_groups",
    "plot_interpretability",
    "plot_masking",
    "plot_methods",
    "plot_pair",
    "plot_refinement_curves",
    "plot_refinements",
    "plot_regions",
    "plot_relation",
    "plot_sensitivity",
    "plot_types",
    "plot_unit_changes",
    "plot_units",
]
