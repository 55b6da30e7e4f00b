"""Adversarial pairs: natural inputs, adversarial inputs, and their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_pse._model.checks import as_tuple, check_tensors
from captum_pse._model.forward import ForwardFunc, first_scores, forward_args
from captum_pse._model.targets import (
    Label,
    check_differ,
    check_index,
    label_index,
    predicted_class,
)


@dataclass(frozen=True, eq=False, repr=False)
class AdversarialPair:
    r"""N natural inputs ``x0`` and N adversarial inputs ``x' = x0 + delta``, checked.

    A pair unpacks into the arguments of ``attribute`` and ``decompose``::

        PromotionSuppression(model).attribute(*pair)
        # the same as attribute(x_adv, x_nat, attack_label, true_label)

    The first three are also the arguments of Captum's own methods:
    ``inputs, baselines, target, _ = pair``.

    Args:
        adversarial (Tensor or tuple[Tensor, ...]): ``x'``, shape ``(N, ...)``, floating
            point.
        natural (Tensor or tuple[Tensor, ...]): ``x0``, of the same shapes, dtypes and
            devices.
        attack_label (int, tuple, list or Tensor): ``t``, in any of Captum's target
            formats.
        true_label (int, tuple, list or Tensor): ``t0``, in any of Captum's target
            formats. It differs from ``t`` in every example.
        names (sequence of str, optional): Names of the examples in tables and figures.
            Default: ``"0"``, ``"1"``, ...
        succeeded (Tensor, optional): bool ``(N,)``, whether the model predicts ``t0``
            on ``x0`` and ``t`` on ``x'``; None if unknown. Default: None

    Raises:
        TypeError: Inputs are not floating-point tensors, or labels are not integers.
        ValueError: Shapes, dtypes, devices or lengths do not match; values are NaN or
            infinite; a label is negative; the labels of an example are equal.

    Examples::

        >>> natural = torch.rand(2, 3, 8, 8)
        >>> adversarial = natural + 0.01
        >>> pair = AdversarialPair(adversarial, natural, [0, 1], true_label=3)
        >>> pair
        AdversarialPair(2 x (3, 8, 8), torch.float32, 3 -> 0, 3 -> 1)
    """

    adversarial: Tensor | tuple[Tensor, ...]
    natural: Tensor | tuple[Tensor, ...]
    attack_label: Label
    true_label: Label
    names: Sequence[str] = field(default=(), kw_only=True)
    succeeded: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        xs, _ = check_tensors(self.adversarial, self.natural)
        if isinstance(self.adversarial, tuple) != isinstance(self.natural, tuple):
            raise ValueError(
                "natural and adversarial: got one tuple, want both or none"
            )
        n = len(xs[0])
        indices = {}
        for name in ("true_label", "attack_label"):
            index = label_index(name, getattr(self, name), n).to(xs[0].device)
            if (index < 0).any():
                raise ValueError(f"{name}: got {int(index.min())}, want 0 or more")
            indices[name] = index
            label = (
                index[:, 0] if index.shape[1] == 1 else [*map(tuple, index.tolist())]
            )
            object.__setattr__(self, name, label)
        true, attack = indices["true_label"], indices["attack_label"]
        if true.shape != attack.shape:
            raise ValueError(
                f"attack_label: got indices of {attack.shape[1]} integer(s), want "
                f"{true.shape[1]} as true_label"
            )
        check_differ(attack, true)
        names = tuple(self.names) or tuple(map(str, range(n)))
        if len(names) != n:
            raise ValueError(
                f"names: got {len(names)}, want one for each of {n} examples"
            )
        object.__setattr__(self, "names", names)
        found = self.succeeded
        if found is not None and not isinstance(found, Tensor):
            raise TypeError(
                f"succeeded: got {type(found).__name__}, want a bool tensor ({n},)"
            )
        if found is not None and (found.dtype != torch.bool or found.shape != (n,)):
            raise ValueError(
                f"succeeded: got {found.dtype} of shape {tuple(found.shape)}, want "
                f"bool ({n},)"
            )

    @classmethod
    def from_attack(
        cls,
        attack: Any,
        natural: Tensor,
        *,
        attack_label: Label | None = None,
        true_label: Label | None = None,
        model: Any = None,
        names: Sequence[str] = (),
        batch_size: int | None = None,
        show_progress: bool = False,
        **options: Any,
    ) -> AdversarialPair:
        r"""Attacks natural inputs with an attack of another library.

        =====================  =======================================  ==============
        Library                ``attack``                               ``options``
        =====================  =======================================  ==============
        captum.robust          an object (``FGSM``, ``PGD``,            of ``perturb``
                               :class:`captum_pse.StructuredAttack`)
        torchattacks           an object                                none
        foolbox                an object; needs ``model``               ``epsilons``
        Adversarial            an object of ``art.attacks.evasion``     of
        Robustness Toolbox                                              ``generate``
        adv-lib                a function; needs ``model``              its own
        your own               a function ``attack(model, inputs,       its own
                               labels, targeted=...)``; needs
                               ``model``
        =====================  =======================================  ==============

        captum.robust comes with Captum. ``pip install 'captum-pse[attacks]'`` installs
        the other libraries except adv-lib. ``natural`` is what the attack takes,
        normalised or not, within the attack's bounds if it has any; the pair has the
        same normalisation. The model is left unchanged.

        ``attack`` may also be a name: ``"torchattacks.PGD"``,
        ``"foolbox.L2CarliniWagnerAttack"``, ``"art.FastGradientMethod"``,
        ``"adv_lib.ddn"``, ``"captum.FGSM"``. The attack is then made with ``options``
        for ``model``, which takes images in [0, 1] and returns logits.

        Args:
            attack (Any or str): The attack, made by its library, or its name.
            natural (Tensor): ``x0``, ``(N, ...)``.
            attack_label (int, list or Tensor, optional): ``t``, the target of the
                attack; None for an untargeted attack, or one that picks its own
                targets. Default: None
            true_label (int, list or Tensor, optional): ``t0``; None for the model's
                prediction on ``natural``. Default: None
            model (Any, optional): The model, for attacks that do not hold one and for
                names: a ``torch.nn.Module``, for foolbox and adv-lib one that takes
                inputs in [0, 1], or a ``foolbox.PyTorchModel`` with its own bounds.
                Default: None
            names (sequence of str, optional): Names of the examples. Default: ()
            batch_size (int, optional): Number of inputs attacked at once; None for all.
                Default: None
            show_progress (bool, optional): Whether to show a progress bar.
                Default: False
            **options: Passed to the attack's call or, for a name, to whichever of its
                class and its call takes them.

        Returns:
            *AdversarialPair*: All N examples, including those on which the attack
            failed. ``succeeded`` is True if the model predicts ``t0`` on ``x0`` and
            ``t`` on ``x'``. For an untargeted attack, ``t`` is the class with the
            highest score on ``x'`` apart from ``t0``.

        Raises:
            ImportError: The library of a named attack is not installed.
            TypeError: The attack belongs to none of these libraries.
            ValueError: Inputs or the attack's result are out of its bounds; a label
                does not fit; the attack cannot be targeted, or needs targets; its loss
                does not fit the model; a batch norm of the model is in training mode.

        Examples::

            >>> from captum.robust import FGSM
            >>> from captum_pse.demo import load_model, make_pairs
            >>> loss = torch.nn.CrossEntropyLoss(reduction="none")
            >>> attack = FGSM(load_model(), loss, lower_bound=0.0, upper_bound=1.0)
            >>> natural = make_pairs(4).natural
            >>> pair = AdversarialPair.from_attack(attack, natural, epsilon=4 / 255)
            >>> pair.succeeded.tolist()
            [True, False, True, True]
            >>> fooled = pair.select(pair.succeeded)
        """
        from captum_pse.attacks.run import run_attack

        if names and isinstance(natural, Tensor) and len(names) != len(natural):
            raise ValueError(
                f"names: got {len(names)}, want one for each of {len(natural)} examples"
            )
        found = run_attack(
            attack,
            natural,
            attack_label=attack_label,
            true_label=true_label,
            model=model,
            batch_size=batch_size,
            show_progress=show_progress,
            options=options,
        )
        return cls(
            found.adversarial,
            natural.detach(),
            found.attack_label,
            found.true_label,
            names=names,
            succeeded=found.succeeded,
        )

    def __len__(self) -> int:
        return len(as_tuple("natural", self.natural)[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(
            (self.adversarial, self.natural, self.attack_label, self.true_label)
        )

    def __repr__(self) -> str:
        first = as_tuple("natural", self.natural)
        shapes = ", ".join(str(tuple(x.shape[1:])) for x in first)
        true, attack = (
            label.tolist() if isinstance(label, Tensor) else label
            for label in (self.true_label, self.attack_label)
        )
        labels = [f"{a} -> {b}" for a, b in zip(true, attack, strict=True)]  # type: ignore[arg-type]
        more = ", ..." if len(labels) > 3 else ""
        failed = 0 if self.succeeded is None else int((~self.succeeded).sum())
        return (
            f"AdversarialPair({len(self)} x {shapes}, {first[0].dtype}, "
            f"{', '.join(labels[:3])}{more}{f'; {failed} failed' if failed else ''})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes pairs of images to a file, for ``captum-pse explain``, ``refine`` and
        ``study``; see :mod:`captum_pse.pairs.file_format`.

        The file is written completely or not at all, with a digest of its content. A
        .safetensors file holds no names.

        Args:
            path (str or Path): An ``.npz`` or ``.safetensors`` file; its folder is
                created if missing.

        Raises:
            OSError: The file cannot be written.
            ValueError: The file has another ending, or the inputs are not one tensor
                of images ``(N, C, H, W)`` in [0, 1].
        """
        from captum_pse.pairs.file_format import write_pair_file

        write_pair_file(vars(self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AdversarialPair:
        """Reads pairs of images from a file; see :mod:`captum_pse.pairs.file_format`.

        Args:
            path (str or Path): An ``.npz`` or ``.safetensors`` file.

        Returns:
            *AdversarialPair*: On the CPU, float32 in [0, 1], ``(N, C, H, W)``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file has another format, or is damaged: its content does not
                match its digest, if it has one.

        Examples::

            >>> import tempfile
            >>> x = torch.rand(2, 3, 8, 8)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     AdversarialPair(1 - x, x, 1, 0).save(f"{folder}/pairs.npz")
            ...     pair = AdversarialPair.load(f"{folder}/pairs.npz")
            >>> torch.equal(pair.natural, x), pair.attack_label.tolist()
            (True, [1, 1])
        """
        from captum_pse.pairs.file_format import read_pair_file

        found = read_pair_file(path)
        try:
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"pairs: {path}: {error}") from error

    def select(self, examples: Any) -> AdversarialPair:
        """Selects examples, in the order given.

        Args:
            examples (int, slice, sequence of int or Tensor): An index into a tensor of
                N values; a bool tensor ``(N,)`` is a mask.

        Returns:
            *AdversarialPair*: The selected examples with their labels, names and
            ``succeeded``.

        Raises:
            IndexError: An index is out of range.
            ValueError: No example is selected.

        Examples::

            >>> x = torch.rand(4, 3)
            >>> len(AdversarialPair(x + 1, x, 1, 0).select(slice(0, 2)))
            2
        """
        chosen = examples
        try:
            if not isinstance(examples, slice):
                chosen = torch.as_tensor(examples).cpu()
                # torch.as_tensor([]) is a float tensor.
                chosen = chosen if chosen.numel() else chosen.long()
            rows = torch.arange(len(self))[chosen].reshape(-1).tolist()
        except (IndexError, RuntimeError, ValueError) as error:
            raise IndexError(
                f"examples: got {examples!r}, want some of {len(self)} ({error})"
            ) from error

        if not rows:
            raise ValueError(f"examples: got none of {len(self)}, want at least one")

        def pick(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(pick(x) for x in value)
            if isinstance(value, list):
                return [value[row] for row in rows]
            return value[rows]

        return AdversarialPair(
            pick(self.adversarial),
            pick(self.natural),
            pick(self.attack_label),
            pick(self.true_label),
            names=[self.names[row] for row in rows],
            succeeded=None if self.succeeded is None else self.succeeded[rows],
        )

    def to(self, device: str | torch.device) -> AdversarialPair:
        """Copies the pair to a device.

        Args:
            device (str or torch.device): The device.

        Returns:
            *AdversarialPair*: The same pair, on the device.
        """

        def move(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(move(x) for x in value)
            return value.to(device) if isinstance(value, Tensor) else value

        return AdversarialPair(
            move(self.adversarial),
            move(self.natural),
            move(self.attack_label),
            move(self.true_label),
            names=self.names,
            succeeded=move(self.succeeded),
        )

    @torch.no_grad()
    def verify(
        self, forward_func: ForwardFunc, additional_forward_args: Any = None
    ) -> None:
        """Checks that the model predicts ``t0`` on ``x0`` and ``t`` on ``x'``.

        Args:
            forward_func (Callable): The model, in evaluation mode, or any function that
                returns scores ``(N, C, ...)``.
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs. Default: None

        Raises:
            TypeError: The model does not return a tensor.
            ValueError: A prediction differs from its label, a label is not a class of
                the model, or the model does not take the inputs.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> make_pairs(2).verify(load_model())
        """
        args = forward_args(additional_forward_args)
        for side, name in (("natural", "true_label"), ("adversarial", "attack_label")):
            inputs = as_tuple(side, getattr(self, side))
            scores = first_scores(forward_func, inputs, args)
            index = check_index(
                name, label_index(name, getattr(self, name), len(self)), scores
            )
            predicted = predicted_class(scores, index)
            wrong = (predicted != index[:, 0]).nonzero().flatten().tolist()
            if wrong:
                row = wrong[0]
                raise ValueError(
                    f"{name}: the model predicts another class on {len(wrong)} of "
                    f"{len(self)} {side} inputs; the first is {self.names[row]!r}, "
                    f"where it predicts {int(predicted[row])}, not {int(index[row, 0])}"
                )
