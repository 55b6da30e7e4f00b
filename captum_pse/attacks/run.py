"""Runs an attack of any of the supported libraries on natural inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._model.checks import check_positive_int, check_tensors
from captum_pse._model.forward import first_scores, require_eval_batch_norm
from captum_pse._model.targets import Label, check_differ, check_index, label_index
from captum_pse._model.unchanged import unchanged
from captum_pse.attacks.by_name import attack_by_name
from captum_pse.attacks.libraries import LibraryAttack, adapter_of

#: What a value may be outside its bounds by, as a part of their distance.
SLACK = 1e-5


class AttackResult(NamedTuple):
    """What an attack made of N natural inputs.

    Attributes:
        adversarial (Tensor): ``x'``, of the natural inputs' shape.
        attack_label, true_label (Tensor): int64 ``(N,)``, ``t`` and ``t0``.
        succeeded (Tensor): bool ``(N,)``: the model predicts ``t0`` before and ``t``
            after.
    """

    adversarial: Tensor
    attack_label: Tensor
    true_label: Tensor
    succeeded: Tensor


@torch.inference_mode(False)
def run_attack(
    attack: Any,
    natural: Tensor,
    true_label: Label | None,
    attack_label: Label | None,
    *,
    model: Any,
    batch_size: int | None,
    show_progress: bool,
    options: dict[str, Any],
) -> AttackResult:
    """See :meth:`captum_pse.AdversarialPair.from_attack`."""
    if not isinstance(natural, Tensor):
        raise TypeError(f"natural: got {type(natural).__name__}, want a tensor")
    check_tensors(natural, natural, ("natural", "natural"))
    if batch_size is not None:
        check_positive_int("batch_size", batch_size)
    natural, n = natural.detach(), len(natural)
    if isinstance(attack, str):
        attack, model, options = attack_by_name(
            attack, model, natural[:1], options, targeted=attack_label is not None
        )
    adapted = adapter_of(attack)(attack, model, natural[:1], options)
    for module in adapted.modules:
        require_eval_batch_norm(module)
    _check_bounds(adapted, "natural", natural)
    rows = torch.arange(n).split(batch_size or n)
    before = torch.cat([_scores(adapted, natural[part]) for part in rows])
    adapted.check_scores(before)
    true = before.argmax(dim=1)
    if true_label is not None:
        true = _classes("true_label", true_label, before)
    wanted = None
    if attack_label is not None:
        wanted = _classes("attack_label", attack_label, before)
        check_differ(wanted[:, None], true[:, None])
    parts = []
    for part in tqdm(rows, "attacking", disable=not show_progress, unit="batch"):
        targets = None if wanted is None else wanted[part]
        parts.append(_attacked(adapted, natural[part], true[part], targets))
    moved, chosen = (torch.cat(values) for values in zip(*parts, strict=True))
    after = torch.cat([_scores(adapted, moved[part]) for part in rows])
    said = after.argmax(dim=1)
    # Without a target: what the model says now or, where it still says the true label,
    # what it says next to it.
    others = after.scatter(1, true[:, None], -torch.inf).argmax(dim=1)
    reached = torch.where(chosen < 0, others, chosen)
    succeeded = (before.argmax(dim=1) == true) & (said == reached)
    return AttackResult(moved, reached, true, succeeded)


def _attacked(
    adapted: LibraryAttack, natural: Tensor, true: Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The adversarial inputs and their attack labels, -1 for any."""
    # A copy: attacks write into what they are given. And some refuse what is out of
    # bounds by rounding alone.
    inputs = natural.clamp(*adapted.bounds(natural)).to(natural)
    with unchanged(*adapted.modules), torch.enable_grad():
        if targets is None:
            targets = adapted.own_targets(inputs, true)
            if targets is not None:
                check_differ(targets.to(true)[:, None], true[:, None])
        targeted = targets is not None
        labels = true if targets is None else targets.to(true)
        moved = adapted.run(inputs, labels.clone(), targeted=targeted)
    if not isinstance(moved, Tensor):
        raise TypeError(f"attack: returned {type(moved).__name__}, want a tensor")
    moved = moved.detach()
    if moved.shape != natural.shape or not moved.isfinite().all():
        raise ValueError(
            f"attack: returned shape {tuple(moved.shape)}"
            f"{'' if moved.isfinite().all() else ' with NaN or infinite values'}, want "
            f"finite values of shape {tuple(natural.shape)}"
        )
    moved = moved.to(natural)
    _check_bounds(adapted, "attack: in its result", moved)
    return moved, labels if targeted else torch.full_like(true, -1)


def _scores(adapted: LibraryAttack, inputs: Tensor) -> Tensor:
    with unchanged(*adapted.modules), torch.no_grad():
        scores = first_scores(adapted.scores, (inputs,))
    if scores.dim() != 2:
        raise ValueError(
            f"model: returned scores of shape {tuple(scores.shape)}, want (N, classes)"
        )
    return scores


def _classes(name: str, label: Label, scores: Tensor) -> Tensor:
    index = label_index(name, label, len(scores))
    return check_index(name, index, scores)[:, 0]


def _check_bounds(adapted: LibraryAttack, name: str, x: Tensor) -> None:
    low, high = adapted.bounds(x)
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
