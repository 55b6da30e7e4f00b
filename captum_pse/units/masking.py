"""Masks units of a model: sets them to 0, to their mean, or clamps them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_pse._model.activations import scores_and_activations
from captum_pse._model.checks import check_choice, check_int, check_integers
from captum_pse._model.followed_passes import FollowedPasses
from captum_pse._model.hooks import forward_hooks
from captum_pse._model.layers import Layer, find_layer
from captum_pse._model.positions import Positions, channel_dim_of, check_channel_dim

MaskMode: TypeAlias = Literal["zero", "mean", "clamp"]
MASK_MODES: tuple[str, ...] = get_args(MaskMode)


@dataclass(frozen=True, eq=False, repr=False)
class UnitRange:
    """The range of the K units of a layer on natural inputs, over all positions.

    Made by :func:`unit_range`, for :func:`mask_units`.

    Attributes:
        mean, low, high (Tensor): ``(K,)`` each: the mean, the minimum and the maximum,
            in activation units.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, natural = load_model(), make_pairs(2).natural
        >>> found = {"features.conv5": unit_range(model, "features.conv5", natural)}
        >>> units = {"features.conv5": range(96)}
        >>> with mask_units(model, units, mode="clamp", ranges=found):
        ...     scores = model(natural)
        >>> torch.allclose(scores, model(natural))  # all values are in the range
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
    channel_dim: int | None = None,
    batch_size: int = 16,
) -> UnitRange:
    """The range of a layer's units on some inputs.

    Args:
        model (nn.Module): The model, in evaluation mode.
        layer (nn.Module or str): The layer, or its name.
        inputs (Tensor): Natural inputs, shape ``(N, ...)``.
        channel_dim (int, optional): The dimension of the units in the layer's output: 1
            for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        batch_size (int, optional): Number of inputs in one pass. Default: 16

    Returns:
        *UnitRange*: The range over all inputs and positions.

    Raises:
        TypeError, ValueError: The model has no such layer or does not accept the
            inputs, a batch norm is in training mode, or the layer's output is not one
            tensor with dimension ``channel_dim``.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> found = unit_range(load_model(), "features.conv4", make_pairs(2).natural)
        >>> found.mean.shape, bool((found.low >= 0).all())  # after a ReLU
        (torch.Size([96]), True)
        >>> bool(((found.low <= found.mean) & (found.mean <= found.high)).all())
        True
    """
    batch_size = check_int("batch_size", batch_size, 1)
    found = find_layer(model, layer)
    channel_dim, _ = channel_dim_of(model, layer, inputs, channel_dim)
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
    channel_dim: int | None = None,
) -> Iterator[nn.Module]:
    """Masks units of a model within a ``with`` block.

    Forward hooks change the outputs of the layers, in this thread only: other threads
    can use the model meanwhile, unmasked or with masks of their own. A thread that the
    block starts is not masked. The hooks are removed at the end of the block. Compiled
    code runs uncompiled within the block.

    Args:
        model (nn.Module): The model.
        units (mapping): For each layer or layer name, the indices of the units, or a
            bool tensor ``(K,)`` such as :meth:`captum_pse.Dissection.detectors`.
        mode (str, optional): The masked unit is 0 (``"zero"``), its mean on natural
            inputs (``"mean"``), or clamped to its natural range (``"clamp"``).
            Default: ``"zero"``
        ranges (mapping, optional): For each key of ``units``, its :func:`unit_range`;
            required for ``"mean"`` and ``"clamp"``. Default: None
        channel_dim (int, optional): The dimension of the units in the layers' outputs:
            1 for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None

    Yields:
        *nn.Module*: The model itself.

    Raises:
        TypeError, ValueError: An argument has the wrong type or value. A unit that the
            layer does not have raises when the layer runs.

    Warns:
        UserWarning: A layer did not run within the block, in its thread.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, pairs = load_model(), make_pairs(3)
        >>> with mask_units(model, {"features.conv5": range(96)}):
        ...     scores = model(pairs.adversarial)
        >>> bool((scores[0] == scores[1]).all())
        True
    """
    check_choice("mode", mode, MASK_MODES)
    if mode != "zero":
        for key in units:
            if key not in (ranges or {}):
                raise ValueError(
                    f"ranges: got none for {key!r}, want one for mode {mode!r}"
                )
    not_run, positions = set(units), Positions.of(channel_dim)
    #: The dimension of a layer's units in outputs with as many dimensions, from the
    #: first pass.
    found: dict[tuple[Layer, int], int] = {}

    passes = FollowedPasses(lambda: channel_dim is None and bool(not_run))

    def hook(key: Layer, chosen: Tensor) -> Any:
        def change(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"units: got {type(output).__name__} as the output of {key!r}, "
                    "want one tensor"
                )
            run = key, output.dim()
            if run not in found or passes.axes is not None:
                dim = positions.dimension(
                    f"{key!r}", output, passes.axes, passes.inputs
                )
                if found.setdefault(run, dim) != dim:
                    raise ValueError(
                        f"channel_dim: got None, and {key!r} runs several times, with "
                        "its units in different dimensions; want one of them"
                    )
            dim = found[run]
            check_channel_dim(dim, f"{key!r}", output)
            not_run.discard(key)
            n_units = output.shape[dim]
            if (
                len(chosen)
                and not 0 <= int(chosen.min()) <= int(chosen.max()) < n_units
            ):
                raise ValueError(
                    f"units: got {chosen.tolist()} of {key!r}, want numbers from 0 to "
                    f"{n_units - 1}"
                )
            masked = output.clone()
            # movedim returns a view: writing into it changes the clone.
            rows, index = masked.movedim(dim, 0), chosen.to(output.device)
            rows[index] = _masked(rows[index], index, mode, ranges, key)
            return masked

        return change

    hooks = [
        (find_layer(model, key), hook(key, unit_numbers(numbers)))
        for key, numbers in units.items()
    ]
    with forward_hooks(model, hooks), passes.through(model):
        yield model
    for key in not_run:
        warnings.warn(
            f"mask_units: {key!r} did not run within the block, in its thread, so none "
            "of its units were masked; name a layer that the model calls, and call the "
            "model",
            stacklevel=3,
        )


def unit_numbers(numbers: Sequence[int] | Tensor) -> Tensor:
    """The indices of units, int64 ``(n,)``, from indices or a bool tensor ``(K,)``."""
    if not isinstance(numbers, Tensor):
        chosen = [check_int("units", number) for number in numbers]
        return torch.tensor(chosen, dtype=torch.int64)
    if numbers.numel() == 0:
        return numbers.long().flatten()
    wanted = "indices of units or a bool tensor (K,)"
    if numbers.dim() != 1:
        raise TypeError(f"units: got shape {tuple(numbers.shape)}, want {wanted}")
    if numbers.dtype == torch.bool:
        return numbers.nonzero()[:, 0]
    return check_integers("units", numbers, wanted)


def _masked(
    rows: Tensor,
    index: Tensor,
    mode: MaskMode,
    ranges: Mapping[Layer, UnitRange] | None,
    key: Layer,
) -> Tensor:
    """The masked values of the units with these indices, ``(n, ...)``."""
    if mode == "zero":
        return torch.zeros_like(rows)
    assert ranges is not None
    natural, shape = ranges[key], (-1, *(1,) * (rows.dim() - 1))
    mean, low, high = (
        values.to(rows)[index].reshape(shape)
        for values in (natural.mean, natural.low, natural.high)
    )
    return mean.expand_as(rows) if mode == "mean" else rows.clamp(low, high)
