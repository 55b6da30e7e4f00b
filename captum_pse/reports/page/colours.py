"""Colour scales of the report's maps: as pictures and as their legends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from captum_pse._drawing.images import Array
from captum_pse._drawing.styles import sampled
from captum_pse.groups.types import TYPES

#: The colour maps of matplotlib that the report draws with, as the figures do.
COLOUR_MAPS = ("Oranges", "PuOr", "PuOr_r", "Purples", "RdBu_r", "viridis")
_LEVELS = 255
_NOTHING = 255  # Drawn transparent: the page's hatching shows through.


@dataclass(frozen=True)
class Scale:
    """A colour scale from ``low`` to ``high``.

    Attributes:
        colours (str): One of :data:`COLOUR_MAPS`.
        low, high (float): Values beyond are drawn as these.
        unit (str): Of the values.
    """

    colours: str
    low: float
    high: float
    unit: str

    def draw(self, values: Array) -> Image.Image:
        """Values ``(H, W)`` in 255 colours; transparent where they are NaN."""
        share = (values - self.low) / (self.high - self.low)
        level = np.nan_to_num(share).clip(0, 1) * (_LEVELS - 1)
        places = np.where(np.isnan(values), _NOTHING, level.round())
        return _indexed(places, sampled(self.colours, _LEVELS))


def draw_types(codes: Array) -> Image.Image:
    """Codes of types ``(H, W)`` in the types' colours; transparent where NaN."""
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


def _indexed(places: Array, rgb: Array) -> Image.Image:
    """A picture of one byte a pixel, much smaller as a file than three."""
    image = Image.fromarray(np.ascontiguousarray(places, dtype=np.uint8))
    # Of all 256 colours: Pillow cuts the pixels down to the bits that fewer need.
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(rgb)] = (255 * rgb).round()
    image.putpalette(palette.tobytes())
    image.info["transparency"] = _NOTHING
    return image
