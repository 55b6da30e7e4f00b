"""How perturbed inputs are evaluated; knows nothing of promotion or suppression.

``choice`` takes an ``Ablation`` and picks between two ways. ``dense`` runs the model on
every perturbed input. ``incremental_scores`` does it by windows: ``recording`` writes a
pass of the model on a ``tape``, which ``fold`` makes shorter; ``windows`` is the
arithmetic; ``local_ops`` says which steps work on windows, and how (``spatial_ops``,
``shape_ops``); ``plan`` follows the windows of all copies through the steps, and
``incremental`` computes them. ``path`` estimates by gradients. ``batches`` keeps all of
them within memory.
"""
