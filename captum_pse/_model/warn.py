"""Warnings that point at the line of the user's code that led to them."""

from __future__ import annotations

import sys
import warnings


def warn(message: str, category: type[Warning]) -> None:
    """Warns at the first frame outside of captum_pse, captum and torch."""
    level, frame = 1, sys._getframe()
    inner = ("captum_pse", "captum", "torch")
    while frame.f_globals.get("__name__", "").split(".")[0] in inner and frame.f_back:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
