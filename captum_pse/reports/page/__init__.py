"""The report: one self-contained page on a set of explained pairs.

The page needs no network and no other file: it holds its pictures as data URIs, and its
scripts and style. The templates escape all text of the user, such as names and labels.
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
