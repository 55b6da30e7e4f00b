"""Colour scales of the report: maps as pictures, and the gradients of legends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from captum_pse._drawing.images import Array
from captum_pse._drawing.styles import sampled
from captum_pse.groups.types import TYPES

#: The colour maps that the report and the figures share, by their matplotlib names.
COLOUR_MAPS = ("Oranges", "PuOr", "PuOr_r", "Purples", "RdBu_r", "viridis")
_LEVELS = 255
_NOTHING = 255  # Drawn transparent: the hatching of the page shows through.


@dataclass(frozen=True)
class Scale:
    """A colour scale from ``low`` to ``high``.

    Attributes:
        colours (str): One of :data:`COLOUR_MAPS`.
        low, high (float): The limits. Values beyond a limit take its colour.
        unit (str): The unit of the values.
    """

    colours: str
    low: float
    high: float
    unit: str

    def draw(self, values: Array) -> Image.Image:
        """Values ``(H, W)`` in 255 colours; transparent where they are NaN."""
        relative = (values - self.low) / (self.high - self.low)
        level = np.nan_to_num(relative).clip(0, 1) * (_LEVELS - 1)
        indices = np.where(np.isnan(values), _NOTHING, level.round())
        return _indexed(indices, sampled(self.colours, _LEVELS))


def draw_types(codes: Array) -> Image.Image:
    """Codes of types ``(H, W)`` in the colours of the types; transparent where NaN."""
    rgb = np.array([_rgb(kind.color) for kind in TYPES])
    first = TYPES[0].code
    return _indexed(np.where(np.isnan(codes), _NOTHING, codes - first), rgb)


def gradients() -> dict[str, str]:
    """Each colour map as a CSS gradient."""
    return {
        name: f"linear-gradient(to right, {', '.join(map(_hex, sampled(name, 17)))})"
        for name in COLOUR_MAPS
    }


def _rgb(color: str) -> list[float]:
    return [value / 255 for value in bytes.fromhex(color.removeprefix("#"))]


def _hex(rgb: Array) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb.tolist())


def _indexed(indices: Array, rgb: Array) -> Image.Image:
    """A picture of one byte per pixel, an index into the palette ``rgb``."""
    image = Image.fromarray(np.ascontiguousarray(indices, dtype=np.uint8))
    # All 256 colours: with fewer, Pillow reduces the bits per pixel.
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(rgb)] = (255 * rgb).round()
    image.putpalette(palette.tobytes())
    image.info["transparency"] = _NOTHING
    return image
