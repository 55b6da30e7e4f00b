"""A copy of a model in which some units are always 0."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from captum_pse._model.layers import find_layer
from captum_pse.units.masking import unit_numbers


def masked_copy(
    model: nn.Module, units: Mapping[str, Sequence[int] | Tensor]
) -> nn.Module:
    """A copy of a model in which units of some layers are always 0.

    :func:`captum_pse.mask_units` does the same to the model itself within a ``with``
    block. In the copy, each of the layers is replaced by a ``torch.nn.Sequential`` of
    the layer and a mask.

    Args:
        model (nn.Module): The model.
        units (mapping): For each layer name, the indices of the units, or a bool tensor
            ``(K,)``. Units are in dimension 1 of the layer's output, ``(N, K, ...)``.

    Returns:
        *nn.Module*: The copy. It shares no tensors with ``model``, which is not
        changed.

    Raises:
        TypeError, ValueError: The model has no such layer, or units are not integers of
            at least 0. An index above the last unit raises when the layer runs.

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
    copied = copy.deepcopy(model)
    # All layers are found before any is replaced: one may be within another.
    layers = {}
    for name in units:
        if not name:
            raise ValueError("units: got the layer name '', want the name of a layer")
        layers[name] = find_layer(copied, name)
    for name, layer in layers.items():
        masked = nn.Sequential(layer, UnitMask(units[name]))
        masked.training = layer.training
        for module in list(copied.modules()):
            # named_children() lists a shared layer once, _modules each time.
            for key, child in list(module._modules.items()):
                if child is layer:
                    setattr(module, key, masked)
    return copied


class UnitMask(nn.Module):
    """Sets units in dimension 1 to 0.

    Args:
        units (sequence of int or Tensor): The indices of the units, or a bool tensor
            ``(K,)``.
    """

    units: Tensor

    def __init__(self, units: Sequence[int] | Tensor) -> None:
        super().__init__()
        numbers = unit_numbers(units)
        if len(numbers) and int(numbers.min()) < 0:
            raise ValueError(f"units: got {numbers.tolist()}, want ints of 0 or more")
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
