"""The figure of the agreement of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from captum_pse._drawing.figure import Figure
from captum_pse._drawing.images import to_numpy
from captum_pse._io.text import printable

if TYPE_CHECKING:
    from captum_pse.comparison.agreement import Agreement


def plot_agreement(result: Agreement, *, title: str | None = None) -> Figure:
    """Rank correlation and overlap of methods, as two matrices.

    Args:
        result (Agreement): The agreement of any number of methods.
        title (str, optional): Title of the figure. Default: None

    Returns:
        *Figure*: Left, Spearman's rho, coloured from -1 to 1. Right, the overlap of the
        top groups, coloured from 0 to 1. Both are means over the examples, ignoring
        NaN.

    Examples::

        >>> import torch
        >>> from captum_pse import agreement
        >>> first = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> figure = plot_agreement(agreement({"a": first, "b": -first}, top=2))
        >>> [ax.images[0].get_array().tolist() for ax in figure.axes]
        [[[1.0, -1.0], [-1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    """
    names = [printable(name) for name in result.names]
    figure = Figure(figsize=(4 + 1.1 * len(names), 2 + 0.6 * len(names)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 2)
    panels = (
        (result.rank_correlation.nanmean(0), "Spearman's rank correlation", -1),
        (result.overlap.nanmean(0), f"overlap of the top {result.top} groups", 0),
    )
    for ax, (values, name, low) in zip(axes, panels, strict=True):
        cells = to_numpy(values)
        cmap = "PuOr_r" if low < 0 else "Oranges"
        ax.imshow(cells, cmap=cmap, vmin=low, vmax=1)
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
        ax.set_yticks(range(len(names)), names)
        for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            label.set(fontsize=8, parse_math=False)
        for (i, j), value in np.ndenumerate(cells):
            dark = abs(value) > 0.7
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8,
                    color="white" if dark else "black")  # fmt: skip
        examples = f"mean of {len(result)} examples"
        ax.set_title(f"{name}\n{examples}", fontsize=9)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
