"""Warnings about the scores of a model."""

from __future__ import annotations

from torch import Tensor

from captum_pse._model.score import PROBABILITY, ScoreKind, is_saturated
from captum_pse._model.warn import warn


class ProbabilityWarning(UserWarning):
    """The model returns probabilities instead of logits.

    Where the model is certain, probabilities change by almost nothing: promotion and
    suppression are near 0, and groups count as inactive. Give the model without its
    last softmax. Results are computed from the probabilities.

    Examples::

        >>> import warnings
        >>> import torch
        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model = torch.nn.Sequential(load_model(), torch.nn.Softmax(dim=1))
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     result = PromotionSuppression(model).decompose(*make_pairs(1))
        >>> [warning.category.__name__ for warning in caught], result.score
        (['ProbabilityWarning'], 'probability')
    """


class SaturationWarning(UserWarning):
    """The log-probability of the attack label is near its maximum, 0.

    Ablating one group then hardly lowers it: promotion is near 0, and most groups count
    as suppression-dominated. ``score="centered"`` does not saturate.

    Examples::

        >>> import warnings
        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = PromotionSuppression(load_model(), score="log_softmax")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     record = method.decompose(*make_pairs(1)).summary()[0]
        >>> [warning.category.__name__ for warning in caught], record["saturated"]
        (['SaturationWarning'], True)
    """


def warn_of_probabilities(returned: ScoreKind) -> None:
    """Warns if a model returns probabilities."""
    if returned == PROBABILITY:
        warn(
            "forward_func: returns probabilities (all in [0, 1], with sum 1 over the "
            "classes), want logits: where the model is certain, probabilities and "
            "their gradients hardly change, so effects are near 0 and attacks are "
            "weak; give the model without its last softmax",
            ProbabilityWarning,
        )


def warn_of_saturation(log_probabilities: Tensor) -> None:
    """Warns if log-probabilities of attack labels on ``x'``, ``(N,)``, are near 0."""
    rows = is_saturated(log_probabilities).nonzero().flatten().tolist()
    if rows:
        p = float(log_probabilities[rows[0]].exp())
        warn(
            "the log-probability of the attack label is near 0, its maximum, on "
            f"{len(rows)} of {len(log_probabilities)} inputs; the first is example "
            f"{rows[0]}, where the probability is {p:.6f}; promotion is near 0 there, "
            "and groups count as suppression-dominated; score='centered' does not "
            "saturate",
            SaturationWarning,
        )
