"""Makes feature masks for Captum: grids, channels, superpixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from captum_pse._model.checks import check_int

#: Number of cells of :func:`default_feature_mask` along an image's longer side.
DEFAULT_CELLS = 14


def _per_axis(name: str, value: int | Sequence[int], n_axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Iterable) else (value,) * n_axes
    if not values or len(values) != n_axes:
        raise ValueError(
            f"{name}: got {value!r}, want a positive int or one for each of the "
            f"{n_axes or 'spatial'} axes"
        )
    return tuple(check_int(name, side, 1) for side in values)


def grid_mask(
    size: Sequence[int],
    *,
    cell: int | Sequence[int] | None = None,
    count: int | Sequence[int] | None = None,
) -> Tensor:
    """A feature mask of rectangular cells, shared by all examples and channels.

    Args:
        size (sequence of int): The spatial size, ``(H, W)`` for images, in pixels.
        cell (int or sequence of int, optional): Side of a cell in pixels. If it does
            not divide the size, the last cell of an axis is smaller. Default: None
        count (int or sequence of int, optional): Number of cells along each axis. Their
            sides differ by at most one pixel. Give exactly one of ``cell`` and
            ``count``. Default: None

    Returns:
        *Tensor*: int64, shape ``(1, 1, *size)``, ids 0, 1, ... in reading order.

    Raises:
        TypeError: A size, cell or count is not an integer.
        ValueError: A size, cell or count is not positive, there are more cells than
            pixels, or both or neither of ``cell`` and ``count`` are given.

    Examples::

        >>> grid_mask((2, 4), cell=2)
        tensor([[[[0, 0, 1, 1],
                  [0, 0, 1, 1]]]])
    """
    sizes = _per_axis("size", size, len(tuple(size)))
    if (cell is None) == (count is None):
        raise ValueError(
            f"cell and count: got cell={cell!r} and count={count!r}, want exactly one"
        )
    if cell is not None:
        sides = _per_axis("cell", cell, len(sizes))
        axes = [torch.arange(n) // side for n, side in zip(sizes, sides, strict=True)]
    else:
        assert count is not None
        counts = _per_axis("count", count, len(sizes))
        if any(k > n for k, n in zip(counts, sizes, strict=True)):
            raise ValueError(f"count: got {count!r}, want no more than size {sizes}")
        axes = [torch.arange(n) * k // n for n, k in zip(sizes, counts, strict=True)]
    mask = torch.zeros((), dtype=torch.int64)
    for axis in axes:
        mask = mask.unsqueeze(-1) * (axis[-1] + 1) + axis
    return mask[None, None]


def channel_mask(inputs: Tensor) -> Tensor:
    """A feature mask with one group for each channel.

    Args:
        inputs (Tensor): Shape ``(N, C, ...)``. The values are not used.

    Returns:
        *Tensor*: int64, shape ``(1, C, 1, ...)``, ids 0 to C - 1, on the device of
        ``inputs``.

    Raises:
        ValueError: The inputs have no channels.

    Examples::

        >>> channel_mask(torch.zeros(8, 3, 32, 32)).flatten()
        tensor([0, 1, 2])
    """
    if inputs.dim() < 2:
        raise ValueError(
            f"inputs: got shape {tuple(inputs.shape)}, want (N, C, ...) with channels"
        )
    ids = torch.arange(inputs.shape[1], device=inputs.device)
    return ids.reshape(1, -1, *(1,) * (inputs.dim() - 2))


def superpixel_mask(
    images: Tensor, n_segments: int = 200, compactness: float = 10.0
) -> Tensor:
    """A feature mask of superpixels (SLIC), one for each image.

    Pass the natural images, so that the groups follow their content rather than the
    perturbation.

    Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel
    Methods", PAMI 2012, as implemented in ``skimage.segmentation.slic``.

    Args:
        images (Tensor): Shape ``(N, C, H, W)`` with values in [0, 1]. Three channels
            are read as RGB.
        n_segments (int, optional): Approximate number of groups of each image.
            Default: 200
        compactness (float, optional): Weight of spatial distance relative to colour
            distance. Larger values give squarer groups. Default: 10.0

    Returns:
        *Tensor*: int64, shape ``(N, 1, H, W)``, on the device of ``images``; ids start
        at 0 in each image.

    Raises:
        ImportError: scikit-image is not installed (extra ``superpixels``).
        TypeError, ValueError: ``images`` is not a batch of images, or ``n_segments`` is
            not a positive int.

    Examples::

        >>> from captum_pse.demo import make_pairs
        >>> mask = superpixel_mask(make_pairs(2).natural, n_segments=50)
        >>> mask.shape, mask.amin(dim=(1, 2, 3)).tolist()
        (torch.Size([2, 1, 64, 64]), [0, 0])
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError(
            "superpixel_mask needs scikit-image: pip install 'captum-pse[superpixels]'"
        ) from error
    if images.dim() != 4:
        raise ValueError(f"images: got shape {tuple(images.shape)}, want (N, C, H, W)")
    n_segments = check_int("n_segments", n_segments, 1)
    masks = [
        torch.from_numpy(
            slic(
                image.detach().movedim(0, -1).float().cpu().numpy(),
                n_segments=n_segments,
                compactness=compactness,
                start_label=0,
                channel_axis=-1,
            )
        )
        for image in images
    ]
    return torch.stack(masks).unsqueeze(1).to(images.device, torch.int64)


def default_feature_mask(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The feature masks used if none is given.

    Images and volumes ``(N, C, H, W, ...)`` get a grid shared by all channels. Its
    square cells are a 14th of the longer side wide (16 px at 224 px, 2 px at 32 px), at
    least 1 px. Any other input ``(N, F)`` or ``(N, T, F)`` gets one group for each
    feature. Two inputs share no group.

    Args:
        inputs (tuple[Tensor, ...]): The inputs, as a tuple even for a single input.
            Only their shapes and devices are used.

    Returns:
        *tuple[Tensor, ...]*: int64, one mask for each input, shape ``(1, 1, H, W,
        ...)``, ``(1, F)`` or ``(1, T, F)``. Ids continue from one input to the next.

    Examples::

        >>> images, features = torch.zeros(8, 3, 224, 224), torch.zeros(8, 5)
        >>> of_images, of_features = default_feature_mask((images, features))
        >>> of_images.shape, int(of_images.max())
        (torch.Size([1, 1, 224, 224]), 195)
        >>> of_features
        tensor([[196, 197, 198, 199, 200]])
    """
    masks, offset = [], 0
    for x in inputs:
        if x.dim() >= 4:
            cell = max(1, round(max(x.shape[2:]) / DEFAULT_CELLS))
            mask = grid_mask(x.shape[2:], cell=cell)
        else:
            mask = torch.arange(x[0].numel()).reshape(1, *x.shape[1:])
        masks.append(mask.to(x.device) + offset)
        offset += int(mask.max()) + 1
    return tuple(masks)


def image_mask(images: Tensor, cell: int | None) -> Tensor:
    """A grid for ``images`` ``(N, C, H, W)`` with cells of ``cell`` pixels; for None,
    the grid of :func:`default_feature_mask`."""
    if cell is None:
        return default_feature_mask((images,))[0]
    return grid_mask(images.shape[2:], cell=cell)
