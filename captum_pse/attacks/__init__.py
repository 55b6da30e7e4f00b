"""Attacks that make adversarial pairs: those of other libraries, and one of our own.

- ``libraries``: how the attacks of captum.robust, torchattacks, foolbox, the
  Adversarial Robustness Toolbox and adv-lib want to be called
- ``by_name``: attacks from names such as ``"torchattacks.PGD"``
- ``make_pairs``: one attack on one batch of inputs, as a checked pair; behind
  :meth:`captum_pse.AdversarialPair.from_attack`
- ``structured``: :class:`StructuredAttack`, whose perturbation is on few groups;
  ``admm``: its solver
- ``pgd``: projected gradient descent as the package itself uses it
"""

from captum_pse.attacks.structured import StructuredAttack

__all__ = ["StructuredAttack"]
