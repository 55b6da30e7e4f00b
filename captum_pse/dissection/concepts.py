"""What a concept data set is: images, and which concepts are where in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

#: Numbers of the concepts of one category: a mask of the image's pixels ``(h, w)`` or,
#: where a pixel may have several, ``(L, h, w)``, 0 for none; or those of the whole
#: image, as a collection or a tensor ``()`` or ``(n,)``.
Labels: TypeAlias = Tensor | Collection[int]


class Concept(NamedTuple):
    """A concept: its number is unique within its category, and above 0.

    Attributes:
        category (str): ``"object"`` or ``"color"``, say.
        number (int): 1 or more: what stands for it in masks of that category.
        name (str): What tables and figures call it.

    Examples::

        >>> from captum_pse.demo import SceneConcepts
        >>> Concept("object", 4, "car") in SceneConcepts(1).concepts
        True
    """

    category: str
    number: int
    name: str


class ConceptSample(NamedTuple):
    """An image and its labels by category.

    The masks of one image have the same size, which need not be the image's. An image
    carries labels of a category if it has a mask of it, be that empty, or at least one
    number: leave out the categories that nobody looked for in it.

    Attributes:
        image (Tensor): ``(C, H, W)``, floating point, in the range that the model
            takes.
        labels (mapping): By category, the numbers of its concepts, integers: a mask
            ``(h, w)``, or ``(L, h, w)`` where a pixel may have up to L of them, 0 for
            none; or those of the whole image, a collection, or a tensor ``()`` or
            ``(n,)``.

    Examples::

        >>> mask = torch.zeros(8, 8, dtype=torch.int64)
        >>> mask[:, 4:] = 3
        >>> labels = {"object": mask, "scene": [2]}
        >>> sample = ConceptSample(torch.rand(3, 16, 16), labels)
        >>> sample.labels["object"].unique().tolist()
        [0, 3]
    """

    image: Tensor
    labels: Mapping[str, Labels]


class ConceptDataset(Protocol):
    """Any sequence of samples that names its concepts.

    There is nothing to inherit from: ``len``, items from 0, and the attribute
    ``concepts`` are enough. A sample has to be the same each time it is read.

    Examples::

        >>> from captum_pse import NetworkDissection
        >>> class Squares(list):
        ...     concepts = [Concept("object", 1, "square")]
        >>> image = torch.zeros(1, 8, 8)
        >>> image[:, 2:4, 2:4] = 1
        >>> squares = Squares([ConceptSample(image, {"object": image[0].long()})])
        >>> pixels = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
        >>> method = NetworkDissection(pixels, ["0"], quantile=0.1)
        >>> method.dissect(squares).iou("0").tolist()
        [[1.0]]
    """

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts, at least one; their order breaks ties."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ConceptSample: ...


@dataclass(frozen=True)
class Present:
    """The concepts of one image.

    Attributes:
        size (tuple[int, int]): Of the masks; the image's where it has none.
        labels (Tensor): int64 ``(L, h * w)``, up to L concepts of each pixel as places
            in the vocabulary, none of them twice; -1 for none.
        categories (Tensor): int64: places of the categories that the image carries
            labels of.
    """

    size: tuple[int, int]
    labels: Tensor
    categories: Tensor


class Vocabulary:
    """The concepts of a data set, by place: tables for reading its labels.

    Args:
        concepts (sequence of Concept): In the order that breaks ties.

    Raises:
        ValueError: None, a number below 1, or the same concept twice.
    """

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.concepts = tuple(c._replace(number=int(c.number)) for c in concepts)
        if not self.concepts:
            raise ValueError("dataset: its concepts are empty, want at least one")
        self.categories = tuple(dict.fromkeys(c.category for c in self.concepts))
        #: int64 ``(C,)``, the place of each concept's category.
        self.category = torch.tensor(
            [self.categories.index(c.category) for c in self.concepts]
        )
        self._places: dict[str, Tensor] = {}
        for category in self.categories:
            mine = [
                (concept.number, place)
                for place, concept in enumerate(self.concepts)
                if concept.category == category
            ]
            numbers, places = zip(*mine, strict=True)
            if min(numbers) < 1 or len(set(numbers)) < len(numbers):
                raise ValueError(
                    f"dataset: its concepts of category {category!r} have the numbers "
                    f"{sorted(numbers)}, want different ones above 0"
                )
            table = torch.full((max(numbers) + 1,), -1)
            table[list(numbers)] = torch.tensor(places)
            self._places[category] = table

    def __len__(self) -> int:
        return len(self.concepts)

    def read(self, sample: ConceptSample, index: int) -> Present:
        """The concepts of a sample, checked.

        Args:
            sample (ConceptSample): What the data set gave.
            index (int): Its number, for messages.

        Raises:
            TypeError: Labels that are not integers.
            ValueError: An unknown category or number, or masks of different sizes.
        """
        whole: list[Tensor] = []
        masks: list[Tensor] = []
        carried: list[int] = []
        for category, labels in sample.labels.items():
            if category not in self._places:
                raise ValueError(
                    f"dataset: sample {index} has labels of category {category!r}, "
                    f"want one of {', '.join(self.categories)}"
                )
            places = self._of_numbers(labels, category, index)
            (whole if places.dim() < 2 else masks).append(places)
            if places.dim() >= 2 or bool((places >= 0).any()):
                carried.append(self.categories.index(category))
        sizes = {tuple(mask.shape[-2:]) for mask in masks}
        if len(sizes) > 1:
            raise ValueError(
                f"dataset: sample {index} has masks of the sizes {sorted(sizes)}, want "
                "one size"
            )
        h, w = sizes.pop() if sizes else tuple(sample.image.shape[-2:])
        found = [layer for mask in masks for layer in mask.reshape(-1, h * w)]
        found += [
            place.expand(h * w) for places in whole for place in places.reshape(-1)
        ]
        layers = torch.stack(found) if found else torch.empty(0, h * w).long()
        for i in range(1, len(layers)):
            layers[i][(layers[:i] == layers[i]).any(dim=0)] = -1
        return Present((h, w), layers, torch.tensor(carried, dtype=torch.int64))

    def _of_numbers(self, labels: Labels, category: str, index: int) -> Tensor:
        """Places in the vocabulary of labels of any kind; -1 is none."""
        if isinstance(labels, (set, frozenset)):
            labels = sorted(labels)
        labels = torch.as_tensor(labels)
        if labels.numel() == 0:
            labels = labels.long()
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(
                f"dataset: sample {index} has labels of category {category!r} of "
                f"{labels.dtype}, want integers"
            )
        numbers, table = labels.detach().cpu().long(), self._places[category]
        known = (numbers >= 0) & (numbers < len(table))
        places = table[numbers.where(known, 0)]
        wrong = ~known | ((places < 0) & (numbers != 0))
        if wrong.any():
            raise ValueError(
                f"dataset: sample {index} has the label {int(numbers[wrong][0])}, "
                f"which is no concept of category {category!r}"
            )
        return places
