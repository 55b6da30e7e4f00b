"""Adapters for the attacks of other libraries, one for each library.

An attack's library is recognised by the module of its class or function. A library is
imported only inside its own adapter, where an attack of it shows that it is installed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import numbers
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from captum_pse._model.forward import ForwardFunc


class LibraryAttack(ABC):
    """An attack of a library, behind one interface for all libraries.

    Args:
        attack (Any): The library's own object.
        model (Any): The model if the attack does not hold it, else None.
        natural (Tensor): The inputs to attack, ``(N, ...)``.
        options (mapping): The user's arguments of the attack, besides inputs and
            labels.

    Attributes:
        scores (Callable): The model as the attack sees it: takes inputs such as
            ``natural``, returns scores ``(N, C)``.
        modules (tuple[nn.Module, ...]): The modules that the attack may change.

    Raises:
        ValueError: The attack holds a model and ``model`` is given, or neither.
    """

    #: The package of the attacks.
    package: ClassVar[str]
    #: Attributes that the library's attacks have and its other objects lack.
    marks: ClassVar[tuple[str, ...]] = ()
    #: Whether the library's attacks are called with the model.
    wants_model: ClassVar[bool] = False

    scores: ForwardFunc

    def __init__(
        self, attack: Any, model: Any, natural: Tensor, options: Mapping[str, Any]
    ) -> None:
        if (model is not None) != self.wants_model:
            wanted = "the model to attack" if self.wants_model else "None"
            raise ValueError(
                f"model: got {_kind(model)}, want {wanted}, as {_kind(attack)} "
                f"{'does not hold' if self.wants_model else 'holds'} its model"
            )
        self.attack = attack
        self.options = dict(options)
        self.modules: tuple[nn.Module, ...] = ()
        self._prepare(model, natural)

    @abstractmethod
    def _prepare(self, model: Any, natural: Tensor) -> None:
        """Sets ``scores`` and ``modules``."""

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest value of inputs, which broadcast to their shape; not
        finite if the attack has no bounds."""
        low, high = natural.new_tensor([-torch.inf, torch.inf])
        return low, high

    def check_scores(self, scores: Tensor) -> None:
        """Raises ValueError if the attack's loss does not fit these scores."""
        return

    def own_targets(self, natural: Tensor, true: Tensor) -> Tensor | None:
        """The targets ``(N,)`` that the attack picks itself; None if it is untargeted.

        Raises:
            ValueError: The attack needs targets from the caller.
        """
        return None

    @abstractmethod
    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        """Runs the attack and returns the adversarial inputs.

        Args:
            natural (Tensor): The inputs.
            labels (Tensor): int64 ``(N,)``, the targets, or the true labels if
                untargeted.
            targeted (bool): Whether ``labels`` are targets.

        Raises:
            ValueError: The attack cannot be targeted, or only so; an option does not
                fit.
        """


class CaptumAttack(LibraryAttack):
    """Captum's FGSM and PGD, and other classes with ``perturb(inputs, ..., target,
    targeted)``."""

    package = "captum"
    marks = ("perturb", "forward_func")

    def _prepare(self, model: Any, natural: Tensor) -> None:
        self.scores = self.attack.forward_func
        self.modules = _modules(self.scores)

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        bound = getattr(self.attack, "bound", lambda x: x)
        # Inputs of full shape: a user's bounds may differ by channel, for example.
        low, high = (
            torch.full_like(natural[:1], far) for far in (-torch.inf, torch.inf)
        )
        return bound(low), bound(high)

    def check_scores(self, scores: Tensor) -> None:
        # PGD holds its loss in an FGSM; None stands for Captum's own, -log(output).
        inner = getattr(self.attack, "fgsm", self.attack)
        if getattr(inner, "loss_func", self) is not None:
            return
        if (scores < 0).any() or ((scores.sum(dim=1) - 1).abs() > 1e-3).any():
            raise ValueError(
                f"attack: this {_kind(self.attack)} has Captum's own loss, "
                "-log(output), which is wrong for a model that returns logits; want "
                "loss_func=torch.nn.CrossEntropyLoss(reduction='none')"
            )

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        with warnings.catch_warnings():
            # Captum warns at every step that it sets requires_grad of the input.
            warnings.filterwarnings("ignore", "Input Tensor 0 did not already require")
            return self.attack.perturb(
                natural, target=labels, targeted=targeted, **self.options
            )


