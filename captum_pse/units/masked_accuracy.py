"""What a model predicts on pairs, stored and attacked again, with masked units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captum_pse._model.checks import check_int
from captum_pse._model.forward import require_eval_batch_norm, run_forward
from captum_pse._model.layers import Layer
from captum_pse._model.positions import channel_dim_of
from captum_pse._model.score import returned_kind
from captum_pse._model.score_warnings import warn_of_probabilities
from captum_pse._model.unchanged import unchanged
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS, targeted_pgd
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.units.masking import MaskMode, UnitRange, mask_units, unit_range

#: The outcomes for each pair; ``adaptive`` only with an adaptive attack.
OUTCOMES = ("clean", "adversarial", "attacked", "adaptive")

#: Adaptive attack: takes a model and pairs, returns adversarial inputs for the model.
AdaptiveAttack: TypeAlias = Callable[[nn.Module, AdversarialPair], Tensor]


class MaskedAccuracy:
    """The outcomes of pairs on a model with masked units of one layer.

    Args: as for :func:`captum_pse.evaluate_masking`.

    Attributes:
        n_units (int): K, the number of units of the layer.

    Raises:
        TypeError, ValueError: As :func:`captum_pse.evaluate_masking`.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: AdversarialPair,
        layer: str,
        attack: AdaptiveAttack | None = None,
        *,
        mode: MaskMode = "zero",
        channel_dim: int | None = None,
        batch_size: int = 16,
    ) -> None:
        batch_size = check_int("batch_size", batch_size, 1)
        require_eval_batch_norm(model)
        x, x0, t, _ = pairs
        if not isinstance(x, Tensor) or not isinstance(t, Tensor):
            raise ValueError("pairs: want one input and class labels")
        channel_dim, self.n_units = channel_dim_of(model, layer, x0, channel_dim)
        self._model, self._pairs, self._layer = model, pairs, layer
        self._mode: MaskMode = mode
        self._channel_dim, self._batch_size = channel_dim, batch_size
        self._attack = attack
        if attack is not None:
            with torch.no_grad():
                scores = run_forward(model, (x0[:1].clone(),))
            warn_of_probabilities(returned_kind(scores))
        self._ranges: dict[Layer, UnitRange] | None = None
        if mode != "zero":
            natural = unit_range(
                model, layer, x0, channel_dim=channel_dim, batch_size=batch_size
            )
            self._ranges = {layer: natural}

    @torch.no_grad()
    def outcomes(self, units: Iterable[int]) -> Tensor:
        """Which of :data:`OUTCOMES` hold for which pairs with these units masked:
        double ``(3 or 4, N)``, 1 or 0; the last row only with an adaptive attack."""
        x, x0, t, t0 = self._pairs
        masked: dict[Layer, list[int]] = {self._layer: sorted(units)}
        with mask_units(
            self._model,
            masked,
            mode=self._mode,
            ranges=self._ranges,
            channel_dim=self._channel_dim,
        ):
            predicted = self._predict(x)
            found = [self._predict(x0) == t0, predicted == t0, predicted == t]
            if self._attack is not None:
                again = _run_attack(self._attack, self._model, self._pairs)
                found.append(self._predict(again) == t0)
        return torch.stack(found).double().cpu()

    def _predict(self, inputs: Tensor) -> Tensor:
        batches = inputs.split(self._batch_size)
        scores = [run_forward(self._model, (batch.clone(),)) for batch in batches]
        return torch.cat(scores).argmax(dim=1)


def _run_attack(
    attack: AdaptiveAttack, model: nn.Module, pairs: AdversarialPair
) -> Tensor:
    """The inputs that an adaptive attack returns, checked; the model is restored."""
    with torch.enable_grad(), unchanged(model):
        found = attack(model, pairs)
    natural = pairs.natural
    assert isinstance(natural, Tensor)
    if isinstance(found, Tensor) and not found.is_floating_point():
        raise ValueError(f"attack: returned {found.dtype}, want floating-point values")
    if not isinstance(found, Tensor) or found.shape != natural.shape:
        kind = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"attack: returned {kind}, want a tensor of shape {tuple(natural.shape)}"
        )
    if not found.isfinite().all():
        raise ValueError("attack: returned NaN or infinite values, want finite ones")
    return found.detach().to(natural)


def adaptive_pgd(
    model: nn.Module,
    pairs: AdversarialPair,
    *,
    eps: float = ADAPTIVE_EPS,
    steps: int = ADAPTIVE_STEPS,
    batch_size: int = 16,
) -> Tensor:
    """An adaptive attack: targeted PGD on a model, towards the pairs' attack labels.

    Args:
        model (nn.Module): The masked model.
        pairs (AdversarialPair): Pairs with natural images in [0, 1] and class labels.
        eps (float, optional): Largest change of a pixel. Default: 2/255
        steps (int, optional): Number of steps, of ``2.5 eps / steps`` each. Default: 10
        batch_size (int, optional): Number of images in one pass. Default: 16

    Returns:
        *Tensor*: Adversarial images, ``(N, C, H, W)``.

    Raises:
        ValueError: The images are not in [0, 1].
    """
    natural, targets = pairs.natural, pairs.attack_label
    assert isinstance(natural, Tensor)
    assert isinstance(targets, Tensor)
    return targeted_pgd(
        model, natural, targets, eps=eps, steps=steps, batch_size=batch_size
    )
