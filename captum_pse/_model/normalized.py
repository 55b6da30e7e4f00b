"""A model with its normalisation in front, whose layers keep the user's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class Normalized(nn.Module):
    """Normalises images, then calls a model.

    Layers keep the names that they have in ``model``; see :func:`named_layers`.

    Args:
        model (nn.Module): Takes normalised images.
        mean (sequence of float): Of each channel, for pixels in [0, 1].
        std (sequence of float): Of each channel.
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
    """The layers by the names that the user knows; empty for a plain function."""
    if isinstance(forward_func, Normalized):
        return named_layers(forward_func.model)
    if isinstance(forward_func, nn.Module):
        return dict(forward_func.named_modules())
    return {}