class TorchattacksAttack(LibraryAttack):
    """``attack(images, labels)``; the attack's mode decides whether labels are
    targets."""

    package = "torchattacks"
    marks = ("get_logits", "set_mode_targeted_by_function")

    def _prepare(self, model: Any, natural: Tensor) -> None:
        self.scores = self.attack.get_logits
        self.modules = _modules(self.attack.model)

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        low, high = natural.new_tensor([0.0, 1.0])
        if self.attack._normalization_applied:
            return self.attack.normalize(low), self.attack.normalize(high)
        return low, high

    def own_targets(self, natural: Tensor, true: Tensor) -> Tensor | None:
        if not self.attack.targeted:
            return None
        if self.attack.attack_mode == "targeted(label)":
            raise ValueError(
                "attack_label: got None, but the attack is in mode 'targeted(label)'; "
                "want labels, or set_mode_default()"
            )
        targets: Tensor = self.attack.get_target_label(natural, true)
        return targets

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        if targeted and "targeted" not in self.attack.supported_mode:
            raise ValueError(
                f"attack_label: got labels, but {self.attack.attack} of torchattacks "
                "cannot be targeted"
            )
        # Restores the mode, and flags that an exception leaves set, such as the one for
        # normalised inputs.
        attacks = [self.attack, *self.attack._attacks.values()]
        before = [dict(vars(attack)) for attack in attacks]
        try:
            if targeted:
                # Version 3.3 prints, and has no mode for given targets.
                with contextlib.redirect_stdout(io.StringIO()):
                    self.attack.set_mode_targeted_by_function(lambda _, given: given)
            return self.attack(natural, labels, **self.options)
        finally:
            for attack, attributes in zip(attacks, before, strict=True):
                vars(attack).update(attributes)


class FoolboxAttack(LibraryAttack):
    """``attack(foolbox_model, inputs, criterion, epsilons=...)``."""

    package = "foolbox"
    marks = ("repeat",)
    wants_model = True

    def _prepare(self, model: Any, natural: Tensor) -> None:
        from foolbox.models.base import Model
        from foolbox.models.pytorch import PyTorchModel

        if isinstance(model, nn.Module):
            # foolbox moves the model, and without a device to a GPU if there is one.
            device = next(model.parameters(), natural).device
            model = PyTorchModel(model, bounds=(0, 1), device=device)
        if not isinstance(model, Model):
            raise TypeError(
                f"model: got {_kind(model)}, want a torch.nn.Module for inputs in "
                "[0, 1], or a foolbox.PyTorchModel"
            )
        self.scores = self._model = model
        wrapped: Any = model
        while isinstance(wrapped, Model):
            wrapped = getattr(wrapped, "_model", None)
        self.modules = _modules(wrapped)
        epsilons = self.options.setdefault("epsilons", None)
        if epsilons is not None and not isinstance(epsilons, numbers.Real):
            raise ValueError(
                f"epsilons: got {epsilons!r}, want one number, or None for attacks "
                "that minimise the perturbation"
            )

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        low, high = natural.new_tensor(self._model.bounds)
        return low, high

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        from foolbox import criteria
        from foolbox.attacks.deepfool import DeepFoolAttack

        if targeted and isinstance(self.attack, DeepFoolAttack):
            # It accepts a target but attacks as if untargeted.
            raise ValueError(self._wrong(targeted))
        kind = "TargetedMisclassification" if targeted else "Misclassification"
        criterion = getattr(criteria, kind)(labels)
        try:
            _, clipped, _ = self.attack(self._model, natural, criterion, **self.options)
        except NotImplementedError as error:
            if "None in epsilons" not in str(error):
                raise
            raise ValueError(
                f"epsilons: got None, want a number for {_kind(self.attack)} of foolbox"
            ) from error
        except ValueError as error:
            if str(error) != "unsupported criterion":
                raise
            raise ValueError(self._wrong(targeted)) from error
        return clipped

    def _wrong(self, targeted: bool) -> str:
        got, can = ("labels", "cannot be") if targeted else ("None", "has to be")
        return (
            f"attack_label: got {got}, but {_kind(self.attack)} of foolbox {can} "
            "targeted"
        )


