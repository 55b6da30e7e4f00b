"""Projected gradient descent with the settings that an image classifier needs."""

from __future__ import annotations

import warnings

import torch
from captum.robust import PGD
from torch import Tensor, nn

from captum_pse._model.forward import ForwardFunc
from captum_pse._model.unchanged import unchanged

#: How far the new attack on a masked model goes where nothing else is asked for.
ADAPTIVE_EPS, ADAPTIVE_STEPS = 2 / 255, 10


def check_unit_range(name: str, images: Tensor) -> None:
    """Raises ValueError for images that are not in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(
            f"{name}: got values from {low:.4g} to {high:.4g}, want images in [0, 1], "
            "to which the new attack keeps"
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
    """Pushes images in [0, 1] towards classes, by ``captum.robust.PGD``.

    Args:
        model (Callable): Returns logits; afterwards as before.
        natural (Tensor): The images, ``(N, C, H, W)``.
        targets (Tensor): int64 ``(N,)``.
        eps (float): Largest change of a pixel.
        steps (int): Steps, of ``2.5 eps / steps`` each.
        batch_size (int, optional): How many images are attacked at once. Default: 16

    Raises:
        ValueError: Images that are not in [0, 1].
    """
    check_unit_range("natural", natural)
    loss = nn.CrossEntropyLoss(reduction="none")
    attack = PGD(model, loss, lower_bound=0.0, upper_bound=1.0)
    modules = (model,) if isinstance(model, nn.Module) else ()
    with warnings.catch_warnings(), torch.enable_grad(), unchanged(*modules):
        # Captum says at every step that it asks for the gradient of the input.
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require")
        parts = [
            attack.perturb(
                # In this order convolutions and poolings are faster.
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
    return torch.cat(parts).contiguous()
