"""Targeted adversarial pairs on the demo model."""

from __future__ import annotations

import torch

from captum_pse._model.checks import check_int
from captum_pse.attacks.pgd import targeted_pgd
from captum_pse.demo.model import load_model
from captum_pse.demo.scenes import Scenes
from captum_pse.demo.things import CLASSES
from captum_pse.pairs.pair import AdversarialPair


def make_pairs(n: int = 12, eps: float = 6 / 255, steps: int = 20) -> AdversarialPair:
    """Attacks n test scenes with targeted PGD (``captum.robust.PGD``).

    The attack label is a class other than the true one. Each pixel changes by at most
    ``eps`` and stays in [0, 1].

    Args:
        n (int, optional): Number of pairs, 1 or more. Default: 12
        eps (float, optional): Largest change of a pixel, in (0, 1]; all attacks succeed
            at 6/255. Default: 6/255
        steps (int, optional): Number of steps, of ``2.5 eps / steps`` each.
            Default: 20

    Returns:
        *AdversarialPair*: Images ``(n, 3, 64, 64)`` in [0, 1], labels and names; equal
        for equal arguments.

    Raises:
        ValueError: ``n``, ``eps`` or ``steps`` is not positive, or ``eps`` is above 1.

    Examples::

        >>> pairs = make_pairs(2)
        >>> pairs
        AdversarialPair(2 x (3, 64, 64), torch.float32, 0 -> 1, 1 -> 2)
        >>> load_model()(pairs.adversarial).argmax(1).tolist()
        [1, 2]
        >>> bool((pairs.adversarial - pairs.natural).abs().max() < 6.01 / 255)
        True
    """
    if not 0 < eps <= 1:
        raise ValueError(f"eps: got {eps}, want more than 0, at most 1")
    n, steps = check_int("n", n, 1), check_int("steps", steps, 1)
    images, labels = Scenes(n).batch()
    # The k-th scene of a class is attacked towards the k-th class after it.
    shift = 1 + torch.arange(n) // len(CLASSES) % (len(CLASSES) - 1)
    targets = (labels + shift) % len(CLASSES)
    adversarial = targeted_pgd(load_model(), images, targets, eps=eps, steps=steps)
    names = [
        f"{CLASSES[a]}-{i}-to-{CLASSES[b]}"
        for i, (a, b) in enumerate(zip(labels.tolist(), targets.tolist(), strict=True))
    ]
    return AdversarialPair(adversarial, images, targets, labels, names=names)
