"""The adversarial pair: a natural input, its adversarial twin, and their labels."""

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
    r"""N natural inputs ``x0`` with N adversarial inputs ``x' = x0 + delta``, checked.

    It unpacks into the arguments that all classes of the package share::

        PromotionSuppression(model).attribute(*pair)
        # the same as attribute(x_adv, x_nat, attack_label, true_label)

    and the first three of them are those of Captum's own methods:
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
        names (sequence of str, optional): What tables and figures call the examples.
            Default: ``"0"``, ``"1"``, ...
        succeeded (Tensor, optional): bool ``(N,)``, where the attack did what the
            labels say, if that is known. Default: None

    Raises:
        TypeError: Inputs that are not floating-point tensors, labels that are not
            integers.
        ValueError: Shapes, dtypes, devices or lengths that do not match; NaN or
            infinite values; labels that are negative or equal.

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
        attack                 is                                       ``options``
        =====================  =======================================  ==============
        captum.robust          an object (``FGSM``, ``PGD``,            of ``perturb``
                               :class:`captum_pse.StructuredAttack`)
        torchattacks           an object                                none
        foolbox                an object; wants ``model``               ``epsilons``
        Adversarial            an object of ``art.attacks.evasion``     of
        Robustness Toolbox                                              ``generate``
        adv-lib                a function; wants ``model``              its own
        your own               a function ``attack(model, inputs,       its own
                               labels, targeted=...)``; wants
                               ``model``
        =====================  =======================================  ==============

        All but captum.robust and adv-lib come with ``pip install
        'captum-pse[attacks]'``. Inputs are what the attack takes, normalised or not,
        and the pair is of the same kind; they have to be within the attack's bounds, if
        it has any. The model is afterwards as before.

        Or say its name, ``"torchattacks.PGD"``, ``"foolbox.L2CarliniWagnerAttack"``,
        ``"art.FastGradientMethod"``, ``"adv_lib.ddn"``, ``"captum.FGSM"``: it is made
        for ``model``, which takes images in [0, 1] and returns logits, with the
        ``options``.

        Args:
            attack (Any or str): The attack, made by its library, or its name.
            natural (Tensor): ``x0``, ``(N, ...)``.
            attack_label (int, list or Tensor, optional): ``t``, to be reached; None is
                an untargeted attack, or one that picks its targets itself.
                Default: None
            true_label (int, list or Tensor, optional): ``t0``; None means what the
                model predicts. Default: None
            model (Any, optional): For attacks that do not hold it, and for names: a
                ``torch.nn.Module``, for foolbox and adv-lib of inputs in [0, 1], or a
                ``foolbox.PyTorchModel`` for inputs in bounds of its own.
                Default: None
            names (sequence of str, optional): As for the class. Default: ()
            batch_size (int, optional): How many inputs are attacked at once; None for
                all. Default: None
            show_progress (bool, optional): Whether to show a progress bar.
                Default: False
            **options: Passed to the attack's call.

        Returns:
            *AdversarialPair*: Of all N examples, those on which the attack failed too.
            ``succeeded`` says where the model says ``t0`` before and ``t`` after. The
            attack label of an untargeted attack is what the model says after it and,
            where that is still ``t0``, what comes next.

        Raises:
            ImportError: The attack was named, and its library is not installed.
            TypeError: The attack is of no such library.
            ValueError: Inputs or the attack's result are out of its bounds; a label
                that does not fit; an attack that cannot be targeted, or needs targets;
                a loss that is wrong for the model; a model whose batch norm is in
                training mode.

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

        n = len(natural) if isinstance(natural, Tensor) else 0
        if names and len(names) != n:
            raise ValueError(
                f"names: got {len(names)}, want one for each of {n} examples"
            )
        found = run_attack(
            attack,
            natural,
            true_label,
            attack_label,
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
        moves = [f"{a} -> {b}" for a, b in zip(true, attack, strict=True)]  # type: ignore[arg-type]
        more = ", ..." if len(moves) > 3 else ""
        failed = 0 if self.succeeded is None else int((~self.succeeded).sum())
        return (
            f"AdversarialPair({len(self)} x {shapes}, {first[0].dtype}, "
            f"{', '.join(moves[:3])}{more}{f'; {failed} failed' if failed else ''})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a pair of images to an ``.npz`` or ``.safetensors`` file, whole or not
        at all, for ``captum-pse explain``, ``refine`` and ``study``.

        A .safetensors file holds no names.

        Args:
            path (str or Path): The file, with one of these endings; its folder is made
                where it is missing.

        Raises:
            OSError: It cannot be written.
            ValueError: Another ending; not one image input ``(N, C, H, W)`` in [0, 1],
                which is what such files hold.
        """
        from captum_pse.pairs.file_format import write_pair_file

        write_pair_file(vars(self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AdversarialPair:
        """Reads the pairs of images in a file; see :mod:`captum_pse.pairs.file_format`.

        Args:
            path (str or Path): An ``.npz`` or ``.safetensors`` file.

        Returns:
            *AdversarialPair*: On the CPU, float32 in [0, 1], ``(N, C, H, W)``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not such a file, or damaged.

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
        """The pair of some of the examples, in the order given.

        Args:
            examples (int, slice, sequence of int or Tensor): As for indexing a tensor
                of N; a mask is a bool tensor ``(N,)``.

        Returns:
            *AdversarialPair*: With their labels, names and ``succeeded``.

        Raises:
            IndexError: There is no such example.
            ValueError: None is selected.

        Examples::

            >>> x = torch.rand(4, 3)
            >>> len(AdversarialPair(x + 1, x, 1, 0).select(slice(0, 2)))
            2
        """
        chosen = examples
        if not isinstance(examples, slice):
            chosen = torch.as_tensor(examples).cpu()
            # An empty list makes a tensor of floats.
            chosen = chosen if chosen.numel() else chosen.long()
        try:
            rows = torch.arange(len(self))[chosen].reshape(-1).tolist()
        except IndexError as error:
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
        """The same pair on another device.

        Args:
            device (str or torch.device): Where its tensors go.
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
        """Checks that the model says ``t0`` on the natural side and ``t`` on the other.

        Args:
            forward_func (Callable): The model, in evaluation mode, or any function that
                returns scores ``(N, C, ...)``.
            additional_forward_args (Any, optional): Passed to it after the inputs.
                Default: None

        Raises:
            TypeError: The model returns something else than a tensor.
            ValueError: It says something else on some example, a label is not one of
                its classes, or it does not take the inputs.

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
            said = predicted_class(scores, index)
            wrong = (said != index[:, 0]).nonzero().flatten().tolist()
            if wrong:
                row = wrong[0]
                raise ValueError(
                    f"{name}: the model says otherwise on {len(wrong)} of {len(self)} "
                    f"{side} inputs; the first is {self.names[row]!r}, where it says "
                    f"{int(said[row])}, not {int(index[row, 0])}"
                )
