"""The drawn scenes as a concept data set."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from captum_pse.demo.scenes import Scenes
from captum_pse.demo.things import CONCEPTS
from captum_pse.dissection.concepts import Concept, ConceptSample


class SceneConcepts(Dataset[ConceptSample]):
    """The demo's drawn scenes, with the concepts that are drawn in them.

    An item is a :class:`ConceptSample`: an RGB image, float32 ``(3, 64, 64)`` in
    [0, 1], and for each category of :data:`captum_pse.demo.CONCEPTS` an int64 mask
    ``(64, 64)``, but for ``scene`` one number.

    Args:
        n (int, optional): How many. Default: 240
        seed (int, optional): As for :class:`captum_pse.demo.Scenes`; 0 is what the demo
            model was trained on. Default: 0

    Raises:
        ValueError: ``n`` is less than 1.
        IndexError: When an item is read: there is no such scene.

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
