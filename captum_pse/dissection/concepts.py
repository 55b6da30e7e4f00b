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
    """A concept: its number is unique within its category, and above 0."""

    category: str
    number: int
    name: str


class ConceptSample(NamedTuple):
    """An image ``(C, H, W)``, floating point, and its labels by category.

    The masks of one image have the same size, which need not be the image's. An image
    carries labels of a category if it has a mask of it, be that empty, or at least one
    number: leave out the categories that nobody looked for in it.
    """

    image: Tensor
    labels: Mapping[str, Labels]


class ConceptDataset(Protocol):
    """Any sequence of samples that names its concepts."""

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts; their order breaks ties."""

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
