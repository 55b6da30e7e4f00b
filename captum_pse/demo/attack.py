"""Targeted adversarial pairs on the demo model."""

from __future__ import annotations

import torch

from captum_pse.attacks.pgd import targeted_pgd
from captum_pse.demo.model import load_model
from captum_pse.demo.scenes import CLASSES, Scenes
from captum_pse.pair import AdversarialPair


def make_pairs(n: int = 12, eps: float = 6 / 255, steps: int = 20) -> AdversarialPair:
    """Attacks n test scenes with projected gradient descent (``captum.robust.PGD``).

    Each scene is pushed towards another class than its own, at most ``eps`` away in
    every pixel and within [0, 1].

    Args:
        n (int, optional): How many pairs. Default: 12
        eps (float, optional): Largest change of a pixel, in [0, 1] units; 6/255 is
            enough to succeed. Default: 6/255
        steps (int, optional): Steps of the attack, of ``2.5 eps / steps`` each.
            Default: 20

    Returns:
        *AdversarialPair*: The same for the same arguments.

    Examples::

        >>> make_pairs(2)
        AdversarialPair(2 x (3, 64, 64), torch.float32, 0 -> 1, 1 -> 2)
    """
    images, labels = Scenes(n).batch()
    # The k-th time a class comes, its scene is pushed k classes on.
    shift = 1 + torch.arange(n) // len(CLASSES) % (len(CLASSES) - 1)
    targets = (labels + shift) % len(CLASSES)
    adversarial = targeted_pgd(load_model(), images, targets, eps=eps, steps=steps)
    names = [
        f"{CLASSES[a]}-{i}-to-{CLASSES[b]}"
        for i, (a, b) in enumerate(zip(labels.tolist(), targets.tolist(), strict=True))
    ]
    return AdversarialPair(images, adversarial, labels, targets, names)
