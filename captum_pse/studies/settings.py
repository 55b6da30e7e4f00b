"""The settings of a study."""

from __future__ import annotations

from dataclasses import dataclass

from captum_pse._model.score import Score
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS
from captum_pse.units.masking_test import RANDOM_SETS


@dataclass(frozen=True)
class Settings:
    """The settings of a study, by the names in its manifest.

    Attributes:
        layers (list[str]): The layers of the hidden units.
        layer (str): The layer of the class activation maps.

    The others are those of :func:`captum_pse.studies.run.study`.
    """

    layers: list[str]
    layer: str
    cell: int | None = None
    score: Score = "logit"
    adaptive_eps: float = ADAPTIVE_EPS
    adaptive_steps: int = ADAPTIVE_STEPS
    random_sets: int = RANDOM_SETS
    seed: int = 0
    batch_size: int = 16
    device: str = "cpu"
