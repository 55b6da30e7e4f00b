"""A copy of a model in which some units are always 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from captum_pse._model.layers import find_layer
from captum_pse._model.positions import Positions, check_channel_dim
from captum_pse._model.unchanged import copy_of
from captum_pse.units.masking import unit_numbers


def masked_copy(
    model: nn.Module,
    units: Mapping[str, Sequence[int] | Tensor],
    *,
    channel_dim: int | None = None,
) -> nn.Module:
    """A copy of a model in which units of some layers are always 0.

    :func:`captum_pse.mask_units` does the same to the model itself within a ``with``
    block. In the copy, each of the layers is replaced by a ``torch.nn.Sequential`` of
    the layer and a mask.

    Args:
        model (nn.Module): The model.
        units (mapping): For each layer name, the indices of the units, or a bool tensor
            ``(K,)``.
        channel_dim (int, optional): The dimension of the units in the layers' outputs.
            None means 1, and that the copy raises if the last layer with weights within
            or before one of these has its units at another dimension. Default: None

    Returns:
        *nn.Module*: The copy. It shares no tensors with ``model``, which is not
        changed.

    Raises:
        TypeError, ValueError: The model has no such layer, or units are not integers of
            at least 0. An index above the last unit, and a ``channel_dim`` that the
            output lacks, raise when the layer runs.

    Examples::

        >>> import torch
        >>> from captum_pse import mask_units
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, natural = load_model(), make_pairs(2).natural
        >>> masked = masked_copy(model, {"features.conv4": [0, 5]})
        >>> with mask_units(model, {"features.conv4": [0, 5]}):
        ...     torch.equal(model(natural), masked(natural))
        True
    """
    copied = copy_of(model)
    # All layers are found before any is replaced: one may be within another.
    layers = {}
    for name in units:
        if not name:
            raise ValueError("units: got the layer name '', want the name of a layer")
        layers[name] = find_layer(copied, name)
    dim = Positions.of(channel_dim).channel_dim
    unsure = [channel_dim is None and _may_be_last(copied, x) for x in layers.values()]
    for (name, layer), is_unsure in zip(layers.items(), unsure, strict=True):
        masked = nn.Sequential(layer, UnitMask(units[name], dim or 1, is_unsure))
        masked.training = layer.training
        for module in list(copied.modules()):
            # named_children() lists a shared layer once, _modules each time.
            for key, child in list(module._modules.items()):
                if child is layer:
                    setattr(module, key, masked)
    return copied


def _may_be_last(model: nn.Module, layer: nn.Module) -> bool:
    """Whether the last layer with weights within or before a layer, in the model's
    order of modules, does not have its units at dimension 1."""
    modules, inside = list(model.modules()), set(layer.modules())
    end = max(i for i, module in enumerate(modules) if module in inside)
    for module in reversed(modules[: end + 1]):
        if isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm)):
            return False
        if next(module.parameters(recurse=False), None) is not None:
            return True
    return False


class UnitMask(nn.Module):
    """Sets units to 0.

    Args:
        units (sequence of int or Tensor): The indices of the units, or a bool tensor
            ``(K,)``.
        channel_dim (int, optional): The dimension of the units. Default: 1
        is_unsure (bool, optional): Whether to refuse inputs with several dimensions at
            which units could be. Default: False
    """

    units: Tensor

    def __init__(
        self,
        units: Sequence[int] | Tensor,
        channel_dim: int = 1,
        is_unsure: bool = False,
    ) -> None:
        super().__init__()
        self._dim, self._is_unsure = channel_dim, is_unsure
        numbers = unit_numbers(units)
        if len(numbers) and int(numbers.min()) < 0:
            raise ValueError(f"units: got {numbers.tolist()}, want ints of 0 or more")
        self.register_buffer("units", numbers)
        self._last = int(numbers.max()) if len(numbers) else -1
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        if self._is_unsure and x.dim() > 2:
            raise ValueError(
                f"channel_dim: got None for a layer that returns shape "
                f"{tuple(x.shape)}, want 1 for (N, K, ...) or -1 for (N, ..., K)"
            )
        check_channel_dim(self._dim, "the layer", x)
        if self._last >= x.shape[self._dim]:
            raise ValueError(
                f"units: got {self._last}, want at most {x.shape[self._dim] - 1}, the "
                "last one of the layer"
            )
        return x.index_fill(self._dim, self.units, 0)
