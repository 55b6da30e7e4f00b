"""Colour scales of the report's maps: as pictures and as their legends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from captum_pse.visualization.pixels import COLORS

Array = npt.NDArray[Any]

#: The colour maps of matplotlib that the report draws with, as the figures do.
COLOUR_MAPS = ("Oranges", "PuOr", "PuOr_r", "Purples", "RdBu_r", "viridis")
#: The types of groups, in the order of :data:`captum_pse.visualization.COLORS`.
KINDS = tuple(COLORS)

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
        return _indexed(places, _colours(self.colours, _LEVELS))


def draw_kinds(kinds: Array) -> Image.Image:
    """Places in :data:`KINDS`, ``(H, W)``; transparent where they are negative."""
    rgb = np.array([to_rgb(colour) for colour in COLORS.values()])
    return _indexed(np.where(kinds < 0, _NOTHING, kinds), rgb)


def gradients() -> dict[str, str]:
    """Each colour map as a CSS gradient."""
    return {
        name: f"linear-gradient(to right, {', '.join(map(_hex, _colours(name, 17)))})"
        for name in COLOUR_MAPS
    }


def _colours(name: str, n: int) -> Array:
    rgba: Array = matplotlib.colormaps[name](np.linspace(0, 1, n))
    return rgba[:, :3]


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
