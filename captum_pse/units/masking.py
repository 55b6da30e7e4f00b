"""Silencing units of a model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_pse._model.activations import scores_and_activations
from captum_pse._model.layers import Layer, find_layer
from captum_pse._model.positions import check_channel_dim

MaskMode: TypeAlias = Literal["zero", "mean", "clamp"]
MASK_MODES: tuple[str, ...] = get_args(MaskMode)


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        low, high = float(self.low.min()), float(self.high.max())
        return f"UnitRange({len(self.mean)} units, {low:.3g} to {high:.3g})"


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
        warnings.warn(
            f"mask_units: {key!r} did not run within the block, so that none of its "
            "units was masked; name a layer that the model calls, and call the model",
            stacklevel=3,
        )


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
