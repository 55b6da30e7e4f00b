"""Attacks by library and name, such as ``"torchattacks.PGD"``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_pse._model.forward import require_eval_batch_norm

#: By library: the module with its attacks, and what pip installs.
_LIBRARIES = {
    "captum": ("captum.robust", "captum"),
    "captum_pse": ("captum_pse.attacks", "captum-pse"),
    "torchattacks": ("torchattacks", "'captum-pse[attacks]'"),
    "foolbox": ("foolbox.attacks", "'captum-pse[attacks]'"),
    "art": ("art.attacks.evasion", "'captum-pse[attacks]'"),
    "adv_lib": ("adv_lib.attacks", "adv-lib"),
}


class Named(NamedTuple):
    """An attack with the arguments of its adapter.

    Attributes:
        attack (Any): The library's object or function.
        model (Any): The model if the attack does not hold it, else None.
        options (dict): The options of the attack's call.
    """

    attack: Any
    model: Any
    options: dict[str, Any]


def attack_by_name(
    name: str,
    model: Any,
    natural: Tensor,
    options: Mapping[str, Any],
    *,
    targeted: bool,
) -> Named:
    """Makes a named attack for a model of images in [0, 1].

    Args:
        name (str): ``"library.attack"``.
        model (nn.Module): The model, which returns logits.
        natural (Tensor): One input, ``(1, ...)``.
        options (mapping): Options of the attack, for its class or its call, as the
            library takes them.
        targeted (bool): Whether the attack will get attack labels.

    Raises:
        ImportError: The library is not installed; the message states how to install it.
        ValueError: There is no such library or attack, or the attack does not take the
            options.
        TypeError: ``model`` is not a module.
    """
    library, _, kind = name.partition(".")
    if library not in _LIBRARIES or not kind:
        raise ValueError(
            f"attack: got {name!r}, want a name such as 'torchattacks.PGD', of one of "
            f"{', '.join(_LIBRARIES)}"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model: got {type(model).__name__}, want the torch.nn.Module to attack"
        )
    require_eval_batch_norm(model)
    module, package = _LIBRARIES[library]
    try:
        attacks = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"attack: {name} needs a library that is not installed: pip install "
            f"{package} ({error})"
        ) from error
    make = getattr(attacks, kind, None)
    if not callable(make):
        raise ValueError(f"attack: {module} has no {kind!r}")
    try:
        return _made(library, make, model, natural, dict(options), targeted)
    except TypeError as error:
        raise ValueError(f"attack: {name} cannot be made: {error}") from error


def _made(
    library: str,
    make: Any,
    model: nn.Module,
    natural: Tensor,
    options: dict[str, Any],
    targeted: bool,
) -> Named:
    """Makes the attack, and passes the options to its class or keeps them for its call,
    as the library takes them."""
    loss = nn.CrossEntropyLoss(reduction="none")
    if library == "captum":
        return Named(make(model, loss, 0.0, 1.0), None, options)
    if library == "captum_pse":
        return Named(make(model), None, options)
    if library == "torchattacks":
        return Named(make(model, **options), None, {})
    if library == "adv_lib":
        return Named(make, model, options)
    if library == "foolbox":
        call = {k: options.pop(k) for k in ("epsilons",) if k in options}
        return Named(make(**options), model, call)
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        n_classes = model(natural.clone()).shape[1]
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        tuple(natural.shape[1:]),
        n_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if natural.is_cuda else "cpu",
    )
    mode = {"targeted": True} if targeted else {}
    return Named(make(classifier, **mode, **options), None, {})
