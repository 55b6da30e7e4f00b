"""A defence: masks the units that attacks change most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_pse._model.checks import check_fraction, check_int
from captum_pse._model.positions import channel_dim_of
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.masked_accuracy import AdaptiveAttack, adaptive_pgd
from captum_pse.units.masked_copy import masked_copy
from captum_pse.units.masking_curves import MaskingCurves, evaluate_masking
from captum_pse.units.rankings import units_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The fractions of a layer's units that are tried by default.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, eq=False, repr=False)
class Hardened:
    """A masked model and its accuracy.

    Made by :func:`harden`.

    Attributes:
        model (nn.Module): A copy of the model in which the units are always 0. It can
            be saved, and exported with ``torch.export``.
        layer (str): The layer's name.
        units (tuple[int, ...]): The masked units; empty if masking improved nothing.
        chosen (MaskingCurves): Accuracy for each number of units that was tried, on
            ``pairs``. It is optimistically biased: the same pairs were used for
            selection.
        judged (MaskingCurves): Accuracy without masking and with the selected number of
            units, on ``judge``.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs = load_model(), make_pairs(8)
        >>> hardened = harden(
        ...     model, "features.conv5", pairs.select(range(4)),
        ...     pairs.select(range(4, 8)), counts=[2],
        ... )
        >>> before = hardened.table()[0]
        >>> before["units"], before["adversarial"]  # every attack succeeds
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
        """The rows of ``judged``: no units masked, the selected units masked, and as
        many random units masked.

        Returns:
            *list[dict]*: See :meth:`captum_pse.MaskingCurves.table`: the accuracies
            ``clean``, ``adversarial`` (on the stored pairs) and ``adaptive`` (under the
            adaptive attack), in [0, 1], with their intervals.
        """
        return self.judged.table()

    def plot(self, **options: Any) -> Figure:
        """The curves of ``chosen``; see
        :func:`captum_pse.visualization.plot_masking`.

        Args:
            **options: Passed to that function.
        """
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
    channel_dim: int | None = None,
    batch_size: int = 16,
    show_progress: bool = False,
) -> Hardened:
    """Masks the units that attacks change most, and selects their number.

    Units are ranked by their mean sensitivity to ``pairs``. The number of masked
    units is the one with the highest accuracy under an adaptive attack on the masked
    model, among those that lose at most ``max_loss`` of the clean accuracy. Ties go to
    fewer units; if nothing improves, no unit is masked. The accuracy is then measured
    again on ``judge``, whose pairs were not used for the selection.

    Args:
        model (nn.Module): The model, in evaluation mode. It is not changed.
        layer (str): Name of the layer.
        pairs (AdversarialPair): Pairs for the selection, with class labels.
        judge (AdversarialPair): Pairs for the evaluation, with other natural inputs.
        attack (Callable, optional): An adaptive attack, as for
            :func:`captum_pse.evaluate_masking`. None means targeted PGD towards the
            pairs' attack labels: 10 steps, L-infinity norm 2/255, images in [0, 1].
            Default: None
        counts (sequence of int, optional): Numbers of units to try; None tries 1, 2, 5,
            10 and 20 percent of the units. Default: None
        max_loss (float, optional): Largest loss of clean accuracy, in [0, 1].
            Default: 0.02
        channel_dim (int, optional): The dimension of the units in the layer's output: 1
            for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        batch_size (int, optional): Number of inputs in one pass. Default: 16
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Returns:
        *Hardened*: Has ``.model``, ``.units`` and ``.table()``.

    Raises:
        TypeError, ValueError: ``max_loss`` is out of range, ``judge`` shares an input
            with ``pairs``, images are not in [0, 1] although ``attack`` is None, or as
            for :func:`captum_pse.evaluate_masking`.

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
    max_loss = check_fraction("max_loss", max_loss)
    _check_disjoint(pairs, judge)
    assert isinstance(pairs.natural, Tensor)
    channel_dim, _ = channel_dim_of(model, layer, pairs.natural, channel_dim)
    (sensitivity,) = DissectionSensitivity(
        model, [layer], channel_dim=channel_dim
    ).over(pairs, batch_size=batch_size, show_progress=show_progress)
    ranking = sensitivity.mean
    if counts is None:
        counts = [units_in(fraction, len(ranking)) for fraction in FRACTIONS]
    counts = [check_int("counts", count, 0) for count in counts]
    evaluate = partial(
        evaluate_masking,
        model,
        layer=layer,
        rankings={"sensitive": ranking},
        seeds=range(3),
        attack=attack or partial(adaptive_pgd, batch_size=batch_size),
        channel_dim=channel_dim,
        batch_size=batch_size,
        show_progress=show_progress,
    )
    chosen = evaluate(pairs=pairs, counts=sorted({0, *counts}))
    count = _best(chosen, max_loss)
    order = ranking.argsort(descending=True, stable=True)
    units = tuple(sorted(order[:count].tolist()))
    judged = evaluate(pairs=judge, counts=sorted({0, count}))
    masked = masked_copy(model, {layer: units}, channel_dim=channel_dim)
    return Hardened(masked, layer, units, chosen, judged)


def _best(chosen: MaskingCurves, max_loss: float) -> int:
    """The selected number of units to mask."""
    rows = [row for row in chosen.table() if row["masked"] == "sensitive"]
    unmasked = next(row for row in rows if row["units"] == 0)
    # The tolerance admits a loss of exactly max_loss despite rounding.
    allowed = [
        row for row in rows if unmasked["clean"] - row["clean"] <= max_loss + 1e-9
    ]
    best = max(allowed, key=lambda row: (row["adaptive"], -row["units"]))
    return int(best["units"])


def _check_disjoint(pairs: AdversarialPair, judge: AdversarialPair) -> None:
    """Raises ValueError if the two have a natural input in common."""

    def natural_inputs(pair: AdversarialPair) -> set[bytes]:
        if not isinstance(pair.natural, Tensor):
            raise ValueError("pairs: want one input and class labels")
        rows = pair.natural.detach().cpu().contiguous().flatten(1)
        return {row.view(torch.uint8).numpy().tobytes() for row in rows}

    if shared := len(natural_inputs(pairs) & natural_inputs(judge)):
        raise ValueError(
            f"judge: got {shared} natural input(s) that are also in pairs, want other "
            "inputs: accuracy on the pairs of the selection is optimistically biased"
        )
