"""What silencing more and more units does to a model's accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._io.saved import SavedResult, renamed
from captum_pse._model.activations import scores_and_activations
from captum_pse._model.forward import require_eval_batch_norm, run_forward
from captum_pse._model.layers import Layer, find_layer
from captum_pse._model.positions import check_channel_dim
from captum_pse._model.unchanged import unchanged
from captum_pse._statistics import student_reach, wilson
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS, targeted_pgd
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.masking import MaskMode, UnitRange, mask_units, unit_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class MaskingCurves(SavedResult):
    """Accuracy as more and more units of a layer are masked.

    Made by :func:`evaluate_masking`. Shares are of the pairs.

    Attributes:
        layer (str): The layer.
        outcomes (dict): By ranking and number of units, by share, one number a pair: 1
            or 0 or, for a random order, the mean over seeds.

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
        >>> of_pairs = curves.outcomes["by number", 48]["clean"]
        >>> row["clean"] == sum(of_pairs) / len(of_pairs)
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
            *list[dict]*: ``layer``, ``masked`` (the ranking), ``units`` (how many are
            masked), and these shares of the pairs, in [0, 1]: ``clean``, the model
            predicts the true label on the natural input; ``adversarial``, it predicts
            the true label on the adversarial input; ``attacked``, it predicts the
            attack label there; and, with an adaptive attack, ``adaptive``, it predicts
            the true label under that attack. ``<name>_low`` and ``<name>_high`` bound a
            95 % confidence interval: over seeds for a random order (Student, NaN for
            one seed), else over pairs (Wilson).
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
        """One of several, of the same layer, with different numbers of units.

        Raises:
            ValueError: None, or of several layers.
        """
        if len({part.layer for part in parts}) != 1:
            layers = [part.layer for part in parts]
            raise ValueError(f"parts: got layers {layers}, want curves of one layer")
        rows = [row for part in parts for row in part._rows]
        rankings = list(dict.fromkeys(row["masked"] for row in rows))
        rows.sort(key=lambda row: (rankings.index(row["masked"]), row["units"]))
        outcomes = {key: of for part in parts for key, of in part.outcomes.items()}
        return cls(parts[0].layer, rows, outcomes)

    def to_record(self) -> dict[str, Any]:
        """As what ``json`` can write, with the same numbers when read; see
        :meth:`of_record`."""
        outcomes = [[*key, shares] for key, shares in self.outcomes.items()]
        return {"layer": self.layer, "rows": self._rows, "outcomes": outcomes}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> MaskingCurves:
        """The inverse of :meth:`to_record`."""
        outcomes = {(name, n): shares for name, n, shares in record["outcomes"]}
        return cls(record["layer"], record["rows"], outcomes)

    _FORMAT = "captum_pse.MaskingCurves/2"
    _OLDER = ("captum_pse.MaskingCurves/1",)

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, self.to_record()

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> MaskingCurves:
        return cls.of_record(renamed(settings, {"fresh(_low|_high)?": r"adaptive\1"}))


#: The last one only where the masked model was attacked anew.
SHARES = ("clean", "adversarial", "attacked", "adaptive")

#: From a model and pairs to adversarial inputs for that model.
AdaptiveAttack: TypeAlias = Callable[[nn.Module, AdversarialPair], Tensor]


