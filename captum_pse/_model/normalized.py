"""A model with normalisation in front; its layers keep their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from captum_pse._model.compiled import original, original_name


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
    """The user's layers by name; empty for a function that is not a module.

    A compiled layer has the name that it has in the model before it was compiled.
    """
    if not isinstance(forward_func, nn.Module):
        return {}
    model = original(forward_func)
    if isinstance(model, Normalized):
        return named_layers(model.model)
    # The module that is compiled comes after its wrapper, and takes its name.
    return {original_name(name): module for name, module in model.named_modules()}
