"""Concept data sets: images with labels of the concepts in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from captum_pse._model.checks import check_int, check_integers

#: The numbers of the concepts of one category in an image: a mask ``(h, w)``, 0 for
#: none; masks ``(L, h, w)`` if a pixel has up to L concepts; or the numbers for the
#: whole image, as a collection or a tensor ``()`` or ``(n,)``.
Labels: TypeAlias = Tensor | Collection[int]


class Concept(NamedTuple):
    """A concept.

    Attributes:
        category (str): The category, for example ``"object"`` or ``"color"``.
        number (int): The concept's number in masks of the category: 1 or more, unique
            within the category.
        name (str): The name in tables and figures.

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

    The masks of one image have the same size, which may differ from the image's. An
    image is annotated for a category if it has a mask (possibly empty) or at least one
    number for it. Omit the categories for which the image is not annotated.

    Attributes:
        image (Tensor): ``(C, H, W)``, floating point, in the range that the model
            expects.
        labels (mapping): For each category, the integer numbers of its concepts: a mask
            ``(h, w)``, 0 for none; masks ``(L, h, w)`` if a pixel has up to L concepts;
            or the numbers for the whole image, as a collection or a tensor ``()`` or
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
    """Any sequence of samples with an attribute ``concepts``.

    A protocol: a data set needs ``len``, items from index 0, and ``concepts``, but no
    base class. An item must be equal each time it is read.

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
        """All concepts, at least one. For equal IoU, the first concept counts."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ConceptSample: ...


@dataclass(frozen=True)
class Present:
    """The concepts of one image.

    Attributes:
        size (tuple[int, int]): The size of the masks, or of the image if it has none.
        labels (Tensor): int64 ``(L, h * w)``, up to L different concepts of each pixel,
            as indices into the vocabulary; -1 for none.
        categories (Tensor): int64, the indices of the categories for which the image is
            annotated.
    """

    size: tuple[int, int]
    labels: Tensor
    categories: Tensor


class Vocabulary:
    """The concepts of a data set, and tables to read its labels.

    Args:
        concepts (sequence of Concept): The concepts, in the data set's order.

    Raises:
        ValueError: There are no concepts, a number is below 1, or a category has a
            number twice.
    """

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.concepts = tuple(
            c._replace(number=check_int("dataset: number", c.number)) for c in concepts
        )
        if not self.concepts:
            raise ValueError("dataset: got no concepts, want at least one")
        self.categories = tuple(dict.fromkeys(c.category for c in self.concepts))
        #: int64 ``(C,)``, the index of each concept's category.
        self.category = torch.tensor(
            [self.categories.index(c.category) for c in self.concepts]
        )
        #: For each category, its concepts' numbers, ascending, and their indices.
        self._index: dict[str, tuple[Tensor, Tensor]] = {}
        for category in self.categories:
            members = [
                (concept.number, index)
                for index, concept in enumerate(self.concepts)
                if concept.category == category
            ]
            numbers, indices = zip(*members, strict=True)
            if min(numbers) < 1 or len(set(numbers)) < len(numbers):
                raise ValueError(
                    f"dataset: got numbers {sorted(numbers)} for the concepts of "
                    f"category {category!r}, want different ones of 1 or more"
                )
            ordered, at = torch.tensor(numbers).sort()
            self._index[category] = ordered, torch.tensor(indices)[at]

    def __len__(self) -> int:
        return len(self.concepts)

    def read(self, sample: ConceptSample, index: int) -> Present:
        """The concepts of a sample, checked.

        Args:
            sample (ConceptSample): An item of the data set.
            index (int): Its index in the data set, for messages.

        Raises:
            TypeError: Labels are not integers.
            ValueError: A category or number is unknown, or masks differ in size.
        """
        whole: list[Tensor] = []
        masks: list[Tensor] = []
        annotated: list[int] = []
        for category, labels in sample.labels.items():
            if category not in self._index:
                raise ValueError(
                    f"dataset: got labels of category {category!r} in sample {index}, "
                    f"want one of {', '.join(self.categories)}"
                )
            concepts = self._indices(labels, category, index)
            (whole if concepts.dim() < 2 else masks).append(concepts)
            if concepts.dim() >= 2 or bool((concepts >= 0).any()):
                annotated.append(self.categories.index(category))
        sizes = {tuple(mask.shape[-2:]) for mask in masks}
        if len(sizes) > 1:
            raise ValueError(
                f"dataset: got masks of sizes {sorted(sizes)} in sample {index}, want "
                "one size"
            )
        h, w = sizes.pop() if sizes else tuple(sample.image.shape[-2:])
        found = [layer for mask in masks for layer in mask.reshape(-1, h * w)]
        found += [
            concept.expand(h * w)
            for concepts in whole
            for concept in concepts.reshape(-1)
        ]
        layers = torch.stack(found) if found else torch.empty(0, h * w).long()
        for i in range(1, len(layers)):
            layers[i][(layers[:i] == layers[i]).any(dim=0)] = -1
        return Present((h, w), layers, torch.tensor(annotated, dtype=torch.int64))

    def _indices(self, labels: Labels, category: str, index: int) -> Tensor:
        """Labels as indices into the vocabulary; -1 for none."""
        if isinstance(labels, (set, frozenset)):
            labels = sorted(labels)
        what = f"dataset: labels of category {category!r} in sample {index}"
        try:
            labels = torch.as_tensor(labels)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{what}: got {labels!r} ({error})") from error
        if labels.numel() == 0 or labels.dtype == torch.bool:
            labels = labels.long()
        numbers = check_integers(what, labels, "integers").cpu().contiguous()
        ordered, indices = self._index[category]
        at = torch.searchsorted(ordered, numbers).clamp(max=len(ordered) - 1)
        known = ordered[at] == numbers
        concepts = indices[at].where(known, -1)
        wrong = ~known & (numbers != 0)
        if wrong.any():
            raise ValueError(
                f"dataset: got label {int(numbers[wrong][0])} of category "
                f"{category!r} in sample {index}, want 0 or a concept's number"
            )
        return concepts
