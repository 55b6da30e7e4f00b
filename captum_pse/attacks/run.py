"""Runs an attack of any supported library on natural inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._model.checks import check_optional_int, check_tensors
from captum_pse._model.forward import first_scores, require_eval_batch_norm
from captum_pse._model.targets import Label, check_differ, check_index, label_index
from captum_pse._model.unchanged import unchanged
from captum_pse.attacks.by_name import attack_by_name
from captum_pse.attacks.libraries import LibraryAttack, adapter_of

#: Accepted distance of a value from its bounds, as a fraction of their range.
SLACK = 1e-5


class AttackResult(NamedTuple):
    """The result of an attack on N natural inputs.

    Attributes:
        adversarial (Tensor): ``x'``, of the natural inputs' shape.
        attack_label, true_label (Tensor): int64 ``(N,)``, ``t`` and ``t0``.
        succeeded (Tensor): bool ``(N,)``, whether the model predicts ``t0`` on ``x0``
            and ``t`` on ``x'``.
    """

    adversarial: Tensor
    attack_label: Tensor
    true_label: Tensor
    succeeded: Tensor


@torch.inference_mode(False)
def run_attack(
    attack: Any,
    natural: Tensor,
    *,
    attack_label: Label | None,
    true_label: Label | None,
    model: Any,
    batch_size: int | None,
    show_progress: bool,
    options: dict[str, Any],
) -> AttackResult:
    """See :meth:`captum_pse.AdversarialPair.from_attack`."""
    if not isinstance(natural, Tensor):
        raise TypeError(f"natural: got {type(natural).__name__}, want a tensor")
    check_tensors(natural, natural, ("natural", "natural"))
    batch_size = check_optional_int("batch_size", batch_size, 1)
    natural, n = natural.detach(), len(natural)
    if isinstance(attack, str):
        attack, model, options = attack_by_name(
            attack, model, natural[:1], options, targeted=attack_label is not None
        )
    adapter = adapter_of(attack)(attack, model, natural[:1], options)
    for module in adapter.modules:
        require_eval_batch_norm(module)
    _check_bounds(adapter, "natural", natural)
    batches = torch.arange(n).split(batch_size or n)
    before = torch.cat([_scores(adapter, natural[rows]) for rows in batches])
    adapter.check_scores(before)
    true = before.argmax(dim=1)
    if true_label is not None:
        true = _classes("true_label", true_label, before)
    wanted = None
    if attack_label is not None:
        wanted = _classes("attack_label", attack_label, before)
        check_differ(wanted[:, None], true[:, None])
    results = []
    for rows in tqdm(batches, "attacking", disable=not show_progress, unit="batch"):
        targets = None if wanted is None else wanted[rows]
        results.append(_attack_batch(adapter, natural[rows], true[rows], targets))
    adversarial, targets = (torch.cat(values) for values in zip(*results, strict=True))
    after = torch.cat([_scores(adapter, adversarial[rows]) for rows in batches])
    # Untargeted: the class with the highest score apart from the true label.
    others = after.scatter(1, true[:, None], -torch.inf).argmax(dim=1)
    attack_labels = torch.where(targets < 0, others, targets)
    correct = before.argmax(dim=1) == true
    succeeded = correct & (after.argmax(dim=1) == attack_labels)
    return AttackResult(adversarial, attack_labels, true, succeeded)


def _attack_batch(
    adapter: LibraryAttack, natural: Tensor, true: Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The adversarial inputs and their targets, -1 if untargeted."""
    # A copy, since attacks write into their inputs; clamped, since some attacks refuse
    # inputs that are out of bounds by rounding.
    inputs = natural.clamp(*adapter.bounds(natural)).to(natural)
    with unchanged(*adapter.modules), torch.enable_grad():
        if targets is None:
            targets = adapter.own_targets(inputs, true)
            if targets is not None:
                check_differ(targets.to(true)[:, None], true[:, None])
        targeted = targets is not None
        labels = true if targets is None else targets.to(true)
        adversarial = adapter.run(inputs, labels.clone(), targeted=targeted)
    if not isinstance(adversarial, Tensor) or not adversarial.is_floating_point():
        got = getattr(adversarial, "dtype", type(adversarial).__name__)
        raise TypeError(f"attack: returned {got}, want a floating-point tensor")
    adversarial = adversarial.detach()
    is_finite = bool(adversarial.isfinite().all())
    if adversarial.shape != natural.shape or not is_finite:
        raise ValueError(
            f"attack: returned shape {tuple(adversarial.shape)}"
            f"{'' if is_finite else ' with NaN or infinite values'}, want "
            f"finite values of shape {tuple(natural.shape)}"
        )
    adversarial = adversarial.to(natural)
    _check_bounds(adapter, "attack: in its result", adversarial)
    return adversarial, labels if targeted else torch.full_like(true, -1)


def _scores(adapter: LibraryAttack, inputs: Tensor) -> Tensor:
    with unchanged(*adapter.modules), torch.no_grad():
        scores = first_scores(adapter.scores, (inputs,))
    if scores.dim() != 2:
        raise ValueError(
            f"model: returned scores of shape {tuple(scores.shape)}, want (N, classes)"
        )
    return scores


def _classes(name: str, label: Label, scores: Tensor) -> Tensor:
    index = label_index(name, label, len(scores))
    return check_index(name, index, scores)[:, 0]


def _check_bounds(adapter: LibraryAttack, name: str, x: Tensor) -> None:
    low, high = adapter.bounds(x)
    rounding = max(SLACK, 4 * torch.finfo(x.dtype).eps)
    slack = (rounding * (high - low)).nan_to_num(nan=0.0, posinf=0.0)
    outside = ((x < low - slack) | (x > high + slack)).nonzero()
    if len(outside):
        first = tuple(outside[0].tolist())
        least, most = (
            float(bound.expand_as(x[:1])[0][first[1:]]) for bound in (low, high)
        )
        raise ValueError(
            f"{name}: got {float(x[first]):.6g} at {first}, want {least:.6g} to "
            f"{most:.6g}, the attack's bounds"
        )
