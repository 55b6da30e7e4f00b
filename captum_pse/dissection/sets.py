"""Concept data sets from segmentation data sets and from folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from captum_pse._io.images import pixels_of, read_image
from captum_pse._io.masks import CODED, GREY, PALETTE, numbers_of, read_mask
from captum_pse.dissection._samples import Transform, make_sample
from captum_pse.dissection.concepts import Concept, ConceptSample


class SegmentationConcepts(Dataset[ConceptSample]):
    """The classes of a segmentation data set as concepts of one category.

    For ``VOCSegmentation``, ``SBDataset(mode="segmentation")`` and
    ``Cityscapes(target_type="semantic")`` of ``torchvision.datasets``, and any other
    data set of images and integer masks.

    An item is a :class:`ConceptSample`: the image in RGB, float32 ``(3, H, W)`` in
    [0, 1], and an int64 mask ``(h, w)`` of the category. Class k has the number k + 1
    in the mask; pixels without a concept have 0.

    Args:
        dataset (Dataset): A sequence of pairs: a PIL image, and its mask as an integer
            tensor ``(h, w)`` or as a PIL image: grey values or indices of a palette.
            PIL images are of the kinds that :class:`FolderConcepts` reads. Pillow cuts
            colours of 16 bits to 8 when the data set loads or converts an image.
        names (sequence of str or None): The names of classes 0, 1, ...; None for a
            class that is not a concept, such as the background. Larger values in masks,
            such as 255 for borders, are not concepts.
        category (str, optional): Name of the category. Default: ``"object"``
        transform (Callable, optional): As for :class:`BrodenConcepts`. Default: None

    Raises:
        TypeError: When an item is read: its image is not a PIL image, or its mask is a
            tensor of floating-point values.
        ValueError: When an item is read: its image or mask is of a kind that is not
            read, or the transform did not return a floating-point image.

    Examples::

        >>> image = Image.new("RGB", (4, 2), "red")
        >>> mask = torch.tensor([[0, 1, 1, 2], [0, 0, 2, 255]])
        >>> pets = SegmentationConcepts([(image, mask)], [None, "cat", "dog"])
        >>> [(concept.number, concept.name) for concept in pets.concepts]
        [(2, 'cat'), (3, 'dog')]
        >>> pets[0].labels["object"].tolist()
        [[0, 2, 2, 3], [0, 0, 3, 0]]
        >>> from torchvision.datasets import VOCSegmentation
        >>> from torchvision.models.segmentation import FCN_ResNet50_Weights
        >>> names = [None, *FCN_ResNet50_Weights.DEFAULT.meta["categories"][1:]]
        >>> voc = SegmentationConcepts(VOCSegmentation("data"), names)  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: Any,
        names: Sequence[str | None],
        *,
        category: str = "object",
        transform: Transform | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.category = category
        self.concepts = [
            Concept(category, i + 1, name)
            for i, name in enumerate(names)
            if name is not None
        ]
        is_concept = torch.tensor([name is not None for name in names])
        #: The concept number of each class: k + 1 for class k, or 0.
        self._numbers = torch.arange(1, len(names) + 1) * is_concept

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ConceptSample:
        image, mask = self.dataset[index]
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"dataset: got {type(image).__name__} for the image of item {index}, "
                "want a PIL image"
            )
        try:
            pixels, _ = pixels_of(image)
            classes = _classes(mask)
        except (OSError, TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"dataset: item {index}: {error}") from error
        named = (classes >= 0) & (classes < len(self._numbers))
        numbers = self._numbers[classes.where(named, 0)].where(named, 0)
        return make_sample(pixels, {self.category: numbers}, self.transform)


class FolderConcepts(Dataset[ConceptSample]):
    """A folder of images and a folder of masks with the same file names.

    An item is a :class:`ConceptSample`: the image in RGB, float32 ``(3, H, W)`` in
    [0, 1], and an int64 mask ``(h, w)`` of the category. Items are sorted by name.

    Files are PNG, TIFF, BMP, GIF, JPEG or WebP. An image is grey, RGB or has a palette,
    with 8 bits per channel, or 16 if it is grey. Refused are other kinds (RGB of 16
    bits, CMYK, floating point, ...), several frames or pages, transparent pixels, masks
    with lossy compression, and an EXIF orientation: only the maker of a mask knows
    whether it was applied. Colour profiles are not applied.

    Args:
        images (str or Path): The folder of images.
        masks (str or Path): The folder of masks. A mask has the name of its image, up
            to the suffix. Its numbers are grey values, indices of a palette, or, for
            RGB, ``R + 256 G`` with B = 0; 0 for none.
        names (dict[int, str]): The names of the concepts, by their number in the masks,
            1 or more.
        category (str, optional): Name of the category. Default: ``"object"``
        transform (Callable, optional): As for :class:`BrodenConcepts`. Default: None

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: An image has no mask, or a mask has no image; two files of a folder
            differ only in their suffix; or, when an item is read, a file is damaged or
            of a kind that is not read. The message names the file.

    Examples::

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     images, masks = Path(name, "images"), Path(name, "masks")
        ...     for folder in (images, masks):
        ...         folder.mkdir()
        ...     Image.new("RGB", (8, 8), "red").save(images / "a.jpg")
        ...     Image.new("L", (4, 4), 2).save(masks / "a.png")
        ...     dataset = FolderConcepts(images, masks, {1: "cat", 2: "dog"})
        ...     image, labels = dataset[0]
        >>> tuple(image.shape), labels["object"].unique().tolist()
        ((3, 8, 8), [2])
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        names: dict[int, str],
        *,
        category: str = "object",
        transform: Transform | None = None,
    ) -> None:
        sides = [_by_stem(Path(folder)) for folder in (images, masks)]
        unpaired = sorted(sides[0].keys() ^ sides[1].keys())
        if unpaired:
            raise ValueError(
                f"dataset: got {len(unpaired)} file(s) without a counterpart in "
                f"{images} and {masks}, the first is {unpaired[0]!r}; want the same "
                "names in both"
            )
        self._files = [(sides[0][stem], sides[1][stem]) for stem in sorted(sides[0])]
        self.category = category
        self.concepts = [Concept(category, k, names[k]) for k in sorted(names)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> ConceptSample:
        image, mask = self._files[index]
        numbers = read_mask(mask, "dataset", (GREY, PALETTE, CODED))
        pixels, _ = read_image(image, "dataset")
        return make_sample(pixels, {self.category: numbers}, self.transform)


def _classes(mask: Any) -> Tensor:
    """The class of each pixel, int64."""
    if isinstance(mask, Image.Image):
        return numbers_of(mask, (GREY, PALETTE))
    classes = torch.as_tensor(mask)
    if classes.is_floating_point() or classes.is_complex():
        raise TypeError(f"got a mask of {classes.dtype}, want integers")
    return classes.long()


def _by_stem(folder: Path) -> dict[str, Path]:
    """The files of a folder by their name without suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset: there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(
                    f"dataset: got {found[path.stem]} and {path}, want names that "
                    "differ in more than the suffix"
                )
            found[path.stem] = path
    return found
