"""Whether the units that an attack moves are those that detect something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from captum_pse._statistics import adjusted, enrichment, rank_correlation_test
from captum_pse.dissection.result import Dissection
from captum_pse.units.sensitivity import UnitSensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

#: How many of the most sensitive units are looked at.
TOPS = (10, 20, 50)


@dataclass(frozen=True, eq=False, repr=False)
class Relation:
    """How sensitivity and interpretability of units relate, layer by layer.

    Made by :func:`relate`.

    Attributes:
        values (dict[str, tuple[Array, Array]]): By layer, the size of the sensitivity
            and the largest IoU of each unit, ``(K,)`` each.
        min_iou (float): Above it, a unit is a detector.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> dissection = NetworkDissection(model, [layer]).dissect(SceneConcepts(24))
        >>> moved = DissectionSensitivity(model, layer).over(make_pairs(4))
        >>> relation = relate(moved, dissection, tops=[10], permutations=99)
        >>> row = relation.enrichment_table()[0]
        >>> row["category"], row["top"], 0 <= row["detectors"] <= 10
        ('any', 10, True)
        >>> sensitivity, iou = relation.values[layer]
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
            *list[dict]*: ``layer``, ``units``, ``detectors`` and ``pairs`` (how many
            there are); ``rho``, Spearman's rank correlation of sensitivity and the
            unit's largest IoU, with its permutation ``p``; and ``partial_rho`` and
            ``partial_p``, the same with the activation scale held fixed. All four are
            NaN where one of them is the same for all units.
        """
        return self._correlations

    def enrichment_table(self) -> list[dict[str, Any]]:
        """One row for each layer, category and number of most sensitive units.

        Returns:
            *list[dict]*: ``layer``, ``category`` (``"any"`` for all detectors),
            ``top`` (how many of the most sensitive units are looked at), ``detectors``
            (how many of them detect a concept of the category), ``expected`` (how many
            by chance), the one-sided hypergeometric ``p`` of so many or more, and
            ``p_adjusted`` over all rows with a ``p`` (Benjamini and Hochberg). Both are
            NaN where the layer has no detector of the category.
        """
        return self._enrichments

    def plot(self, **options: Any) -> Figure:
        """Sensitivity against IoU; see
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
    r"""Tests whether sensitive units are interpretable ones.

    With x the mean sensitivity of a layer's units, y their largest IoU and z their
    activation scale, all as ranks, the partial correlation is

    .. math::
        \rho_{xy \cdot z} = \frac{\rho_{xy} - \rho_{xz} \rho_{yz}}
        {\sqrt{(1 - \rho_{xz}^2)(1 - \rho_{yz}^2)}},

    the correlation of what is left of x and y once their regression on z is taken off.
    Its p-value permutes what is left of x; both are two-sided. Signed sensitivities
    (of the norm ``"mean"``) count by their size.

    Source: Xu et al., arXiv:1904.02057, asks the question; detectors and IoU are those
    of Bau et al., "Network Dissection", CVPR 2017.

    Args:
        sensitivity (UnitSensitivity or sequence): Of some layers of the dissection.
        dissection (Dissection): Of the same model.
        tops (iterable of int, optional): How many of the most sensitive units to look
            for detectors among; ties are broken by the unit's number. None takes those
            of 10, 20 and 50 that are fewer than a layer's units. Default: None
        permutations (int, optional): For the p-values. Default: 9999
        seed (int, optional): Of the permutations. Default: 0

    Returns:
        *Relation*: With ``.table()``, ``.enrichment_table()`` and ``.plot()``.

    Raises:
        ValueError: A layer was not dissected, has another number of units there, or
            fewer than a ``top``; ``tops`` or ``permutations`` are not positive.

    Examples::

        >>> from captum_pse import DissectionSensitivity, NetworkDissection
        >>> from captum_pse.demo import load_model, make_pairs
        >>> from captum_pse.demo import SceneConcepts
        >>> model, layer = load_model(), "features.conv3"
        >>> dissection = NetworkDissection(model, [layer]).dissect(SceneConcepts(24))
        >>> moved = DissectionSensitivity(model, layer).over(make_pairs(4))
        >>> relation = relate(moved, dissection, permutations=99)
        >>> relation.table()[0]["units"]
        64
    """
    layers = [sensitivity] if isinstance(sensitivity, UnitSensitivity) else sensitivity
    wanted = None if tops is None else sorted(set(tops))
    if wanted is not None and (not wanted or wanted[0] < 1):
        raise ValueError(f"tops: got {wanted}, want positive numbers of units")
    if permutations < 1:
        raise ValueError(f"permutations: got {permutations}, want 1 or more")
    correlations: list[dict[str, Any]] = []
    enrichments: list[dict[str, Any]] = []
    values = {}
    for layer in layers:
        if layer.layer not in dissection.layers:
            raise ValueError(
                f"sensitivity: is of {layer.layer!r}, want one of the dissected "
                f"layers, {', '.join(dissection.layers)}"
            )
        best, places = dissection.best(layer.layer)
        if len(best) != len(layer):
            raise ValueError(
                f"sensitivity: {layer.layer!r} has {len(layer)} units, but "
                f"{len(best)} were dissected"
            )
        n = len(layer)
        if wanted is not None and wanted[-1] > n:
            raise ValueError(
                f"tops: got {wanted[-1]}, want at most the {n} units of {layer.layer!r}"
            )
        moved, iou = layer.mean.abs().numpy(), best.numpy()
        scale = layer.scale.numpy()
        values[layer.layer] = moved, iou
        rng = np.random.default_rng(seed)
        correlations.append(
            {
                "layer": layer.layer,
                "units": len(layer),
                "detectors": int((iou > dissection.min_iou).sum()),
                "pairs": layer.n,
                **_correlations(moved, iou, scale, permutations, rng),
            }
        )
        # A stable order, so that ties go by the unit's number.
        order = np.argsort(-moved, kind="stable")
        of = np.array([dissection.concepts[p].category for p in places.tolist()])
        for name in ("any", *dissection.categories):
            detects = iou > dissection.min_iou
            if name != "any":
                detects &= of == name
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
    moved: Array, iou: Array, scale: Array, permutations: int, rng: np.random.Generator
) -> dict[str, float]:
    rho, p = rank_correlation_test(moved, iou, permutations, rng)
    partial_rho, partial_p = rank_correlation_test(
        moved, iou, permutations, rng, given=scale
    )
    return {"rho": rho, "p": p, "partial_rho": partial_rho, "partial_p": partial_p}
