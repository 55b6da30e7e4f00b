"""Attacks: adapters for other libraries, and an attack of this package.

- ``libraries``: one adapter for each library: captum.robust, torchattacks, foolbox,
  the Adversarial Robustness Toolbox, adv-lib and functions
- ``by_name``: attacks by names such as ``"torchattacks.PGD"``
- ``run``: runs an attack on inputs and checks the result, for
  :meth:`captum_pse.AdversarialPair.from_attack`
- ``structured``: :class:`StructuredAttack`, which perturbs few groups; ``admm``: its
  solver
- ``pgd``: projected gradient descent, for the adaptive attacks of the package
"""

from captum_pse.attacks.structured import StructuredAttack

__all__ = ["StructuredAttack"]
