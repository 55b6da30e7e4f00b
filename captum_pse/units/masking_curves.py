"""The accuracy of a model as more and more of its units are masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._io.saved import SavedResult, renamed
from captum_pse._model.checks import check_int
from captum_pse._statistics import wilson
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.masked_accuracy import OUTCOMES, AdaptiveAttack, MaskedAccuracy
from captum_pse.units.masking import MaskMode
from captum_pse.units.rankings import order_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class MaskingCurves(SavedResult):
    """Accuracy as more and more units of a layer are masked.

    Made by :func:`evaluate_masking`.

    Attributes:
        layer (str): The layer's name.
        outcomes (dict): For each (ranking, number of masked units), a dict with the
            outcomes of :meth:`table`, ``clean`` and so on: one number for each pair,
            1 or 0, or the mean over seeds for random orders.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> curves = evaluate_masking(
        ...     load_model(), make_pairs(4), "features.conv4",
        ...     {"by number": -torch.arange(96.0)}, counts=[0, 48], seeds=[0],
        ... )
        >>> curves
        MaskingCurves('features.conv4', by number, random)
        >>> row = curves.table()[1]
        >>> row["masked"], row["units"], row["clean_low"] <= row["clean"]
        ('by number', 48, True)
        >>> clean = curves.outcomes["by number", 48]["clean"]
        >>> row["clean"] == sum(clean) / len(clean)
        True
    """

    layer: str
    _rows: list[dict[str, Any]]
    outcomes: dict[tuple[str, int], dict[str, list[float]]]

    def __repr__(self) -> str:
        names = dict.fromkeys(row["masked"] for row in self._rows)
        return f"MaskingCurves({self.layer!r}, {', '.join(names)})"

    def table(self) -> list[dict[str, Any]]:
        """One row for each ranking and number of masked units.

        Returns:
            *list[dict]*: ``layer``, ``masked`` (the ranking), ``units`` (the number of
            masked units), and fractions of the pairs, in [0, 1]: ``clean``, the model
            predicts the true label on the natural input; ``adversarial``, it predicts
            the true label on the adversarial input; ``attacked``, it predicts the
            attack label on the adversarial input; with an adaptive attack,
            ``adaptive``, it predicts the true label under that attack. ``<name>_low``
            and ``<name>_high`` bound the 95 % confidence interval over pairs (Wilson);
            for random orders, they are the lowest and the highest of the seeds.
        """
        return self._rows

    def plot(self, **options: Any) -> Figure:
        """The curves; see :func:`captum_pse.visualization.plot_masking`.

        Args:
            **options: Passed to that function.
        """
        from captum_pse.units.figure import plot_masking

        return plot_masking(self, **options)

    @classmethod
    def join(cls, parts: Sequence[MaskingCurves]) -> MaskingCurves:
        """Joins curves of one layer with different numbers of units.

        Args:
            parts (sequence of MaskingCurves): The curves.

        Raises:
            ValueError: There are no curves, or curves of several layers.
        """
        if len({part.layer for part in parts}) != 1:
            layers = [part.layer for part in parts]
            raise ValueError(f"parts: got layers {layers}, want curves of one layer")
        rows = [row for part in parts for row in part._rows]
        rankings = list(dict.fromkeys(row["masked"] for row in rows))
        rows.sort(key=lambda row: (rankings.index(row["masked"]), row["units"]))
        outcomes = {
            key: found for part in parts for key, found in part.outcomes.items()
        }
        return cls(parts[0].layer, rows, outcomes)

    def to_record(self) -> dict[str, Any]:
        """The curves as a dict for JSON; :meth:`of_record` restores the same
        numbers."""
        outcomes = [[*key, found] for key, found in self.outcomes.items()]
        return {"layer": self.layer, "rows": self._rows, "outcomes": outcomes}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> MaskingCurves:
        """The inverse of :meth:`to_record`."""
        outcomes = {(name, n): found for name, n, found in record["outcomes"]}
        return cls(record["layer"], record["rows"], outcomes)

    _FORMAT = "captum_pse.MaskingCurves/2"
    _OLDER = ("captum_pse.MaskingCurves/1",)

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, self.to_record()

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> MaskingCurves:
        names = {"fresh(_low|_high)?": r"adaptive\1"}
        rows = [renamed(row, names) for row in settings["rows"]]
        outcomes = [[*key, renamed(of, names)] for *key, of in settings["outcomes"]]
        return cls.of_record({**settings, "rows": rows, "outcomes": outcomes})


def evaluate_masking(
    model: nn.Module,
    pairs: AdversarialPair,
    layer: str,
    rankings: Mapping[str, Tensor],
    counts: Sequence[int],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    attack: AdaptiveAttack | None = None,
    mode: MaskMode = "zero",
    channel_dim: int | None = None,
    batch_size: int = 16,
    show_progress: bool = False,
) -> MaskingCurves:
    """Measures accuracy as more units of a layer are masked, in several orders.

    Units are masked in the order of each ranking, and in random orders. Stored pairs
    measure transfer; ``attack`` measures an adaptive attack on the masked model.

    Args:
        model (nn.Module): The model, in evaluation mode.
        pairs (AdversarialPair): Pairs with class labels.
        layer (str): Name of the layer.
        rankings (mapping): For each name, one value for each unit, ``(K,)``. Units with
            the largest values are masked first; equal ones are ordered by index. The
            ranking ``"random"`` is added.
        counts (sequence of int): Numbers of units to mask, 0 to K.
        seeds (sequence of int, optional): Seeds of the random orders. Default: 0 to 4
        attack (Callable, optional): An adaptive attack. It takes the masked model and
            the pairs, and returns adversarial inputs. It runs once for each set of
            masked units. None measures stored pairs only. Default: None
        mode (str, optional): See :func:`mask_units`; the ranges are those of the pairs'
            natural inputs. Default: ``"zero"``
        channel_dim (int, optional): The dimension of the units in the layer's output: 1
            for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        batch_size (int, optional): Number of inputs in one pass. Default: 16
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *MaskingCurves*: One row for each ranking and count, ``"random"`` included.

    Raises:
        TypeError, ValueError: A ranking does not have one value for each unit; a count
            is above K; there are no seeds; the pairs have several inputs or labels
            other than classes; there is no such layer or mode; or the attack does not
            return finite values in the inputs' shape.

    Warns:
        ProbabilityWarning: An attack is given, and the model returns probabilities,
            whose gradients are near 0.

    Examples::

        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs, layer = load_model(), make_pairs(4), "features.conv4"
        >>> sensitivity = DissectionSensitivity(model, layer).over(pairs)
        >>> curves = evaluate_masking(
        ...     model, pairs, layer, {"sensitive": sensitivity.mean}, [0, 96], seeds=[0]
        ... )
        >>> [(row["masked"], row["units"], row["clean"]) for row in curves.table()[:2]]
        [('sensitive', 0, 1.0), ('sensitive', 96, 0.25)]
    """
    accuracy = MaskedAccuracy(
        model,
        pairs,
        layer,
        attack,
        mode=mode,
        channel_dim=channel_dim,
        batch_size=batch_size,
    )
    n_units = accuracy.n_units
    _check_rankings(rankings, n_units, layer)
    counts = [check_int("counts", count) for count in counts]
    if not counts or not all(0 <= count <= n_units for count in counts):
        raise ValueError(f"counts: got {counts}, want numbers from 0 to {n_units}")
    seeds = [check_int("seeds", seed, 0) for seed in seeds]
    if not seeds:
        raise ValueError("seeds: got none, want at least one")
    orders = {name: [order_of(values)] for name, values in rankings.items()}
    orders["random"] = [
        torch.randperm(n_units, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]

    @cache  # Several orders may mask the same units: none and all, for example.
    def measure(units: frozenset[int]) -> Tensor:
        return accuracy.outcomes(units)

    rows = []
    outcomes = {}
    work = [(ranking, count) for ranking in orders for count in counts]
    for ranking, count in tqdm(work, "masking", disable=not show_progress):
        # (seeds, outcomes, pairs)
        found = torch.stack(
            [measure(frozenset(order[:count].tolist())) for order in orders[ranking]]
        )
        # Without an adaptive attack, the last outcome is missing.
        names = OUTCOMES[: found.shape[1]]
        by_pair = found.mean(dim=0).tolist()
        outcomes[ranking, count] = dict(zip(names, by_pair, strict=True))
        row: dict[str, Any] = {"layer": layer, "masked": ranking, "units": count}
        for name, fractions in zip(names, found.mean(dim=2).unbind(dim=1), strict=True):
            interval = (
                (float(fractions.min()), float(fractions.max()))
                if ranking == "random"
                else wilson(round(float(fractions) * len(pairs)), len(pairs))
            )
            row[name] = float(fractions.mean())
            row[f"{name}_low"], row[f"{name}_high"] = interval
        rows.append(row)
    return MaskingCurves(layer, rows, outcomes)


def _check_rankings(rankings: Mapping[str, Tensor], n_units: int, layer: str) -> None:
    if not rankings or "random" in rankings:
        raise ValueError(
            f"rankings: got {list(rankings)}, want at least one, and no name 'random'"
        )
    for name, values in rankings.items():
        if values.shape != (n_units,) or values.isnan().any():
            raise ValueError(
                f"rankings: got {name!r} of shape {tuple(values.shape)}, want a number "
                f"for each of the {n_units} units of {layer}"
            )
