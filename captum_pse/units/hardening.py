"""A defence from what was found: a model without the units that attacks move most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.masking import masked_copy
from captum_pse.units.masking_curves import (
    AdaptiveAttack,
    MaskingCurves,
    adaptive_pgd,
    evaluate_masking,
)
from captum_pse.units.rankings import units_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Which parts of a layer's units are tried.
PARTS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, eq=False, repr=False)
class Hardened:
    """A masked model, and how it fares.

    Made by :func:`harden`.

    Attributes:
        model (nn.Module): A copy of the model in which the units give 0; it can be
            saved, and exported by ``torch.export``.
        layer (str): The layer.
        units (tuple[int, ...]): Its units that are masked; none where no number of them
            was worth its price.
        chosen (MaskingCurves): The numbers of units that were tried, on the pairs that
            the choice was made on: too good, since they were chosen from.
        judged (MaskingCurves): None masked, and the choice, on the other pairs.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs = load_model(), make_pairs(8)
        >>> hardened = harden(
        ...     model, "features.conv5", pairs.select(range(4)),
        ...     pairs.select(range(4, 8)), counts=[2],
        ... )
        >>> before = hardened.table()[0]
        >>> before["units"], before["adversarial"]  # all attacks succeed on the model
        (0, 0.0)
        >>> masked = masked_copy(model, {hardened.layer: hardened.units})
        >>> torch.equal(masked(pairs.natural), hardened.model(pairs.natural))
        True
    """

    model: nn.Module
    layer: str
    units: tuple[int, ...]
    chosen: MaskingCurves
    judged: MaskingCurves

    def __repr__(self) -> str:
        return f"Hardened({len(self.units)} units of {self.layer!r} masked)"

    def table(self) -> list[dict[str, Any]]:
        """The rows of ``judged``: of the model as it was, of the masked one, and with
        as many units masked at random.

        Returns:
            *list[dict]*: See :class:`captum_pse.MaskingCurves`: ``clean`` accuracy,
            ``adversarial`` under the stored pairs, ``adaptive`` under the adaptive
            attack, all in [0, 1], with their intervals.
        """
        return self.judged.table()

    def plot(self, **options: Any) -> Figure:
        """The numbers of units that were tried, on the pairs that the choice was made
        on; see :func:`captum_pse.visualization.plot_masking`."""
        return self.chosen.plot(**options)


def harden(
    model: nn.Module,
    layer: str,
    pairs: AdversarialPair,
    judge: AdversarialPair,
    *,
    attack: AdaptiveAttack | None = None,
    counts: Sequence[int] | None = None,
    max_loss: float = 0.02,
    batch_size: int = 16,
    show_progress: bool = False,
) -> Hardened:
    """Masks the units that attacks move most, as many as defend best.

    Units are ranked by their mean sensitivity to ``pairs``. Of the numbers of units at
    which the clean accuracy falls by at most ``max_loss``, that one is taken at which
    the accuracy under a new attack on the masked model is largest; the least of equal
    ones, and none where none is better than the model as it was. ``judge`` then says
    how good the choice is, on other inputs, again under a new attack: without one, a
    defence shows nothing.

    Args:
        model (nn.Module): In evaluation mode; stays as it is.
        layer (str): Name of the layer.
        pairs (AdversarialPair): To choose on, of class labels.
        judge (AdversarialPair): Of other inputs.
        attack (Callable, optional): From a model and pairs to adversarial inputs; None
            is projected gradient descent towards the pairs' attack labels, in 10 steps,
            at most 2/255 away, for images in [0, 1]. Default: None
        counts (sequence of int, optional): Numbers of units to try; None: 1, 2, 5, 10
            and 20 percent of them. Default: None
        max_loss (float, optional): Of clean accuracy, in [0, 1]. Default: 0.02
        batch_size (int, optional): How many inputs one pass holds. Default: 16
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Returns:
        *Hardened*: With ``.model``, ``.units`` and ``.table()``.

    Raises:
        TypeError, ValueError: ``max_loss`` is out of range, ``judge`` shares an input
            with ``pairs``, images are not in [0, 1] although ``attack`` is None, or as
            :func:`captum_pse.evaluate_masking`.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> pairs = make_pairs(8)
        >>> hardened = harden(
        ...     load_model(), "features.conv5", pairs.select(range(4)),
        ...     pairs.select(range(4, 8)), counts=[1],
        ... )
        >>> len(hardened.units) <= 1
        True
    """
    if not 0 <= max_loss <= 1:
        raise ValueError(f"max_loss: got {max_loss}, want 0 to 1")
    _check_apart(pairs, judge)
    moved = DissectionSensitivity(model, [layer]).over(
        pairs, batch_size=batch_size, show_progress=show_progress
    )
    ranking = moved[0].mean
    if counts is None:
        counts = [units_in(part, len(ranking)) for part in PARTS]
    evaluate = partial(
        evaluate_masking,
        model,
        layer=layer,
        rankings={"sensitive": ranking},
        seeds=range(3),
        attack=attack or partial(adaptive_pgd, batch_size=batch_size),
        batch_size=batch_size,
        show_progress=show_progress,
    )
    tried = evaluate(pairs=pairs, counts=sorted({0, *counts}))
    count = _best(tried, max_loss)
    order = ranking.argsort(descending=True, stable=True)
    units = tuple(sorted(order[:count].tolist()))
    judged = evaluate(pairs=judge, counts=sorted({0, count}))
    return Hardened(masked_copy(model, {layer: units}), layer, units, tried, judged)


def _best(tried: MaskingCurves, max_loss: float) -> int:
    """The number of units to mask."""
    rows = [row for row in tried.table() if row["masked"] == "sensitive"]
    none = next(row for row in rows if row["units"] == 0)
    # Accuracies are shares of pairs: a loss of exactly max_loss is none too many.
    fit = [row for row in rows if none["clean"] - row["clean"] <= max_loss + 1e-9]
    best = max(fit, key=lambda row: (row["adaptive"], -row["units"]))
    return int(best["units"])


def _check_apart(pairs: AdversarialPair, judge: AdversarialPair) -> None:
    def seen(pair: AdversarialPair) -> set[bytes]:
        if not isinstance(pair.natural, Tensor):
            raise ValueError("pairs: want one input and class labels")
        rows = pair.natural.detach().cpu().contiguous().flatten(1)
        return {row.view(torch.uint8).numpy().tobytes() for row in rows}

    if shared := len(seen(pairs) & seen(judge)):
        raise ValueError(
            f"judge: shares {shared} natural input(s) with pairs, want others: units "
            "that are judged where they were chosen look too good"
        )
