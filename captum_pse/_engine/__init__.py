"""Evaluates copies of the inputs, each with one group of features ablated.

``choice`` takes an ``Ablation`` and picks one of two ways. ``dense`` runs the model on
every copy. ``incremental`` recomputes only the windows of the model's maps that a copy
changes. ``path`` estimates the same from gradients. ``batches`` bounds the memory.

The incremental way, from the bottom:

* ``windows`` is the arithmetic of windows; ``rows`` reads them from maps.
* ``tape`` holds one pass of a model as steps. ``ops`` has one rule for each operation:
  how it works on windows, and all other facts about it.
* ``tracing`` gets the model's graph; ``recording`` runs it once onto a tape, with
  ``listening`` and ``recorded_values``; ``fold`` shortens the tape.
* ``plan`` follows the windows of all copies through the steps and makes ``jobs``, with
  their ``cost``; ``replay`` runs them for a batch of copies.
* ``ablated_input`` makes the copies of an input, or windows of them.
"""
