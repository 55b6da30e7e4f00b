"""Explains a set of pairs one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from captum_pse.pairs.labels import PredictionWarning
from captum_pse.pairs.pair import AdversarialPair


def each_pair(
    pairs: AdversarialPair,
    decompose: Callable[..., Any],
    device: str,
    show_progress: bool,
) -> Iterator[tuple[int, str, Any]]:
    """The number, the name and the decomposition of each pair.

    That the model does not say the labels is for the records to tell, by
    ``natural_agrees`` and ``attack_holds``, not for a warning.
    """
    from tqdm.auto import tqdm

    bar = tqdm(pairs.names, "explaining", unit="pair", disable=not show_progress)
    for i, name in enumerate(bar):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PredictionWarning)
            result = decompose(*pairs.select(i).to(device))
        yield i, name, result
