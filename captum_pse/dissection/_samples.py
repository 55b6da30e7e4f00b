"""Makes concept samples of images and masks that were read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_pse.dissection.concepts import ConceptSample, Labels

#: A transform of ``torchvision.transforms.v2``: takes an image and its masks, as
#: ``torchvision.tv_tensors``, and returns both.
Transform = Callable[..., Any]


def make_sample(
    pixels: Tensor, labels: dict[str, Labels], transform: Transform | None
) -> ConceptSample:
    """The sample: an image in [0, 1] and its labels, transformed together.

    Raises:
        ValueError: The transform did not return a floating-point image.
    """
    from torchvision import tv_tensors

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