class ARTAttack(LibraryAttack):
    """``attack.generate(x, y)`` on numpy arrays; the attack's property ``targeted``
    decides whether y are targets."""

    package = "art"
    marks = ("generate", "estimator")

    def _prepare(self, model: Any, natural: Tensor) -> None:
        estimator = self.attack.estimator

        def scores(x: Tensor) -> Tensor:
            found = np.asarray(estimator.predict(_array(x)))
            return torch.from_numpy(found).to(x.device)

        self.scores = scores
        self.modules = _modules(getattr(estimator, "model", None))

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        values = self.attack.estimator.clip_values
        if values is None:
            return super().bounds(natural)
        low, high = (natural.new_tensor(np.asarray(value)) for value in values)
        return low, high

    def own_targets(self, natural: Tensor, true: Tensor) -> Tensor | None:
        if self.attack.targeted:
            raise ValueError(
                f"attack_label: got None, but this {_kind(self.attack)} is targeted; "
                "want labels, or make it with targeted=False"
            )
        return None

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        if targeted and not self.attack.targeted:
            raise ValueError(
                f"attack_label: got labels, but this {_kind(self.attack)} is not "
                "targeted; make it with targeted=True"
            )
        n_classes = self.attack.estimator.nb_classes
        y = np.eye(n_classes, dtype=np.float32)[labels.cpu().numpy()]
        found = self.attack.generate(x=_array(natural), y=y, **self.options)
        return torch.from_numpy(np.asarray(found)).to(natural)


class FunctionAttack(LibraryAttack):
    """Functions ``attack(model, inputs, labels, targeted=..., **options)``: adv-lib's
    and a user's own."""

    package = "adv_lib"
    wants_model = True

    def _prepare(self, model: Any, natural: Tensor) -> None:
        if not callable(model):
            raise TypeError(f"model: got {_kind(model)}, want a torch.nn.Module")
        self.scores = model
        self.modules = _modules(model)

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        if _unwrapped(self.attack).__module__.split(".")[0] != self.package:
            return super().bounds(natural)
        low, high = natural.new_tensor([0.0, 1.0])
        return low, high

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        parameters = inspect.signature(self.attack).parameters
        takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        how = {"targeted": targeted} if "targeted" in parameters or takes_any else {}
        if targeted and not how:
            raise ValueError(
                f"attack_label: got labels, but {_kind(self.attack)} has no argument "
                "targeted"
            )
        with warnings.catch_warnings():
            # After this warning adv-lib returns the inputs unchanged.
            warnings.filterwarnings("error", ".*attack is untargeted only")
            try:
                return self.attack(self.scores, natural, labels, **how, **self.options)
            except UserWarning as warning:
                if not targeted:
                    raise
                raise ValueError(
                    f"attack_label: got labels, but {_kind(self.attack)} cannot be "
                    f"targeted ({warning})"
                ) from warning


_CLASSES = (CaptumAttack, TorchattacksAttack, FoolboxAttack, ARTAttack)


def adapter_of(attack: Any) -> type[LibraryAttack]:
    """The adapter class for an attack.

    Raises:
        TypeError: The attack belongs to no known library and is no function.
    """
    packages = {base.__module__.split(".")[0] for base in type(attack).__mro__}
    for adapter in _CLASSES:
        known = adapter.package in packages or adapter is CaptumAttack
        if known and all(hasattr(attack, mark) for mark in adapter.marks):
            return adapter
    if inspect.isroutine(_unwrapped(attack)):
        return FunctionAttack
    raise TypeError(
        f"attack: got {_kind(attack)}, want an attack object of captum.robust (or with "
        "its perturb and forward_func), torchattacks, foolbox or ART, or a function "
        "such as adv-lib's, attack(model, inputs, labels, targeted=...)"
    )


def _unwrapped(attack: Any) -> Any:
    while isinstance(attack, functools.partial):
        attack = attack.func
    return inspect.unwrap(attack) if callable(attack) else attack


def _kind(value: Any) -> str:
    function = _unwrapped(value)
    if inspect.isroutine(function) or isinstance(value, type):
        return function.__name__
    return "None" if value is None else type(value).__name__


def _modules(forward: Any) -> tuple[nn.Module, ...]:
    """The modules that a forward function is, is bound to, or refers to by name."""
    forward = _unwrapped(forward)
    values = [forward, getattr(forward, "__self__", None)]
    if inspect.isfunction(forward):
        named = inspect.getclosurevars(forward)
        values += [*named.nonlocals.values(), *named.globals.values()]
    return tuple(value for value in values if isinstance(value, nn.Module))


def _array(x: Tensor) -> np.ndarray[Any, Any]:
    # ART returns float32 gradients for any dtype of the inputs.
    found: np.ndarray[Any, Any] = x.detach().cpu().float().numpy()
    return found
