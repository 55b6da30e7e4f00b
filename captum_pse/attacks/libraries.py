"""How the attacks of other libraries want to be called, one adapter a library.

No library is imported here but where an attack of it is at hand, so that it is
installed: an attack is known by the module that its class, or function, comes from.
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
    """An attack of some library, with the conventions of the library taken away.

    Args:
        attack (Any): The library's own object.
        model (Any): The model, where the attack does not hold it; else None.
        natural (Tensor): The inputs to be attacked, ``(N, ...)``.
        options (mapping): What the user gives to the attack beside inputs and labels.

    Attributes:
        scores (Callable): The model as the attack sees it: from inputs such as
            ``natural`` to scores ``(N, C)``.
        modules (tuple[nn.Module, ...]): What the attack may leave traces in.
    """

    #: The package that the attacks come from.
    package: ClassVar[str]
    #: What its attacks have, and its other objects have not.
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
        """The least and the largest value of inputs, to be broadcast; at first any."""
        low, high = natural.new_tensor([-torch.inf, torch.inf])
        return low, high

    def check_scores(self, scores: Tensor) -> None:
        """Raises ValueError where the attack is not made for such a model."""
        return

    def own_targets(self, natural: Tensor, true: Tensor) -> Tensor | None:
        """The attack labels ``(N,)`` that the attack itself picks; None where it picks
        none and was given none: untargeted.

        Raises:
            ValueError: It is made for targets that have to be given.
        """
        return None

    @abstractmethod
    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        """The adversarial inputs.

        Args:
            natural (Tensor): The inputs.
            labels (Tensor): int64 ``(N,)``: what to reach, or what to leave.
            targeted (bool): Which of the two.
        """


class CaptumAttack(LibraryAttack):
    """FGSM, PGD and other classes with ``perturb(inputs, ..., target, targeted)``."""

    package = "captum"
    marks = ("perturb", "forward_func")

    def _prepare(self, model: Any, natural: Tensor) -> None:
        self.scores = self.attack.forward_func
        self.modules = _modules(self.scores)

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        bound = getattr(self.attack, "bound", lambda x: x)
        # Whole inputs: users put in bounds of their own, for each channel say.
        low, high = (
            torch.full_like(natural[:1], far) for far in (-torch.inf, torch.inf)
        )
        return bound(low), bound(high)

    def check_scores(self, scores: Tensor) -> None:
        # PGD has its loss in an FGSM; None is Captum's own, -log(output).
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
            # Captum says at every step that it asks for the gradient of the input.
            warnings.filterwarnings("ignore", "Input Tensor 0 did not already require")
            return self.attack.perturb(
                natural, target=labels, targeted=targeted, **self.options
            )


class TorchattacksAttack(LibraryAttack):
    """``attack(images, labels)``: labels mean what the attack's mode says."""

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
        # Its mode, and what an exception leaves: that it has normalised the inputs.
        attacks = [self.attack, *self.attack._attacks.values()]
        before = [dict(vars(attack)) for attack in attacks]
        try:
            if targeted:
                # Only later versions than 3.3 have a mode for this, and are quiet.
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
                "that look for the smallest perturbation"
            )

    def bounds(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        low, high = natural.new_tensor(self._model.bounds)
        return low, high

    def run(self, natural: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
        from foolbox import criteria
        from foolbox.attacks.deepfool import DeepFoolAttack

        if targeted and isinstance(self.attack, DeepFoolAttack):
            # It would take the target, and leave the predicted class as ever.
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
    """``attack.generate(x, y)`` on numpy arrays; whether y is a target is the
    attack's own property."""

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
    """adv-lib's functions, and any other of the form ``attack(model, inputs, labels,
    targeted=..., **options)``."""

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
            # adv-lib gives the inputs back then.
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
    """The adapter for an attack, by the library that it comes from.

    Raises:
        TypeError: It is of none of them.
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
    """A model, or those that a function around models can be seen to name."""
    forward = _unwrapped(forward)
    values = [forward, getattr(forward, "__self__", None)]
    if inspect.isfunction(forward):
        named = inspect.getclosurevars(forward)
        values += [*named.nonlocals.values(), *named.globals.values()]
    return tuple(value for value in values if isinstance(value, nn.Module))


def _array(x: Tensor) -> np.ndarray[Any, Any]:
    # ART's gradients are of this type whatever the inputs are.
    found: np.ndarray[Any, Any] = x.detach().cpu().float().numpy()
    return found
