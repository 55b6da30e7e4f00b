"""How much attribution methods agree on the ranking of groups of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_pse._model.checks import check_int
from captum_pse._statistics import rank_correlation
from captum_pse.groups.groups import Groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of top groups that are compared.
TOP = 20


@dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """The agreement of M methods on the groups of N examples.

    Returned by :func:`agreement`.

    Attributes:
        names (tuple[str, ...]): Names of the methods.
        top (int): Number of top groups that ``overlap`` compares.
        rank_correlation (Tensor): ``(N, M, M)``, Spearman's rho in [-1, 1]; NaN if a
            method gives all groups the same value.
        overlap (Tensor): ``(N, M, M)``, the fraction of one method's top groups that
            are also among the other's, in [0, 1]. Both tensors are NaN for an example
            with fewer than two groups.

    Examples::

        >>> from captum.attr import Saliency
        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model, (x, x0, t, t0) = load_model(), make_pairs(2)
        >>> effect = PromotionSuppression(model).attribute(x, x0, t, t0)
        >>> saliency = Saliency(model).attribute(x.clone().requires_grad_(), t)
        >>> result = agreement({"PSE": effect, "saliency": saliency})
        >>> (row,) = result.table()
        >>> row["method"], row["other"], 0 < row["rank_correlation"] < 1
        ('PSE', 'saliency', True)
    """

    names: tuple[str, ...]
    top: int
    rank_correlation: Tensor
    overlap: Tensor

    def __len__(self) -> int:
        return len(self.rank_correlation)

    def __repr__(self) -> str:
        return f"Agreement({len(self)} example(s), {', '.join(self.names)})"

    def table(self) -> list[dict[str, Any]]:
        """One row for each pair of methods: means over the examples, ignoring NaN.

        Returns:
            *list[dict]*: ``method``, ``other``, ``rank_correlation`` and
            ``top_<top>_overlap``.
        """
        columns = {
            "rank_correlation": self.rank_correlation.nanmean(0).tolist(),
            f"top_{self.top}_overlap": self.overlap.nanmean(0).tolist(),
        }
        return [
            {
                "method": a,
                "other": b,
                **{name: values[i][j] for name, values in columns.items()},
            }
            for i, a in enumerate(self.names)
            for j, b in enumerate(self.names)
            if i < j
        ]

    def plot(self, **options: Any) -> Figure:
        """Draws both measures as matrices of means over the examples.

        Args:
            **options: Passed to :func:`captum_pse.visualization.plot_agreement`.
        """
        from captum_pse.comparison.figure import plot_agreement

        return plot_agreement(self, **options)


def agreement(
    attributions: Mapping[str, Tensor | tuple[Tensor, ...]],
    *,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    top: int = TOP,
) -> Agreement:
    """Compares how attributions of the same inputs rank groups of features.

    A group's value is the mean of an attribution over its features. Attributions of
    groups, regions and single pixels can therefore be compared. Ties among the top
    groups are broken by the group's id.

    Args:
        attributions (mapping of Tensor or tuple[Tensor, ...]): Attributions
            ``(N, ...)`` by name of the method. Their shapes must broadcast to one
            another, such as ``(N, 3, H, W)`` and ``(N, 1, H, W)``.
        feature_mask (Tensor or tuple[Tensor, ...], optional): The groups, as for
            :class:`captum_pse.PromotionSuppression`. Default: None
        top (int, optional): Number of top groups to compare by overlap. An example with
            fewer groups compares all of them. Default: 20

    Returns:
        *Agreement*: With ``.rank_correlation``, ``.overlap``, ``.table()`` and
        ``.plot()``.

    Raises:
        TypeError, ValueError: An argument is not valid; the message names it.

    Examples::

        >>> first = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> result = agreement({"a": first, "b": -first, "c": 2 * first}, top=2)
        >>> result.rank_correlation[0, 0].tolist()
        [1.0, -1.0, 1.0]
        >>> result.overlap[0, 0].tolist()
        [1.0, 0.0, 1.0]
    """
    if len(attributions) < 2:
        raise ValueError(
            f"attributions: got {len(attributions)} method(s), want at least two"
        )
    top = check_int("top", top, 1)
    expanded = _expanded(attributions)
    inputs = next(iter(expanded.values()))
    groups = Groups.of(feature_mask, inputs)
    if len(groups) < 2:
        raise ValueError("feature_mask: got one group, want at least two to compare")
    means = torch.stack([groups.means(v, inputs) for v in expanded.values()], dim=1)
    has_group = groups.sizes(inputs) > 0
    correlations, overlaps = [], []
    for values, present in zip(means.double().cpu(), has_group.cpu(), strict=True):
        values = values[:, present]
        if values.shape[1] < 2:
            undefined = torch.full((len(values),) * 2, torch.nan)
            correlations.append(undefined)
            overlaps.append(undefined)
            continue
        rows = values.numpy()
        rho = [[rank_correlation(a, b) for b in rows] for a in rows]
        correlations.append(torch.tensor(rho).float())
        chosen = torch.zeros_like(values)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :top]
        chosen.scatter_(1, order, 1)
        overlaps.append((chosen @ chosen.T / order.shape[1]).float())
    return Agreement(
        tuple(attributions), top, torch.stack(correlations), torch.stack(overlaps)
    )


def _expanded(
    attributions: Mapping[str, Tensor | tuple[Tensor, ...]],
) -> dict[str, tuple[Tensor, ...]]:
    """The attributions as tuples of tensors of equal shapes, on one device."""
    tuples = {
        name: values if isinstance(values, tuple) else (values,)
        for name, values in attributions.items()
    }
    (first, wanted), *others = tuples.items()
    for name, values in others:
        if len(values) != len(wanted):
            raise ValueError(
                f"attributions: got {len(values)} tensor(s) of {name}, want "
                f"{len(wanted)} as of {first}"
            )
    shapes = []
    for i in range(len(wanted)):
        by_name = {name: tuple(values[i].shape) for name, values in tuples.items()}
        try:
            shapes.append(torch.broadcast_shapes(*by_name.values()))
        except RuntimeError:
            raise ValueError(
                f"attributions: got shapes {by_name}, want shapes that broadcast to "
                "one another"
            ) from None
    for name, values in tuples.items():
        if not all(v.isfinite().all() for v in values):
            raise ValueError(f"attributions: got NaN or infinite values of {name}")
    device = wanted[0].device
    return {
        name: tuple(
            v.detach().to(device).expand(shape)
            for v, shape in zip(values, shapes, strict=True)
        )
        for name, values in tuples.items()
    }
