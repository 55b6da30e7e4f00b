"""Silencing units of a model, and what that does to its accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._forward import require_eval_batch_norm, run_forward
from captum_pse._layers import (
    Layer,
    check_channel_dim,
    find_layer,
    scores_and_activations,
)
from captum_pse._results import SavedResult
from captum_pse._unchanged import unchanged
from captum_pse.pair import AdversarialPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MaskMode: TypeAlias = Literal["zero", "mean", "clamp"]
MASK_MODES: tuple[str, ...] = get_args(MaskMode)


@dataclass(frozen=True, eq=False)
class UnitRange:
    """What the K units of a layer give on natural inputs, over all positions.

    Made by :func:`unit_range`, for :func:`mask_units`.

    Attributes:
        mean, low, high (Tensor): ``(K,)`` each: the mean, the least, the largest, in
            activation units.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, natural = load_model(), make_pairs(2).natural
        >>> found = {"features.conv5": unit_range(model, "features.conv5", natural)}
        >>> units = {"features.conv5": range(96)}
        >>> with mask_units(model, units, mode="clamp", ranges=found):
        ...     scores = model(natural)
        >>> torch.allclose(scores, model(natural))  # they were within it
        True
    """

    mean: Tensor
    low: Tensor
    high: Tensor


@torch.no_grad()
def unit_range(
    model: nn.Module,
    layer: Layer,
    inputs: Tensor,
    *,
    channel_dim: int = 1,
    batch_size: int = 16,
) -> UnitRange:
    """The range of a layer's units on some inputs, batch by batch.

    Args:
        model (nn.Module): The model, in evaluation mode.
        layer (nn.Module or str): The layer, or its name.
        inputs (Tensor): Natural inputs, shape ``(N, ...)``.
        channel_dim (int, optional): Which dimension of the layer's output counts the
            units. Default: 1
        batch_size (int, optional): How many inputs one pass holds. Default: 16

    Returns:
        *UnitRange*: Over all inputs and positions.

    Raises:
        TypeError, ValueError: The model has no such layer or does not take the inputs,
            a batch norm is in training mode, the layer does not give one tensor, or it
            has no such dimension.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> found = unit_range(load_model(), "features.conv4", make_pairs(2).natural)
        >>> found.mean.shape, bool((found.low >= 0).all())  # after a ReLU
        (torch.Size([96]), True)
        >>> bool(((found.low <= found.mean) & (found.mean <= found.high)).all())
        True
    """
    found = find_layer(model, layer)
    total, count, lows, highs = torch.zeros(()), 0, [], []
    for batch in inputs.split(batch_size):
        _, (values,) = scores_and_activations(
            model, [found], (batch,), differentiable=False
        )
        check_channel_dim(channel_dim, f"{layer!r}", values)
        rows = values.movedim(channel_dim, 0).flatten(1)
        total = total.to(rows.device, torch.float64) + rows.double().sum(dim=1)
        count += rows.shape[1]
        lows.append(rows.amin(dim=1))
        highs.append(rows.amax(dim=1))
    low, high = torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)
    return UnitRange((total / count).to(low.dtype), low, high)


@contextmanager
def mask_units(
    model: nn.Module,
    units: Mapping[Layer, Sequence[int] | Tensor],
    *,
    mode: MaskMode = "zero",
    ranges: Mapping[Layer, UnitRange] | None = None,
    channel_dim: int = 1,
) -> Iterator[nn.Module]:
    """Silences units within a ``with`` block; afterwards the model is as before.

    The layers' outputs are changed, for all threads that use the model.

    Args:
        model (nn.Module): The model.
        units (mapping): By layer or its name, which units: their numbers, or a bool
            tensor ``(K,)`` such as :meth:`captum_pse.Dissection.detectors`.
        mode (str, optional): ``"zero"``; ``"mean"``, the unit's mean on natural inputs;
            or ``"clamp"``, between its least and its largest natural value.
            Default: ``"zero"``
        ranges (mapping, optional): By the same keys, from :func:`unit_range`; for
            ``"mean"`` and ``"clamp"``. Default: None
        channel_dim (int, optional): Which dimension counts the units. Default: 1

    Yields:
        *nn.Module*: The model itself.

    Raises:
        TypeError, ValueError: An argument does not fit, or a layer has no such unit;
            the latter shows when the layer runs.

    Warns:
        UserWarning: A layer did not run within the block.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs = load_model(), make_pairs(3)
        >>> with mask_units(model, {"features.conv5": range(96)}):
        ...     scores = model(pairs.adversarial)
        >>> bool((scores[0] == scores[1]).all())
        True
    """
    if mode not in MASK_MODES:
        raise ValueError(f"mode: got {mode!r}, want one of {', '.join(MASK_MODES)}")
    missing = [key for key in units if mode != "zero" and key not in (ranges or {})]
    if missing:
        raise ValueError(f"ranges: want one of {missing[0]!r} for mode {mode!r}")

    idle = set(units)

    def hook(key: Layer, chosen: Tensor) -> Any:
        def change(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"units: {key!r} returned {type(output).__name__}, want one tensor"
                )
            check_channel_dim(channel_dim, f"{key!r}", output)
            idle.discard(key)
            n_units = output.shape[channel_dim]
            if (
                len(chosen)
                and not 0 <= int(chosen.min()) <= int(chosen.max()) < n_units
            ):
                raise ValueError(
                    f"units: got {chosen.tolist()} of {key!r}, want some of 0 to "
                    f"{n_units - 1}"
                )
            changed = output.clone()
            # Moving a dimension gives a view: what is written into it is in the clone.
            rows, place = changed.movedim(channel_dim, 0), chosen.to(output.device)
            rows[place] = _silenced(rows[place], place, mode, ranges, key)
            return changed

        return change

    handles = []
    try:
        for key, numbers in units.items():
            layer, chosen = find_layer(model, key), unit_numbers(numbers)
            handles.append(layer.register_forward_hook(hook(key, chosen)))
        yield model
    finally:
        for handle in handles:
            handle.remove()
    for key in idle:
        warnings.warn(f"mask_units: {key!r} did not run", stacklevel=3)


def unit_numbers(numbers: Sequence[int] | Tensor) -> Tensor:
    """int64 ``(n,)``, of numbers or of a bool tensor."""
    chosen = torch.as_tensor(numbers if isinstance(numbers, Tensor) else list(numbers))
    if chosen.numel() == 0:
        return chosen.long().flatten()
    is_mask = chosen.dtype == torch.bool and isinstance(numbers, Tensor)
    if chosen.dim() == 1 and is_mask:
        return chosen.nonzero()[:, 0]
    if chosen.dim() != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise TypeError(
            f"units: got {numbers!r}, want numbers of units or a bool tensor (K,)"
        )
    return chosen.long()


def units_in(part: float, n_units: int) -> int:
    """How many units a part of them is: at least one, unless the part is 0."""
    return max(1, round(part * n_units)) if part else 0


def _silenced(
    rows: Tensor,
    place: Tensor,
    mode: MaskMode,
    ranges: Mapping[Layer, UnitRange] | None,
    key: Layer,
) -> Tensor:
    """What stands in for the rows of units, ``(n, ...)``."""
    if mode == "zero":
        return torch.zeros_like(rows)
    assert ranges is not None
    natural, shape = ranges[key], (-1, *(1,) * (rows.dim() - 1))
    mean, low, high = (
        values.to(rows)[place].reshape(shape)
        for values in (natural.mean, natural.low, natural.high)
    )
    return mean.expand_as(rows) if mode == "mean" else rows.clamp(low, high)


@dataclass(frozen=True, eq=False, repr=False)
class MaskingCurves(SavedResult):
    """Accuracy as more and more units of a layer are masked.

    Made by :func:`evaluate_masking`. Shares are of the pairs.

    Attributes:
        layer (str): The layer.
        rows (list[dict]): One for each ranking (``masked``) and number of ``units``:
            ``clean`` (the model says the true label on the natural input),
            ``adversarial`` (it says the true label on the adversarial one),
            ``attacked`` (it says the attack label there) and, where the masked model
            was attacked anew, ``fresh`` (it says the true label under that attack),
            all in [0, 1]; with ``<name>_low`` and ``<name>_high``, a 95 % confidence
            interval: over seeds for a random order (Student; NaN for one seed), else
            over pairs (Wilson).
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
        >>> row = curves.rows[1]
        >>> row["masked"], row["units"], row["clean_low"] <= row["clean"]
        ('by number', 48, True)
        >>> of_pairs = curves.outcomes["by number", 48]["clean"]
        >>> row["clean"] == sum(of_pairs) / len(of_pairs)
        True
    """

    layer: str
    rows: list[dict[str, Any]]
    outcomes: dict[tuple[str, int], dict[str, list[float]]]

    def __repr__(self) -> str:
        names = dict.fromkeys(row["masked"] for row in self.rows)
        return f"MaskingCurves({self.layer!r}, {', '.join(names)})"

    def plot(self, **options: Any) -> Figure:
        """The curves; see :func:`captum_pse.visualization.plot_masking`.

        Args:
            **options: Passed to that function.
        """
        from captum_pse.visualization import plot_masking

        return plot_masking(self, **options)

    @classmethod
    def join(cls, parts: Sequence[MaskingCurves]) -> MaskingCurves:
        """One of several, of the same layer, with different numbers of units."""
        rows = [row for part in parts for row in part.rows]
        rankings = list(dict.fromkeys(row["masked"] for row in rows))
        rows.sort(key=lambda row: (rankings.index(row["masked"]), row["units"]))
        outcomes = {key: of for part in parts for key, of in part.outcomes.items()}
        return cls(parts[0].layer, rows, outcomes)

    def to_record(self) -> dict[str, Any]:
        """As plain JSON, which gives back the same numbers; see :meth:`of_record`."""
        outcomes = [[*key, shares] for key, shares in self.outcomes.items()]
        return {"layer": self.layer, "rows": self.rows, "outcomes": outcomes}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> MaskingCurves:
        """The inverse of :meth:`to_record`."""
        outcomes = {(name, n): shares for name, n, shares in record["outcomes"]}
        return cls(record["layer"], record["rows"], outcomes)

    _FORMAT = "captum_pse.MaskingCurves/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, self.to_record()

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> MaskingCurves:
        return cls.of_record(settings)


#: The last one only where the masked model was attacked anew.
SHARES = ("clean", "adversarial", "attacked", "fresh")

#: From a model and pairs to adversarial inputs for that model.
FreshAttack: TypeAlias = Callable[[nn.Module, AdversarialPair], Tensor]


@torch.no_grad()
def evaluate_masking(
    model: nn.Module,
    pairs: AdversarialPair,
    layer: str,
    rankings: Mapping[str, Tensor],
    counts: Sequence[int],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    attack: FreshAttack | None = None,
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
        >>> [(row["masked"], row["units"], row["clean"]) for row in curves.rows[:2]]
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
            low, high = _interval(values, len(pairs), name == "random")
            row[share] = float(values.mean())
            row |= {f"{share}_low": low, f"{share}_high": high}
        rows.append(row)
    return MaskingCurves(layer, rows, outcomes)


def _attacked(attack: FreshAttack, model: nn.Module, pairs: AdversarialPair) -> Tensor:
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


def _interval(values: Tensor, n_pairs: int, over_seeds: bool) -> tuple[float, float]:
    """A 95 % confidence interval of a share."""
    from scipy.stats import binomtest, sem
    from scipy.stats import t as student

    mean = float(values.mean())
    if not over_seeds:
        test = binomtest(round(mean * n_pairs), n_pairs)
        found = test.proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    if len(values) < 2:
        return float("nan"), float("nan")
    reach = float(sem(values.numpy()) * student.ppf(0.975, len(values) - 1))
    return max(mean - reach, 0.0), min(mean + reach, 1.0)
