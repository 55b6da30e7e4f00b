"""The mean sensitivity of the units of a layer over a set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_pse._io.distributed import sum_over_processes
from captum_pse._io.saved import SavedResult
from captum_pse._statistics import student_reach
from captum_pse.units.norms import Norm, relative_to, unit_norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class UnitSensitivity(SavedResult):
    """The mean sensitivity of each of K units over n pairs.

    Made by :meth:`captum_pse.DissectionSensitivity.over`.

    Attributes:
        layer (str): The layer's name.
        norm (str): See :meth:`captum_pse.UnitDecomposition.sensitivity`.
        n (int): Number of pairs.
        mean, deviation (Tensor): double ``(K,)``, the mean and the standard deviation
            of the sensitivity over pairs.
        control (Tensor): double ``(K,)``, the mean absolute sensitivity to sign noise:
            each feature changes by as much as in the attack, with a random sign.
        scale (Tensor): double ``(K,)``, the mean over pairs of the norm of the natural
            activation (for ``"mean"``, of its absolute value).

    Examples::

        >>> from captum_pse import DissectionSensitivity
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = DissectionSensitivity(load_model(), "features.conv4")
        >>> sensitivity = method.over(make_pairs(3))
        >>> low, high = sensitivity.interval()
        >>> bool(((low <= sensitivity.mean) & (sensitivity.mean <= high)).all())
        True
        >>> row = sensitivity.table()[7]
        >>> row["unit"], row["sensitivity"] == float(sensitivity.mean[7])
        (7, True)
        >>> again = UnitSensitivity.of_record(sensitivity.to_record())
        >>> torch.equal(again.mean, sensitivity.mean)
        True
    """

    layer: str
    norm: Norm
    n: int
    mean: Tensor
    deviation: Tensor
    control: Tensor
    scale: Tensor

    @property
    def relative(self) -> Tensor:
        """``(K,)``: ``mean / scale``, where a scale counts as at least a tenth of the
        mean scale of the layer's units. Raw norms mostly follow the scale."""
        return relative_to(self.mean, self.scale)

    @property
    def against_control(self) -> Tensor:
        """``(K,)``: ``|mean| / control``, where a control counts as at least a tenth of
        the mean control of the layer's units. Above 1, the unit changes more under the
        attack than under noise of the same size."""
        return relative_to(self.mean.abs(), self.control)

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"UnitSensitivity({len(self)} units of {self.layer!r}, {self.n} pairs)"

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Student's confidence interval of the mean over pairs.

        Args:
            level (float, optional): Confidence level, in (0, 1). Default: 0.95

        Returns:
            *tuple[Tensor, Tensor]*: The lower and the upper end, ``(K,)`` each; NaN for
            one pair.

        Raises:
            ValueError: ``level`` is out of range.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: got {level}, want more than 0, less than 1")
        reach = student_reach(1.0, self.n, level) * self.deviation
        return self.mean - reach, self.mean + reach

    def to_record(self) -> dict[str, Any]:
        """The attributes as a dict for JSON, with lists for tensors.

        :meth:`of_record` restores the same numbers.
        """
        return {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> UnitSensitivity:
        """The inverse of :meth:`to_record`.

        Args:
            record (dict): The dict that :meth:`to_record` returned.
        """
        values: dict[str, Any] = {
            name: torch.tensor(value, dtype=torch.float64)
            if isinstance(value, list)
            else value
            for name, value in record.items()
        }
        return cls(**values)

    def plot(self, **options: Any) -> Figure:
        """The units that change most; see
        :func:`captum_pse.visualization.plot_sensitivity`.

        Args:
            **options: Passed to that function.
        """
        from captum_pse.units.figure import plot_sensitivity

        return plot_sensitivity(self, **options)

    _FORMAT = "captum_pse.UnitSensitivity/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        values = vars(self)
        tensors = {name: x for name, x in values.items() if isinstance(x, Tensor)}
        return tensors, {name: x for name, x in values.items() if name not in tensors}

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> UnitSensitivity:
        return cls(settings["layer"], settings["norm"], settings["n"], **tensors)

    def table(self) -> list[dict[str, Any]]:
        """One row for each unit, ready for ``csv.DictWriter`` or ``pandas.DataFrame``.

        Returns:
            *list[dict]*: ``layer``, ``unit``, ``sensitivity`` (the mean), ``low`` and
            ``high`` (its 95 % confidence interval), ``control``, ``scale``,
            ``relative`` and ``against_control``.
        """
        low, high = self.interval()
        columns = {
            "sensitivity": self.mean,
            "low": low,
            "high": high,
            "control": self.control,
            "scale": self.scale,
            "relative": self.relative,
            "against_control": self.against_control,
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            {"layer": self.layer, "unit": k, **dict(zip(columns, row, strict=True))}
            for k, row in enumerate(rows)
        ]


class RunningSensitivity:
    """Sums over pairs, from which :class:`UnitSensitivity` computes its means."""

    def __init__(self, norm: Norm, channel_dim: int) -> None:
        self._norm: Norm = norm
        self._channel_dim = channel_dim
        # The number of pairs is one more row of the sums: processes add up once.
        self._sums = torch.zeros(())

    def update(self, natural: Tensor, adversarial: Tensor, control: Tensor) -> None:
        """Adds the activations of some pairs, each in the layer's shape."""
        change, noise = (
            unit_norm(side - natural, self._norm, self._channel_dim).double()
            for side in (adversarial, control)
        )
        values = natural.abs() if self._norm == "mean" else natural
        scale = unit_norm(values, self._norm, self._channel_dim).double()
        ones = torch.ones_like(change)
        rows = torch.stack([change, change**2, noise.abs(), scale, ones]).sum(dim=1)
        self._sums = self._sums.to(rows) + rows

    def result(self, layer: str) -> UnitSensitivity:
        """The means. Every process must call it."""
        sums = sum_over_processes(self._sums).cpu()
        n = round(float(sums[4, 0]))
        mean, square, control, scale = sums[:4] / n
        variance = (square - mean**2).clamp(min=0) * n / max(n - 1, 1)
        return UnitSensitivity(
            layer, self._norm, n, mean, variance.sqrt(), control, scale
        )
