"""Tests whether the units that an attack changes most are interpretable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from captum_pse._model.checks import check_int
from captum_pse._statistics import (
    adjusted,
    enrichment,
    partial_rank_correlation_test,
    rank_correlation_test,
)
from captum_pse.dissection.result import Dissection
from captum_pse.units.sensitivity import UnitSensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

#: Default numbers of most sensitive units in which detectors are counted.
TOPS = (10, 20, 50)


@dataclass(frozen=True, eq=False, repr=False)
class Relation:
    """The relation between sensitivity and interpretability of units, by layer.

    Made by :func:`relate`.

    Attributes:
        values (dict[str, tuple[Array, Array]]): For each layer, the absolute
            sensitivity and the largest IoU of each unit, ``(K,)`` each.
        min_iou (float): A unit with a larger IoU is a detector.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> dissection = NetworkDissection(model, [layer]).dissect(SceneConcepts(24))
        >>> sensitivity = DissectionSensitivity(model, layer).over(make_pairs(4))
        >>> relation = relate(sensitivity, dissection, tops=[10], permutations=99)
        >>> row = relation.enrichment_table()[0]
        >>> row["category"], row["top"], 0 <= row["detectors"] <= 10
        ('any', 10, True)
        >>> values, iou = relation.values[layer]
        >>> int((iou > relation.min_iou).sum()) == relation.table()[0]["detectors"]
        True
    """

    _correlations: list[dict[str, Any]]
    _enrichments: list[dict[str, Any]]
    values: dict[str, tuple[Array, Array]]
    min_iou: float

    def __repr__(self) -> str:
        found = ", ".join(
            f"{row['layer']}: rho {row['rho']:.2f} (p {row['p']:.2g})"
            for row in self._correlations
        )
        return f"Relation({found})"

    def table(self) -> list[dict[str, Any]]:
        """One row for each layer, ready for ``csv.DictWriter`` or ``pandas.DataFrame``.

        Returns:
            *list[dict]*: ``layer``; the numbers of ``units``, ``detectors`` and
            ``pairs``; ``rho``, Spearman's rank correlation of the units' sensitivity
            and largest IoU, and its permutation ``p``; ``partial_rho`` and
            ``partial_p``, the same among units of similar activation scale. ``rho`` and
            ``p`` are NaN if the sensitivity or the IoU is equal for all units;
            ``partial_rho`` and ``partial_p`` also if the scale explains all ranks of
            one of them, or if the layer has fewer than 64 units.
        """
        return self._correlations

    def enrichment_table(self) -> list[dict[str, Any]]:
        """One row for each layer, category and number of most sensitive units.

        Returns:
            *list[dict]*: ``layer``; ``category``, ``"any"`` for all detectors; ``top``,
            the number of most sensitive units; ``detectors``, the number of these units
            that detect a concept of the category; ``expected``, their expected number
            by chance; ``p``, the one-sided hypergeometric probability of at least
            ``detectors``; and ``p_adjusted`` over all rows with a ``p`` (Benjamini and
            Hochberg). Both are NaN if the layer has no detector of the category.
        """
        return self._enrichments

    def plot(self, **options: Any) -> Figure:
        """A scatter plot of sensitivity against IoU; see
        :func:`captum_pse.visualization.plot_relation`.

        Args:
            **options: Passed to that function.
        """
        from captum_pse.units.figure import plot_relation

        return plot_relation(self, **options)


def relate(
    sensitivity: UnitSensitivity | Sequence[UnitSensitivity],
    dissection: Dissection,
    *,
    tops: Iterable[int] | None = None,
    permutations: int = 9999,
    seed: int = 0,
) -> Relation:
    """Tests whether the sensitive units are interpretable.

    ``rho`` is Spearman's rank correlation of the units' mean sensitivity and their
    largest IoU; its p-value comes from permutations of the units. Both follow the
    activation scale, so ``partial_rho`` compares units of similar scale: the residuals
    of the ranks after a linear regression on the rank of the scale and on strata of 12
    units of similar scale. Its p-value comes from permutations within the strata, and
    needs a layer of at least 64 units. Both tests are two-sided. Signed sensitivities
    (norm ``"mean"``) enter as absolute values.

    The enrichment is exact and discrete: with few detectors, p is below 0.05 in fewer
    than 5 % of the layers without a relation.

    Source: the question is from Xu et al., arXiv:1904.02057; detectors and IoU are from
    Bau et al., "Network Dissection", CVPR 2017.

    Args:
        sensitivity (UnitSensitivity or sequence): Sensitivities of one or more layers
            of the dissection.
        dissection (Dissection): A dissection of the same model.
        tops (iterable of int, optional): Numbers of most sensitive units in which to
            count detectors; equally sensitive units are ordered by index. None means
            those of 10, 20 and 50 that are smaller than the number of units.
            Default: None
        permutations (int, optional): Number of permutations. Default: 9999
        seed (int, optional): Seed of the permutations. Default: 0

    Returns:
        *Relation*: Has ``.table()``, ``.enrichment_table()`` and ``.plot()``.

    Raises:
        TypeError, ValueError: A layer was not dissected, was dissected with another
            number of units, or has fewer units than one of ``tops``; ``tops`` or
            ``permutations`` are not positive, or ``seed`` is negative.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> dissection = NetworkDissection(model, [layer]).dissect(SceneConcepts(24))
        >>> sensitivity = DissectionSensitivity(model, layer).over(make_pairs(4))
        >>> relation = relate(sensitivity, dissection, permutations=99)
        >>> relation.table()[0]["units"]
        64
    """
    layers = [sensitivity] if isinstance(sensitivity, UnitSensitivity) else sensitivity
    wanted = None
    if tops is not None:
        wanted = sorted({check_int("tops", top, 1) for top in tops})
        if not wanted:
            raise ValueError("tops: got none, want positive numbers of units")
    seed = check_int("seed", seed, 0)
    permutations = check_int("permutations", permutations, 1)
    correlations: list[dict[str, Any]] = []
    enrichments: list[dict[str, Any]] = []
    values = {}
    for layer in layers:
        if layer.layer not in dissection.layers:
            raise ValueError(
                f"sensitivity: got layer {layer.layer!r}, want one of the dissected "
                f"layers, {', '.join(dissection.layers)}"
            )
        best, concepts = dissection.best(layer.layer)
        if len(best) != len(layer):
            raise ValueError(
                f"sensitivity: got {len(layer)} units of {layer.layer!r}, want "
                f"{len(best)} as in dissection"
            )
        n = len(layer)
        if wanted is not None and wanted[-1] > n:
            raise ValueError(
                f"tops: got {wanted[-1]}, want at most the {n} units of {layer.layer!r}"
            )
        size, iou = layer.mean.abs().numpy(), best.numpy()
        scale = layer.scale.numpy()
        values[layer.layer] = size, iou
        rng = np.random.default_rng(seed)
        correlations.append(
            {
                "layer": layer.layer,
                "units": len(layer),
                "detectors": int((iou > dissection.min_iou).sum()),
                "pairs": layer.n,
                **_correlations(size, iou, scale, permutations, rng),
            }
        )
        # A stable sort orders equally sensitive units by index.
        order = np.argsort(-size, kind="stable")
        categories = np.array(
            [dissection.concepts[i].category for i in concepts.tolist()]
        )
        for name in ("any", *dissection.categories):
            detects = iou > dissection.min_iou
            if name != "any":
                detects &= categories == name
            total = int(detects.sum())
            for top in wanted or [top for top in TOPS if top < n]:
                found = int(detects[order[:top]].sum())
                enrichments.append(
                    {
                        "layer": layer.layer,
                        "category": name,
                        "top": top,
                        "detectors": found,
                        "expected": top * total / n,
                        "p": enrichment(found, top, total, n),
                    }
                )
    ps = adjusted([row["p"] for row in enrichments])
    for row, p in zip(enrichments, ps, strict=True):
        row["p_adjusted"] = p
    return Relation(correlations, enrichments, values, dissection.min_iou)


def _correlations(
    size: Array, iou: Array, scale: Array, permutations: int, rng: np.random.Generator
) -> dict[str, float]:
    rho, p = rank_correlation_test(size, iou, permutations, rng)
    partial_rho, partial_p = partial_rank_correlation_test(
        size, iou, scale, permutations, rng
    )
    return {"rho": rho, "p": p, "partial_rho": partial_rho, "partial_p": partial_p}
