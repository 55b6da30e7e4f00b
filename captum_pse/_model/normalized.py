"""A model with normalisation in front; its layers keep their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class Normalized(nn.Module):
    """Normalises images, then calls a model.

    Layers keep their names in ``model``; see :func:`named_layers`.

    Args:
        model (nn.Module): A model of normalised images.
        mean (sequence of float): Mean of each channel, for pixels in [0, 1].
        std (sequence of float): Standard deviation of each channel.
    """

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        from torchvision.transforms.v2 import Normalize

        super().__init__()
        self.normalize = Normalize(list(mean), list(std))
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model(self.normalize(images))


def named_layers(forward_func: Callable[..., Any]) -> dict[str, nn.Module]:
    """The user's layers by name; empty for a function that is not a module."""
    if isinstance(forward_func, Normalized):
        return named_layers(forward_func.model)
    if isinstance(forward_func, nn.Module):
        return dict(forward_func.named_modules())
    return {}
