"""Reads masks: images whose pixels are numbers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_pse._io.image_files import (
    ImageKindError,
    described,
    load,
    read_file,
    without_alpha,
)

#: The kinds of masks, as messages call them.
GREY, PALETTE, CODED = "grey", "palette", "RGB with the number in R + 256 G"

_KINDS = {"1": GREY, "L": GREY, "LA": GREY, "P": PALETTE, "RGB": CODED, "RGBA": CODED}


def read_mask(path: Path, argument: str, kinds: Collection[str]) -> Tensor:
    """Reads a mask file; see :func:`numbers_of`.

    Args:
        path (Path): The file.
        argument (str): The argument that it comes from, for messages.
        kinds (collection of str): Some of ``GREY``, ``PALETTE`` and ``CODED``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or :func:`numbers_of` refuses it.
    """
    return read_file(path, argument, lambda image, file: numbers_of(image, kinds, file))


def numbers_of(image: Image.Image, kinds: Collection[str], file: bytes = b"") -> Tensor:
    """The numbers of a mask, int64 ``(h, w)``.

    They are the grey values of the file, indices of its palette, or ``R + 256 G``.

    Args:
        image (Image): The mask.
        kinds (collection of str): Some of ``GREY``, ``PALETTE`` and ``CODED``.
        file (bytes, optional): As for :func:`captum_pse._io.image_files.load`.

    Raises:
        ImageKindError: The mask is of another kind, B is not 0, or the compression is
            lossy; see also :func:`captum_pse._io.image_files.load`.
    """
    image, (bits, lossy) = load(image, file)
    if lossy:
        raise ImageKindError("got lossy compression, which changes numbers, want PNG")
    kind = GREY if image.mode[0] == "I" else _KINDS.get(image.mode)
    if kind not in kinds or (kind == CODED and bits > 8):
        raise ImageKindError(
            f"got {described(image, bits)}, want a mask: {' or '.join(kinds)}"
        )
    if kind == PALETTE:
        without_alpha(np.asarray(image.convert("RGBA")))
    values = without_alpha(np.atleast_3d(np.asarray(image))).astype(np.int64)
    if image.mode == "L" and bits < 8:
        values //= 255 // (2**bits - 1)  # Pillow stretches them to 8 bits
    if kind == CODED:
        red, green, blue = np.moveaxis(values, -1, 0)
        if blue.any():
            raise ImageKindError(f"got {blue.max()} in channel B, want 0: {CODED}")
        return torch.from_numpy(red + 256 * green)
    return torch.from_numpy(values[..., 0])
