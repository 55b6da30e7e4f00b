"""A loop that explains the pairs of a set one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from captum_pse.pairs.labels import warnings_in_records
from captum_pse.pairs.pair import AdversarialPair


def each_pair(
    pairs: AdversarialPair,
    decompose: Callable[..., Any],
    device: str,
    show_progress: bool,
) -> Iterator[tuple[int, str, Any]]:
    """The index, the name and the decomposition of each pair.

    Predictions that differ from the labels, probabilities and saturated scores give no
    warning here: the records report them as ``natural_agrees``, ``attack_holds``,
    ``score`` and ``saturated``.

    Args:
        pairs (AdversarialPair): The pairs.
        decompose (callable): Explains one pair: takes its two images and two labels.
        device (str): Device of the model.
        show_progress (bool): Whether to show a progress bar.
    """
    from tqdm.auto import tqdm

    bar = tqdm(pairs.names, "explaining", unit="pair", disable=not show_progress)
    for i, name in enumerate(bar):
        with warnings_in_records():
            result = decompose(*pairs.select(i).to(device))
        yield i, name, result
