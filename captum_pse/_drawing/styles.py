"""Colours, markers and colour scales of all figures and reports."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

#: Okabe and Ito's colours, which are distinct with any colour vision.
OKABE_ITO = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#f0e442", "#666666"),
)
#: Colours and markers of the lines of a figure, in order.
STYLES = (
    ("#d55e00", "o"),
    ("#0072b2", "s"),
    ("#009e73", "^"),
    ("#666666", "x"),
    ("#cc79a7", "D"),
)


def sampled(name: str, n: int) -> npt.NDArray[Any]:
    """``n`` evenly spaced colours ``(n, 3)`` in [0, 1] of a matplotlib colour map."""
    rgba: npt.NDArray[Any] = matplotlib.colormaps[name](np.linspace(0, 1, n))
    return rgba[:, :3]
