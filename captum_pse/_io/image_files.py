"""Opens image files, and refuses those that are not one array of pixels.

Pillow drops silently what it does not hold: it cuts colours of 16 bits to 8, takes the
first of several frames, and leaves an EXIF orientation to its caller.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

#: The formats that are read, by Pillow's names, and the endings of their files.
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
SUFFIXES: Final = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
_ORIENTATION = 274  # a tag of EXIF
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_LOSSY = ("jpeg", "tiff_jpeg", "webp")  # compressions of TIFF, by Pillow's names

Array = npt.NDArray[Any]
T = TypeVar("T")


class ImageKindError(ValueError):
    """The image is of a kind that is not read."""


class Facts(NamedTuple):
    """What the file of an image states, and Pillow's image does not.

    Attributes:
        bits (int): Bits per channel; of the palette's indices if there is one.
        lossy (bool): Whether the compression changes pixels.
    """

    bits: int
    lossy: bool


def read_file(
    path: Path, argument: str, convert: Callable[[Image.Image, bytes], T]
) -> T:
    """Opens a file and converts it, given the image and its bytes.

    Args:
        path (Path): The file.
        argument (str): The argument that it comes from, for messages.
        convert (Callable): Raises :class:`ImageKindError` for an image that it refuses.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or ``convert`` refuses it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}")
    try:
        file = path.read_bytes()
        with _opened(file) as image:
            return convert(image, file)
    except ImageKindError as error:
        raise ValueError(f"{argument}: {path}: {error}") from error
    except Exception as error:  # damaged bytes make Pillow raise anything
        raise ValueError(
            f"{argument}: {path} cannot be read ({error}), want a complete image: "
            f"{', '.join(FORMATS)}"
        ) from error


def load(image: Image.Image, file: bytes) -> tuple[Image.Image, Facts]:
    """Loads an image that is one upright array of pixels.

    Args:
        image (Image): The image.
        file (bytes): Its file. If empty, a copy of the image is loaded: an opened image
            no longer knows the facts of its file once it is loaded.

    Returns:
        *tuple*: The loaded image, and the facts of its file.

    Raises:
        ImageKindError: The image has several frames, has to be turned or inverted, or
            has a transparent colour outside a palette.
    """
    if not file:
        image, file = _copied(image)
    facts = Facts(_bits(image, file), _is_lossy(image, file))
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageKindError(f"got {frames} frames or pages, want one image")
    orientation = image.getexif().get(_ORIENTATION)
    if orientation in range(2, 9):
        # Who made the mask or the adversarial image may have turned it, or not.
        raise ImageKindError(
            f"got EXIF orientation {orientation}, want pixels stored as they are shown "
            "(PIL.ImageOps.exif_transpose turns them)"
        )
    image.load()
    if "transparency" in image.info and image.mode != "P":
        raise ImageKindError("got a transparent colour, want an opaque image")
    return image, facts


def without_alpha(values: Array) -> Array:
    """Pixels ``(H, W, C)`` without their last channel if that is of opacity.

    Raises:
        ImageKindError: A pixel is transparent.
    """
    if values.shape[-1] not in (2, 4):
        return values
    if values[..., -1].min() < np.iinfo(values.dtype).max:
        raise ImageKindError("got transparent pixels, want an opaque image")
    return values[..., :-1]


def described(image: Image.Image, bits: int) -> str:
    """The kind of an image, for messages."""
    names = {"1": "grey", "L": "grey", "P": "palette", "F": "floating-point"}
    kind = names.get(image.mode, "integer" if image.mode[0] == "I" else image.mode)
    return f"{bits}-bit {kind} ({image.format or 'PIL image'})"


def _opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file), formats=FORMATS)


def _copied(image: Any) -> tuple[Image.Image, bytes]:
    """The image and the file of one that is opened and not loaded, else no file."""
    if not getattr(image, "tile", None):
        return image, b""
    position = image.fp.tell()
    image.fp.seek(0)
    file = image.fp.read()
    image.fp.seek(position)
    return _opened(file), file


def _bits(image: Image.Image, file: bytes) -> int:
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if tags.get(_PHOTOMETRIC) == 0:
            raise ImageKindError("got a TIFF image with 0 for white, want 0 for black")
        formats = {*tags.get(_SAMPLE_FORMAT, (1,))}
        if formats != {1} and image.mode not in ("F", "I"):
            raise ImageKindError(f"got a TIFF image of sample format {formats}, want 1")
        return int(max(tags.get(_BITS, (1,))))
    if image.format == "PNG" and file:
        return file[24]
    if image.format == "BMP" and file:
        per_pixel = file[24 if file[14] == 12 else 28]
        # Pillow misreads some grey palettes of other sizes.
        if per_pixel not in (8, 24, 32) or image.mode == "1":
            raise ImageKindError(
                f"got a BMP image of {per_pixel} bits per pixel in Pillow's mode "
                f"{image.mode}, want 24 bits"
            )
    by_mode = {"1": 1, "F": 32, "I": 32}
    return by_mode.get(image.mode, 16 if "16" in image.mode else 8)


def _is_lossy(image: Image.Image, file: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" not in file
    return image.format in ("JPEG", "MPO") or image.info.get("compression") in _LOSSY
