"""Figures of refined attacks."""

from __future__ import annotations

from collections.abc import Mapping

from captum_pse.refinement import Curve, Refinement
from captum_pse.visualization._figure import Figure

#: Okabe and Ito's colours and markers, told apart with any colour vision.
STYLES = (
    ("#d55e00", "o"),
    ("#0072b2", "s"),
    ("#009e73", "^"),
    ("#666666", "x"),
    ("#cc79a7", "D"),
)


def plot_refinements(
    refinements: Mapping[str, Refinement | Curve], *, title: str | None = None
) -> Figure:
    """Whether attacks survive on part of their groups, for several rankings.

    To the left the share that still reaches the attack label, in the middle the share
    that still leaves the true label, to the right the L2 norm of what is left, each
    against the fraction of groups kept.

    Args:
        refinements (mapping): By the name of their ranking, at most five: each a
            :class:`captum_pse.Refinement`, or what its ``curve()`` gives.
        title (str, optional): Above the figure. Default: None

    Returns:
        *Figure*: Three panels, a line for each ranking: shares in [0, 1], and the mean
        L2 norm in input units.

    Raises:
        ValueError: None, or more than five.

    Examples::

        >>> from captum_pse import grid_mask, refine
        >>> from captum_pse.demo import load_model, make_pairs
        >>> pair, mask = make_pairs(2), grid_mask((64, 64), cell=16)
        >>> delta = (pair.adversarial - pair.natural).abs()
        >>> found = refine(load_model(), *pair, scores=delta, feature_mask=mask)
        >>> figure = plot_refinements({"|delta|": found})
        >>> reaches = figure.axes[0].lines[0].get_ydata().tolist()
        >>> reaches[0], reaches[-1]  # without the perturbation, and with all of it
        (0.0, 1.0)
    """
    if not 1 <= len(refinements) <= len(STYLES):
        raise ValueError(
            f"refinements: got {len(refinements)}, want 1 to {len(STYLES)}"
        )
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("reaches", "still says the attack label", "share of attacks"),
        ("leaves", "still does not say the true label", "share of attacks"),
        ("L2", "what is left of the perturbation", "mean L2 norm"),
    )
    for ax, (key, name, unit) in zip(axes, panels, strict=True):
        for (ranking, refinement), (color, marker) in zip(
            refinements.items(), STYLES, strict=False
        ):
            curve = (
                refinement.curve() if isinstance(refinement, Refinement) else refinement
            )
            ax.plot(
                [point["fraction"] for point in curve],
                [point[key] for point in curve],
                color=color,
                marker=marker,
                markersize=4,
                label=ranking or None,
            )
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("fraction of groups kept")
        ax.set_ylabel(unit)
        ax.set_xlim(-0.02, 1.02)
        ax.grid(alpha=0.3)
        if key != "L2":
            ax.set_ylim(-0.02, 1.02)
    if any(refinements):
        axes[0].legend(fontsize=8, title="groups kept by", title_fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