@torch.no_grad()
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
    channel_dim: int = 1,
    batch_size: int = 16,
    show_progress: bool = False,
) -> MaskingCurves:
    """Masks the first units of several rankings and random ones.

    The pairs are stored: they say how an attack made on the whole model fares on the
    masked one. How a new attack would, which is what a defence has to stand, ``attack``
    finds out.

    Args:
        model (nn.Module): The model, in evaluation mode.
        pairs (AdversarialPair): Of class labels.
        layer (str): Name of the layer.
        rankings (mapping): By name, a value ``(K,)`` for each unit; the largest are
            masked first, the earlier of equal ones. ``"random"`` is added.
        counts (sequence of int): How many units to mask, 0 to K.
        seeds (sequence of int, optional): Of the random orders. Default: 0 to 4
        attack (Callable, optional): From the masked model and the pairs to adversarial
            inputs, made anew for each set of masked units. Default: None
        mode (str, optional): See :func:`mask_units`; ranges are those of the pairs'
            natural inputs. Default: ``"zero"``
        channel_dim (int, optional): Which dimension counts the units. Default: 1
        batch_size (int, optional): How many inputs one pass holds. Default: 16
        show_progress (bool, optional): Whether to show a progress bar. Default: False

    Returns:
        *MaskingCurves*: A row for each ranking and count, ``"random"`` among them.

    Raises:
        TypeError, ValueError: Rankings of other than the layer's units, more units to
            mask than there are, no seeds, pairs of other than class labels and single
            inputs, no such layer or mode, or an attack that returns other than finite
            values of the inputs' shape.

    Examples::

        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs, layer = load_model(), make_pairs(4), "features.conv4"
        >>> moved = DissectionSensitivity(model, layer).over(pairs)
        >>> curves = evaluate_masking(
        ...     model, pairs, layer, {"sensitive": moved.mean}, [0, 96], seeds=[0]
        ... )
        >>> [(row["masked"], row["units"], row["clean"]) for row in curves.table()[:2]]
        [('sensitive', 0, 1.0), ('sensitive', 96, 0.25)]
    """
    require_eval_batch_norm(model)
    x, x0, t, t0 = pairs
    if not isinstance(x, Tensor) or not isinstance(t, Tensor):
        raise ValueError("pairs: want one input and class labels")
    _, (first,) = scores_and_activations(
        model, [find_layer(model, layer)], (x0[:1],), differentiable=False
    )
    check_channel_dim(channel_dim, layer, first)
    n_units = first.shape[channel_dim]
    if not rankings or "random" in rankings:
        raise ValueError(
            f"rankings: got {list(rankings)}, want at least one, and none of the name "
            "'random'"
        )
    for name, values in rankings.items():
        if values.shape != (n_units,) or values.isnan().any():
            raise ValueError(
                f"rankings: got {name!r} of shape {tuple(values.shape)}, want a number "
                f"for each of the {n_units} units of {layer}"
            )
    if not counts or not all(0 <= count <= n_units for count in counts):
        raise ValueError(f"counts: got {list(counts)}, want some of 0 to {n_units}")
    if len(seeds) < 1:
        raise ValueError("seeds: got none, want at least one")
    ranges: dict[Layer, UnitRange] | None = None
    if mode != "zero":
        natural = unit_range(
            model, layer, x0, channel_dim=channel_dim, batch_size=batch_size
        )
        ranges = {layer: natural}
    orders = {
        name: [values.argsort(descending=True, stable=True)]
        for name, values in rankings.items()
    }
    orders["random"] = [
        torch.randperm(n_units, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]

    @cache  # All orders begin with nothing and end with everything.
    def shares(units: frozenset[int]) -> Tensor:
        masked: dict[Layer, list[int]] = {layer: sorted(units)}

        def says(inputs: Tensor) -> Tensor:
            parts = inputs.split(batch_size)
            scores = [run_forward(model, (part.clone(),)) for part in parts]
            return torch.cat(scores).argmax(dim=1)

        with mask_units(
            model, masked, mode=mode, ranges=ranges, channel_dim=channel_dim
        ):
            said = says(x)
            found = [says(x0) == t0, said == t0, said == t]
            if attack is not None:
                found.append(says(_attacked(attack, model, pairs)) == t0)
        return torch.stack(found).double().cpu()

    rows = []
    outcomes = {}
    work = [(name, count) for name in orders for count in counts]
    for name, count in tqdm(work, "masking", disable=not show_progress):
        # (seeds, shares, pairs)
        of_pairs = torch.stack(
            [shares(frozenset(order[:count].tolist())) for order in orders[name]]
        )
        # Without a new attack there is no last share.
        outcomes[name, count] = dict(
            zip(SHARES, of_pairs.mean(dim=0).tolist(), strict=False)
        )
        each = of_pairs.mean(dim=2)
        row: dict[str, Any] = {"layer": layer, "masked": name, "units": count}
        for share, values in zip(SHARES, each.unbind(dim=1), strict=False):
            mean = float(values.mean())
            if name == "random":
                spread = float(values.std()) if len(values) > 1 else math.nan
                reach = student_reach(spread, len(values))
                low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
            else:
                low, high = wilson(round(mean * len(pairs)), len(pairs))
            row |= {share: mean, f"{share}_low": low, f"{share}_high": high}
        rows.append(row)
    return MaskingCurves(layer, rows, outcomes)


def _attacked(
    attack: AdaptiveAttack, model: nn.Module, pairs: AdversarialPair
) -> Tensor:
    """What the caller's attack makes, checked; the model is as before."""
    with torch.enable_grad(), unchanged(model):
        moved = attack(model, pairs)
    natural = pairs.natural
    assert isinstance(natural, Tensor)
    if not isinstance(moved, Tensor) or moved.shape != natural.shape:
        kind = tuple(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__
        raise ValueError(
            f"attack: returned {kind}, want a tensor of shape {tuple(natural.shape)}"
        )
    if not moved.isfinite().all():
        raise ValueError("attack: returned NaN or infinite values, want finite ones")
    return moved.detach().to(natural)


def adaptive_pgd(
    model: nn.Module,
    pairs: AdversarialPair,
    *,
    eps: float = ADAPTIVE_EPS,
    steps: int = ADAPTIVE_STEPS,
    batch_size: int = 16,
) -> Tensor:
    """Pushes the natural images of pairs towards their attack labels on another model.

    Args and Raises: as :func:`targeted_pgd`.
    """
    natural, targets = pairs.natural, pairs.attack_label
    assert isinstance(natural, Tensor)
    assert isinstance(targets, Tensor)
    return targeted_pgd(
        model, natural, targets, eps=eps, steps=steps, batch_size=batch_size
    )
