"""Counts the pixels in which units and concepts overlap, image by image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from captum_pse._io.distributed import of_all_processes, sum_over_processes
from captum_pse.dissection.concepts import Present, Vocabulary

#: For each unit, the number of images with its highest activations that are kept.
TOP_IMAGES = 8


class Counts:
    """Sums over images: the tensors named in ``SUMS``."""

    SUMS: tuple[str, ...]

    def state(self) -> dict[str, Tensor]:
        """The tensors, for a checkpoint."""
        return {name: getattr(self, name) for name in self.SUMS}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        for name, tensor in self.state().items():
            setattr(self, name, state[name].to(tensor.device))

    def combine(self) -> None:
        """Adds the sums of all processes. Every process must call it."""
        for name in self.SUMS:
            setattr(self, name, sum_over_processes(getattr(self, name)))


class ConceptAreas(Counts):
    """The areas of C concepts in G categories.

    Attributes:
        areas (Tensor): int64 ``(C,)``, the number of pixels of each concept.
        pixels (Tensor): int64 ``(G,)``, the number of pixels of the images that are
            annotated for the category.
        total (Tensor): int64 ``()``, the number of pixels of all images.
    """

    SUMS = ("areas", "pixels", "total")

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        sizes = (len(vocabulary),), (len(vocabulary.categories),), ()
        self.areas, self.pixels, self.total = (
            torch.zeros(size, dtype=torch.int64, device=device) for size in sizes
        )

    def update(self, present: Present) -> None:
        """Adds one image."""
        device, n_pixels = self.areas.device, present.size[0] * present.size[1]
        concepts = present.labels[present.labels >= 0]
        self.areas += concepts.bincount(minlength=len(self.areas)).to(device)
        self.pixels[present.categories.to(device)] += n_pixels
        self.total += n_pixels


class Overlaps(Counts):
    """The counts of one layer's K units, for C concepts in G categories.

    Attributes:
        intersections (Tensor): int64 ``(K, C)``, the number of pixels both in the
            unit's mask and in the concept.
        areas (Tensor): int64 ``(K, G)``, the number of pixels in the unit's mask, over
            the images that are annotated for the category.
        total (Tensor): int64 ``(K,)``, the number of pixels in the unit's mask, over
            all images.
        peaks (Tensor): ``(K, TOP_IMAGES)``, the highest activations of different
            images, descending; -inf for missing ones.
        images (Tensor): int64 ``(K, TOP_IMAGES)``, the indices of these images; -1 for
            missing ones.
    """

    SUMS = ("intersections", "areas", "total")

    def __init__(self, thresholds: Tensor, vocabulary: Vocabulary) -> None:
        n_units, device = len(thresholds), thresholds.device
        sizes = len(vocabulary), len(vocabulary.categories)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self._thresholds = thresholds
        self.intersections = zeros(n_units, sizes[0])
        self.areas = zeros(n_units, sizes[1])
        self.total = zeros(n_units)
        self.peaks = torch.full((n_units, TOP_IMAGES), -torch.inf, device=device)
        self.images = zeros(n_units, TOP_IMAGES) - 1

    def update(self, activation: Tensor, present: Present, image: int) -> None:
        """Adds one image.

        Args:
            activation (Tensor): Shape ``(K, h, w)``, at the layer's resolution.
            present (Present): The image's concepts, at the resolution of its masks.
            image (int): The image's index in the data set.
        """
        peak = activation.flatten(1).amax(1)
        images = torch.full_like(self.images[:, :1], image)
        self._keep_highest(peak.unsqueeze(1).float(), images)
        units, pixels = exceeding(activation, self._thresholds, present.size)
        area = units.bincount(minlength=len(self.total))
        self.total += area
        self.areas[:, present.categories.to(area.device)] += area.unsqueeze(1)
        concepts = present.labels.to(area.device)[:, pixels]
        index = (units * self.intersections.shape[1] + concepts)[concepts >= 0]
        self.intersections.view(-1).scatter_add_(0, index, torch.ones_like(index))

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "peaks": self.peaks, "images": self.images}

    def combine(self) -> None:
        super().combine()
        peaks, images = of_all_processes(self.peaks), of_all_processes(self.images)
        self.peaks, self.images = peaks[0], images[0]
        for other in zip(peaks[1:], images[1:], strict=True):
            self._keep_highest(*other)

    def _keep_highest(self, peaks: Tensor, images: Tensor) -> None:
        """Adds peaks and their images, ``(K, n)`` each, and keeps the highest. Equal
        peaks are ordered by image index."""
        peaks = torch.cat([self.peaks, peaks], dim=1)
        images = torch.cat([self.images, images], dim=1)
        by_image = images.argsort(dim=1, stable=True)
        order = peaks.gather(1, by_image).argsort(dim=1, descending=True, stable=True)
        best = by_image.gather(1, order)[:, :TOP_IMAGES]
        self.peaks, self.images = peaks.gather(1, best), images.gather(1, best)


def exceeding(
    activation: Tensor, thresholds: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The pixels at which bilinearly upsampled maps exceed their thresholds.

    Only rows that can exceed the threshold are upsampled: an upsampled row interpolates
    two rows of the map, so it is at most their maximum.

    Args:
        activation (Tensor): Shape ``(K, h, w)``.
        thresholds (Tensor): Shape ``(K,)``.
        size (tuple[int, int]): The height H and width W of the upsampled maps.

    Returns:
        *tuple[Tensor, Tensor]*: int64, the unit and the pixel ``W y + x`` of each value
        above its threshold.
    """
    height, width = size
    source = (torch.arange(height, dtype=torch.float64) + 0.5) * (
        activation.shape[1] / height
    ) - 0.5
    source = source.clamp(min=0)
    above = source.floor().long()
    below = (above + 1).clamp(max=activation.shape[1] - 1)
    weight = (source - above).to(activation)[:, None]
    above, below = above.to(activation.device), below.to(activation.device)

    exceeds = (activation > thresholds[:, None, None]).any(dim=2)
    unit, y = (exceeds[:, above] | exceeds[:, below]).nonzero(as_tuple=True)
    if len(unit) == 0:
        return unit, y
    rows = activation[unit, above[y]].lerp(activation[unit, below[y]], weight[y])
    wide = interpolate(rows.unsqueeze(0), width, mode="linear", align_corners=False)[0]
    row, x = (wide > thresholds[unit, None]).nonzero(as_tuple=True)
    return unit[row], y[row] * width + x
