"""Reads images and masks from files and makes concept samples of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from captum_pse.dissection.concepts import ConceptSample, Labels

#: A transform of ``torchvision.transforms.v2``: takes an image and its masks, as
#: ``torchvision.tv_tensors``, and returns both.
Transform = Callable[..., Any]


def open_image(path: Path) -> Image.Image:
    """The image, loaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read as an image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"dataset: there is no file {path}")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (
        OSError,
        SyntaxError,  # a broken PNG
        Image.DecompressionBombError,
        UnidentifiedImageError,
    ) as error:
        raise ValueError(f"dataset: {path} cannot be read ({error})") from error


def read_mask(path: Path) -> Tensor:
    """The numbers of a mask, int64 ``(h, w)``: grey or palette values, or ``R + 256 G``
    for RGB."""
    image = open_image(path)
    if image.mode == "RGBA":
        image = image.convert("RGB")
    values = np.array(image).astype(np.int64)
    if values.ndim == 3 and values.shape[2] == 3:
        values = values[..., 0] + 256 * values[..., 1]
    if values.ndim != 2:
        raise ValueError(
            f"dataset: got an image of mode {image.mode}, {path}, want a mask: grey, "
            "palette, or RGB with the number in R + 256 G"
        )
    return torch.from_numpy(values)


def make_sample(
    image: Image.Image, labels: dict[str, Labels], transform: Transform | None
) -> ConceptSample:
    """The sample: an RGB image in [0, 1] and its labels, transformed together.

    Raises:
        ValueError: The transform did not return a floating-point image.
    """
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    pixels = functional.pil_to_tensor(rgb).float().div_(255)
    if transform is None:
        return ConceptSample(pixels, labels)
    masks = {
        category: tv_tensors.Mask(values)
        for category, values in labels.items()
        if isinstance(values, Tensor) and values.dim() >= 2
    }
    transformed, masks = transform(tv_tensors.Image(pixels), masks)
    if not isinstance(transformed, Tensor) or not transformed.is_floating_point():
        raise ValueError(
            f"transform: got {type(transformed).__name__} for an image, want a tensor "
            "of floating-point values"
        )
    plain = {name: mask.as_subclass(Tensor) for name, mask in masks.items()}
    return ConceptSample(transformed.as_subclass(Tensor), {**labels, **plain})
