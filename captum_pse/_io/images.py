"""Reads images at the range of their file, as values in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_pse._io.image_files import (
    Facts,
    ImageKindError,
    described,
    load,
    read_file,
    without_alpha,
)


def read_image(path: Path, argument: str) -> tuple[Tensor, Facts]:
    """Reads an image file; see :func:`pixels_of`.

    Args:
        path (Path): The file.
        argument (str): The argument that it comes from, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or :func:`pixels_of` refuses it.
    """
    return read_file(path, argument, pixels_of)


def pixels_of(image: Image.Image, file: bytes = b"") -> tuple[Tensor, Facts]:
    """The pixels of an image: grey, palette or RGB of 8 bits, or grey of 16.

    Colour profiles are not applied.

    Args:
        image (Image): The image. If it was loaded elsewhere, its colours have 8 bits.
        file (bytes, optional): As for :func:`captum_pse._io.image_files.load`.

    Returns:
        *tuple*: float32 ``(3, H, W)`` in [0, 1], where 1 is 255 in a file of 8 bits per
        channel and 65535 in a file of 16; and the facts of the file.

    Raises:
        ImageKindError: The image is of another kind; see also
            :func:`captum_pse._io.image_files.load`.
    """
    image, facts = load(image, file)
    # Older versions of Pillow open a grey PNG of 16 bits in mode I.
    is_grey = image.mode[:4] == "I;16" or (image.mode, image.format) == ("I", "PNG")
    if facts.bits == 16 and is_grey:
        stored = np.asarray(image)[..., None].astype(np.uint16)
    elif facts.bits <= 8 and image.mode in ("1", "L", "RGB"):
        stored = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    elif facts.bits <= 8 and image.mode in ("LA", "P", "RGBA"):
        stored = np.asarray(image.convert("RGBA"))
    else:
        raise ImageKindError(
            f"got {described(image, facts.bits)}, want grey, palette or RGB of 8 bits "
            "per channel, or grey of 16"
        )
    channels = torch.from_numpy(np.moveaxis(without_alpha(stored), -1, 0).copy())
    return channels.expand(3, -1, -1).float() / np.iinfo(stored.dtype).max, facts
