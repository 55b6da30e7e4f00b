"""The drawn scenes as a concept data set."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from captum_pse.demo.scenes import Scenes
from captum_pse.demo.things import CONCEPTS
from captum_pse.dissection.concepts import Concept, ConceptSample


class SceneConcepts(Dataset[ConceptSample]):
    """The demo's drawn scenes as a concept data set.

    An item is a :class:`captum_pse.dissection.ConceptSample`: an RGB image, float32
    ``(3, 64, 64)`` in
    [0, 1], and an int64 mask ``(64, 64)`` for each category of
    :data:`captum_pse.demo.CONCEPTS`; for the category ``scene``, one number.

    Args:
        n (int, optional): Number of scenes. Default: 240
        seed (int, optional): Seed of the series, as for
            :class:`captum_pse.demo.Scenes`. The demo model was trained on seed 0.
            Default: 0

    Raises:
        TypeError, ValueError: ``n`` is not a positive int, or ``seed`` not one of 0 or
            more.
        IndexError: There is no scene with the index of an item.

    Examples::

        >>> scenes = SceneConcepts(4)
        >>> car = Concept("object", 4, "car")
        >>> car in scenes.concepts
        True
        >>> [bool((labels["object"] == car.number).any()) for _, labels in scenes]
        [False, False, False, True]
    """

    def __init__(self, n: int = 240, seed: int = 0) -> None:
        self._scenes = Scenes(n, seed=seed)
        self.concepts = [
            Concept(category, number, name)
            for category, names in CONCEPTS.items()
            for number, name in enumerate(names, start=1)
        ]

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> ConceptSample:
        scene = self._scenes.scene(index)
        labels: dict[str, Tensor] = dict(scene.concepts)
        return ConceptSample(scene.image, labels)
