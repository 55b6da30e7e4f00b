"""Adversarial pairs from an attack of any of the supported libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._engine.batches import check_positive_int
from captum_pse._forward import first_scores, require_eval_batch_norm
from captum_pse._tensors import check_tensors
from captum_pse._unchanged import unchanged
from captum_pse.attacks.by_name import attack_by_name
from captum_pse.attacks.libraries import LibraryAttack, adapter_of
from captum_pse.labels import Label, check_differ, check_index, label_index
from captum_pse.pair import AdversarialPair

#: What a value may be outside its bounds by, as a part of their distance.
SLACK = 1e-5


@torch.inference_mode(False)
def make_pairs(
    attack: Any,
    natural: Tensor,
    true_label: Label | None,
    attack_label: Label | None,
    *,
    model: Any,
    names: Sequence[str],
    batch_size: int | None,
    show_progress: bool,
    options: dict[str, Any],
) -> AdversarialPair:
    """See :meth:`captum_pse.AdversarialPair.from_attack`."""
    if not isinstance(natural, Tensor):
        raise TypeError(f"natural: got {type(natural).__name__}, want a tensor")
    check_tensors(natural, natural, ("natural", "natural"))
    if batch_size is not None:
        check_positive_int("batch_size", batch_size)
    natural, n = natural.detach(), len(natural)
    if names and len(names) != n:
        raise ValueError(f"names: got {len(names)}, want one for each of {n} examples")
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
    return AdversarialPair(
        natural,
        moved,
        true,
        reached,
        names,
        succeeded=(before.argmax(dim=1) == true) & (said == reached),
    )


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
