"""Projected gradient descent on images in [0, 1], by Captum."""

from __future__ import annotations

import warnings

import torch
from captum.robust import PGD
from torch import Tensor, nn

from captum_pse._model.checks import check_int
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.unchanged import unchanged

#: Default radius and number of steps of the adaptive attack on a masked model.
ADAPTIVE_EPS, ADAPTIVE_STEPS = 2 / 255, 10


def check_unit_range(name: str, images: Tensor) -> None:
    """Raises ValueError unless all images are in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(
            f"{name}: got values from {low:.4g} to {high:.4g}, want images in [0, 1], "
            "the bounds of the adaptive attack"
        )


def targeted_pgd(
    model: ForwardFunc,
    natural: Tensor,
    targets: Tensor,
    *,
    eps: float,
    steps: int,
    batch_size: int = 16,
) -> Tensor:
    """Attacks images in [0, 1] towards target classes, by ``captum.robust.PGD``.

    Args:
        model (Callable): A model that returns logits; left unchanged.
        natural (Tensor): The images, ``(N, C, H, W)``.
        targets (Tensor): The target classes, int64 ``(N,)``.
        eps (float): The largest change of a pixel.
        steps (int): The number of steps, of size ``2.5 eps / steps`` each.
        batch_size (int, optional): The number of images attacked at once. Default: 16

    Returns:
        *Tensor*: The adversarial images, ``(N, C, H, W)``.

    Raises:
        TypeError, ValueError: Images are not in [0, 1], or ``steps`` or ``batch_size``
            is not a positive int.
    """
    steps = check_int("steps", steps, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    check_unit_range("natural", natural)
    loss = nn.CrossEntropyLoss(reduction="none")
    attack = PGD(model, loss, lower_bound=0.0, upper_bound=1.0)
    modules = (model,) if isinstance(model, nn.Module) else ()
    with warnings.catch_warnings(), torch.enable_grad(), unchanged(*modules):
        # Captum warns at every step that it sets requires_grad of the input.
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require")
        attacked = [
            attack.perturb(
                # In channels-last memory convolutions and poolings are faster.
                images.clone(memory_format=torch.channels_last),
                radius=eps,
                step_size=2.5 * eps / steps,
                step_num=steps,
                target=labels,
                targeted=True,
            ).detach()
            for images, labels in zip(
                natural.split(batch_size), targets.split(batch_size), strict=True
            )
        ]
    return torch.cat(attacked).contiguous()
