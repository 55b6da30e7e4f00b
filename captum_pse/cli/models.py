"""Models by name: torchvision's models, and models of importable callables."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._model.normalized import Normalized


@dataclass(frozen=True)
class LoadedModel:
    """A model and the names of its classes.

    Attributes:
        forward_func (nn.Module): Takes images in [0, 1]; in evaluation mode.
        class_names (tuple[str, ...], optional): None for a model of a callable.
    """

    forward_func: nn.Module
    class_names: tuple[str, ...] | None


def load_model(
    name: str,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """Builds a model that takes images in [0, 1], and loads its weights.

    Args:
        name (str): A torchvision model's name, or ``package.module:callable``. The
            callable takes no arguments and returns the model.
        weights (str, optional): A ``.safetensors`` or ``.pt`` file with a state dict,
            or ``"DEFAULT"`` for torchvision's weights. Required for a torchvision
            model. Default: None
        mean (sequence of float, optional): Mean of each channel, for pixels in [0, 1];
            the model normalises its input by ``mean`` and ``std``. With None, a
            torchvision model uses the mean of torchvision's weights, and the model of a
            callable does not normalise. Default: None
        std (sequence of float, optional): Standard deviation of each channel. Give both
            ``mean`` and ``std`` or neither. Default: None

    Returns:
        *LoadedModel*: The model, in evaluation mode, and the names of its classes.

    Raises:
        FileNotFoundError: There is no such weights file.
        ValueError: The name is unknown, the weights cannot be read or do not fit, only
            one of ``mean`` and ``std`` is given, their lengths differ, or they are not
            finite or ``std`` is not positive.
    """
    _check_normalisation(mean, std)
    class_names = None
    if ":" in name:
        if weights == "DEFAULT":
            raise ValueError(
                "weights: got DEFAULT, want a file; only torchvision's models have "
                "DEFAULT weights"
            )
        model = _call(name)
        if weights is not None:
            _load_state(model, name, _read_state(Path(weights)))
    else:
        model, preset = _torchvision(name, weights)
        class_names = preset.meta["categories"]
        if mean is None:
            transforms: Any = preset.transforms()
            mean, std = transforms.mean, transforms.std
    if mean is not None and std is not None:
        model = Normalized(model, mean, std)
    return LoadedModel(model.eval(), tuple(class_names) if class_names else None)


def _check_normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != len(std):
        raise ValueError(
            f"mean and std: got {mean} and {std}, want both, of the same length"
        )
    if not all(map(math.isfinite, mean)):
        raise ValueError(f"mean: got {list(mean)}, want finite numbers")
    if not all(math.isfinite(s) and s > 0 for s in std):
        raise ValueError(f"std: got {list(std)}, want positive numbers")


def _call(name: str) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), attribute)()
    except Exception as error:  # the user's code may raise anything
        raise ValueError(
            f"model: {name} cannot be imported and called without arguments "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model: {name} returned {type(model).__name__}, want a torch.nn.Module"
        )
    return model


def _torchvision(name: str, weights: str | None) -> tuple[nn.Module, Any]:
    """The model with its weights, and the description of torchvision's weights."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"model: got {name!r}, want a name of torchvision's classification models "
            f"or package.module:callable{hint}"
        )
    if weights is None:
        raise ValueError(
            f"weights: got None for torchvision's {name}, want a file or DEFAULT"
        )
    preset = models.get_model_weights(name).DEFAULT
    if weights == "DEFAULT":
        try:
            return models.get_model(name, weights=preset), preset
        except OSError as error:
            raise ValueError(
                f"weights: torchvision's for {name} could not be downloaded ({error}); "
                "want a network connection or a file"
            ) from error
    state = _read_state(Path(weights))
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # torchvision builds them like this when it loads its own weights.
        auxiliary = any(key.lower().startswith("aux") for key in state)
        options = {"transform_input": True, "aux_logits": auxiliary}
        options["init_weights"] = False
    model = models.get_model(name, weights=None, **options)
    _load_state(model, name, state)
    return model, preset


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors may raise anything
        reason = (
            str(error).strip().splitlines()[0] if str(error).strip() else type(error)
        )
        raise ValueError(
            f"weights: {path} is not a complete state dict ({reason})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(v, Tensor) for v in state.values()
    ):
        raise ValueError(f"weights: {path} holds no state dict, want tensors by name")
    return state


def _load_state(model: nn.Module, name: str, state: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"weights: they do not match {name}: {' '.join(reasons)[:400]}"
        ) from error
