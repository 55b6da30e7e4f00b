"""Tests whether the masked units matter, or only their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_pse._model.checks import check_choice, check_int
from captum_pse._statistics import sequential_test
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.masked_accuracy import OUTCOMES, AdaptiveAttack, MaskedAccuracy
from captum_pse.units.masking import MaskMode

#: Default number of random sets.
RANDOM_SETS = 199

Outcome: TypeAlias = Literal["clean", "adversarial", "attacked", "adaptive"]


@dataclass(frozen=True)
class MaskingTest:
    """A set of masked units, ranked among random sets of the same size.

    Returned by :func:`masking_test`.

    Attributes:
        layer (str): The layer's name.
        outcome (str): What ``value`` counts; see
            :meth:`captum_pse.MaskingCurves.table`.
        units (int): Number of masked units.
        value (float): The fraction of the pairs with this outcome, in [0, 1].
        random (float): Its mean over the random sets.
        sets (int): Number of random sets that were drawn.
        as_well (int): Number of them whose value is at least as large.
        p (float): Two-sided p-value of ``value`` among the random sets.
    """

    layer: str
    outcome: str
    units: int
    value: float
    random: float
    sets: int
    as_well: int
    p: float

    @property
    def difference(self) -> float:
        """``value - random``."""
        return self.value - self.random

    def to_record(self) -> dict[str, Any]:
        """The attributes as a dict for JSON."""
        return asdict(self)


def masking_test(
    model: nn.Module,
    pairs: AdversarialPair,
    layer: str,
    units: Tensor,
    outcome: Outcome = "adversarial",
    *,
    sets: int = RANDOM_SETS,
    seed: int = 0,
    attack: AdaptiveAttack | None = None,
    mode: MaskMode = "zero",
    channel_dim: int | None = None,
    batch_size: int = 16,
) -> MaskingTest:
    """Ranks a set of masked units among random sets of units of the same size.

    All pairs share the masked units, so they are no independent evidence for them: the
    test is over sets of units, on these pairs. Drawing stops early where the rank is
    not extreme; see :func:`captum_pse._statistics.sequential_test`.

    Args:
        model (nn.Module): The model, in evaluation mode.
        pairs (AdversarialPair): Pairs with class labels.
        layer (str): Name of the layer.
        units (Tensor): int64 ``(k,)``: the units to mask.
        outcome (str, optional): What to count; see
            :meth:`captum_pse.MaskingCurves.table`. Default: ``"adversarial"``
        sets (int, optional): Largest number of random sets. Default: 199
        seed (int, optional): Seed of the random sets. Default: 0
        attack (Callable, optional): The adaptive attack of the outcome ``"adaptive"``;
            see :func:`captum_pse.evaluate_masking`. Default: None
        mode (str, optional): See :func:`captum_pse.mask_units`. Default: ``"zero"``
        channel_dim (int, optional): The dimension of the units in the layer's output;
            see :func:`captum_pse.mask_units`. Default: None
        batch_size (int, optional): Number of inputs in one pass. Default: 16

    Raises:
        TypeError, ValueError: As :func:`captum_pse.evaluate_masking`; or ``units`` are
            not a tensor of different units, or ``outcome`` is not one of the above, or
            is ``"adaptive"`` without ``attack``.

    Examples::

        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs, layer = load_model(), make_pairs(4), "features.conv4"
        >>> sensitivity = DissectionSensitivity(model, layer).over(pairs)
        >>> units = sensitivity.mean.argsort(descending=True)[:10]
        >>> found = masking_test(model, pairs, layer, units, sets=19)
        >>> found.units, found.sets <= 19, 0 < found.p <= 1
        (10, True, True)
    """
    check_choice("outcome", outcome, get_args(Outcome))
    sets, seed = check_int("sets", sets, 1), check_int("seed", seed, 0)
    if outcome != "adaptive":
        attack = None
    elif attack is None:
        raise ValueError("attack: got None, want one for the outcome 'adaptive'")
    if (
        not isinstance(units, Tensor)
        or units.dim() != 1
        or len(units.unique()) < len(units)
    ):
        raise ValueError("units: want a tensor (k,) of different units")
    accuracy = MaskedAccuracy(
        model,
        pairs,
        layer,
        attack,
        mode=mode,
        channel_dim=channel_dim,
        batch_size=batch_size,
    )
    row = OUTCOMES.index(outcome)

    def fraction(masked: Tensor) -> float:
        return float(accuracy.outcomes(masked.tolist())[row].mean())

    def draws() -> Iterator[float]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(sets):
            order = torch.randperm(accuracy.n_units, generator=generator)
            yield fraction(order[: len(units)])

    value = fraction(units)
    found = sequential_test(value, draws())
    return MaskingTest(
        layer=layer,
        outcome=outcome,
        units=len(units),
        value=value,
        random=sum(found.drawn) / len(found.drawn),
        sets=len(found.drawn),
        as_well=sum(drawn >= value for drawn in found.drawn),
        p=found.p,
    )
