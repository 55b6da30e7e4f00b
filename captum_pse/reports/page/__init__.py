"""The report: one self-contained page on a set of explained pairs.

It needs no network and no other file: pictures are data URIs, and its script and style
stand in it. Names and labels come from the user and are escaped by the templates.
"""

from captum_pse.reports.page.levels import (
    REFINEMENT,
    decomposed_pair,
    decomposed_set,
    unit_pair,
    unit_set,
)
from captum_pse.reports.page.page import Page, PairEntry, write_page

__all__ = [
    "REFINEMENT",
    "Page",
    "PairEntry",
    "decomposed_pair",
    "decomposed_set",
    "unit_pair",
    "unit_set",
    "write_page",
]
