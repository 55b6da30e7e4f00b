"""How far the types of pixel groups depend on the score.

Adding the same function of x to all logits changes promotion and suppression, but not
the model's probabilities. Types on which the scores agree do not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from captum_pse._statistics import mean_test
from captum_pse.pixels.result import PixelDecomposition


def score_agreement(
    chosen: PixelDecomposition, by_score: Mapping[Any, PixelDecomposition]
) -> list[dict[str, Any]]:
    """The fraction of groups of one pair that have the same type by two scores.

    Args:
        chosen (PixelDecomposition): The result on the pair by the study's own score.
        by_score (mapping): The results on the pair by each score.

    Returns:
        *list[dict]*: One record for each two kinds of scores, ``score`` and ``other``:
        the fraction of ``all`` groups, and of those with an effect ``above_median`` by
        the study's score; None without such groups. Empty for a model that returns
        probabilities.
    """
    # A model that returns log-probabilities has no other logits.
    kinds = {result.score: result for result in by_score.values()}
    effect = chosen.effect[0]
    counted = {
        "all": effect >= 0,
        "above_median": effect > effect.quantile(0.5),
    }
    records = []
    for one, other in combinations(kinds.values(), 2):
        same = one.type_codes[0] == other.type_codes[0]
        fractions = {
            name: float(same[groups].double().mean()) if groups.any() else None
            for name, groups in counted.items()
        }
        records.append({"score": one.score, "other": other.score, **fractions})
    return records


def agreement_rows(
    records: Sequence[Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """The means over the pairs of an attack, with their intervals.

    Args:
        records (sequence): For each pair, the records of :func:`score_agreement`.

    Returns:
        *list[dict]*: ``score``, ``other``, ``groups`` (``"all"`` or
        ``"above_median"``), ``mean``, ``low``, ``high`` and ``pairs``.
    """
    found: dict[tuple[str, str, str], list[float | None]] = {}
    for record in (record for of_pair in records for record in of_pair):
        for groups in ("all", "above_median"):
            key = record["score"], record["other"], groups
            found.setdefault(key, []).append(record[groups])
    return [
        {"score": score, "other": other, "groups": groups,
         **mean_test(fractions, (0, 1)).columns()}
        for (score, other, groups), fractions in found.items()
    ]  # fmt: skip
