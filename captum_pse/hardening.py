"""A defence from what was found: a model without the units that attacks move most."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_pse._layers import find_layer
from captum_pse.attacks.pgd import attack_anew
from captum_pse.dissection_sensitivity import DissectionSensitivity
from captum_pse.masking_curves import FreshAttack, MaskingCurves, evaluate_masking
from captum_pse.pair import AdversarialPair
from captum_pse.unit_masking import unit_numbers, units_in

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
        >>> before = hardened.summary()[0]
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

    def summary(self) -> list[dict[str, Any]]:
        """The rows of ``judged``: of the model as it was, of the masked one, and with
        as many units masked at random.

        Returns:
            *list[dict]*: See :class:`captum_pse.MaskingCurves`: ``clean`` accuracy,
            ``adversarial`` under the stored pairs, ``fresh`` under the new attack, all
            in [0, 1], with their intervals.
        """
        return self.judged.rows

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
    attack: FreshAttack | None = None,
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
        *Hardened*: With ``.model``, ``.units`` and ``.summary()``.

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
        attack=attack or partial(attack_anew, batch_size=batch_size),
        batch_size=batch_size,
        show_progress=show_progress,
    )
    tried = evaluate(pairs=pairs, counts=sorted({0, *counts}))
    count = _best(tried, max_loss)
    order = ranking.argsort(descending=True, stable=True)
    units = tuple(sorted(order[:count].tolist()))
    judged = evaluate(pairs=judge, counts=sorted({0, count}))
    return Hardened(masked_copy(model, {layer: units}), layer, units, tried, judged)


def masked_copy(
    model: nn.Module, units: Mapping[str, Sequence[int] | Tensor]
) -> nn.Module:
    """A copy of a model in which units of some layers give 0, always.

    What :func:`captum_pse.mask_units` does within a block, as a model of its own: each
    of the layers becomes a ``torch.nn.Sequential`` of itself and a mask.

    Args:
        model (nn.Module): The model.
        units (mapping): By the layer's name, the numbers of its units, or a bool tensor
            ``(K,)``; units are counted in dimension 1 of its output ``(N, K, ...)``.

    Returns:
        *nn.Module*: A copy; it shares nothing with ``model``, which stays as it is.

    Raises:
        TypeError, ValueError: The model has no such layer, or units are no numbers from
            0 on. That a layer has so many units is checked when it runs.

    Examples::

        >>> from captum_pse import mask_units
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, natural = load_model(), make_pairs(2).natural
        >>> masked = masked_copy(model, {"features.conv4": [0, 5]})
        >>> with mask_units(model, {"features.conv4": [0, 5]}):
        ...     torch.equal(model(natural), masked(natural))
        True
    """
    changed = copy.deepcopy(model)
    # All of them before any is changed: one may be within another.
    layers = {}
    for name in units:
        if not name:
            raise ValueError("units: got the layer '', want the name of one")
        layers[name] = find_layer(changed, name)
    for name, layer in layers.items():
        masked = nn.Sequential(layer, UnitMask(units[name]))
        masked.training = layer.training
        for module in list(changed.modules()):
            # A layer may stand at several places; named_children() gives one of them.
            for key, child in list(module._modules.items()):
                if child is layer:
                    setattr(module, key, masked)
    return changed


class UnitMask(nn.Module):
    """Sets units, counted in dimension 1, to 0.

    Args:
        units (sequence of int or Tensor): Their numbers, or a bool tensor ``(K,)``.
    """

    units: Tensor

    def __init__(self, units: Sequence[int] | Tensor) -> None:
        super().__init__()
        numbers = unit_numbers(units)
        if len(numbers) and int(numbers.min()) < 0:
            raise ValueError(f"units: got {numbers.tolist()}, want numbers from 0 on")
        self.register_buffer("units", numbers)
        self._last = int(numbers.max()) if len(numbers) else -1
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        if self._last >= x.shape[1]:
            raise ValueError(
                f"units: got {self._last}, want at most {x.shape[1] - 1}, the last one "
                "of the layer"
            )
        return x.index_fill(1, self.units, 0)


def _best(tried: MaskingCurves, max_loss: float) -> int:
    """The number of units to mask."""
    rows = [row for row in tried.rows if row["masked"] == "sensitive"]
    none = next(row for row in rows if row["units"] == 0)
    # Accuracies are shares of pairs: a loss of exactly max_loss is none too many.
    fit = [row for row in rows if none["clean"] - row["clean"] <= max_loss + 1e-9]
    best = max(fit, key=lambda row: (row["fresh"], -row["units"]))
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
