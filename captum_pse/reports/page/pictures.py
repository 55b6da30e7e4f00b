"""Pictures of the page, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_pse._drawing.images import (
    Array,
    display_pair,
    perturbation,
    strongest_channel,
    to_numpy,
)
from captum_pse.pairs.scored import ScoredPair
from captum_pse.pixels.refinement import Refinement
from captum_pse.reports.page.colours import Scale

#: The longer side of a picture and of a thumbnail, at most, in pixels.
LONGEST, THUMBNAIL = 320, 48


@dataclass(frozen=True)
class Picture:
    """One of the pictures of a pair, between which the reader switches.

    Attributes:
        key (str): The name of the picture within the pair.
        title (str): What the picture shows.
        uri (str): The picture, as a data URI.
        thumbnail (str): The smaller picture, as a data URI.
        over (str): For a map, the key of the picture below it. Default: ""
        scale (Scale, optional): The colour scale. Default: None
        kinds (tuple): The types of groups that it shows, with their counts.
            Default: ()
        note (str): A note below the title. Default: ""
    """

    key: str
    title: str
    uri: str
    thumbnail: str
    over: str = ""
    scale: Scale | None = None
    kinds: tuple[tuple[str, int], ...] = ()
    note: str = ""


def shown_size(height: int, width: int, longest: int = LONGEST) -> tuple[int, int]:
    """The height and width at which an image is shown, at most ``longest`` each."""
    shrink = min(1.0, longest / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def pair_pictures(pair: ScoredPair, example: int) -> list[Picture]:
    """The natural image, the adversarial image and the perturbation.

    Each pixel of the perturbation shows the channel that changed most. The scale spans
    99.5 % of the pixels, as in :func:`captum_pse.visualization.plot_pair`.
    """
    natural, adversarial, rescaled = display_pair(pair, example)
    strongest, reach = perturbation(pair, example)
    height, width = strongest.shape
    note = rescaled.strip().strip("()")
    if max(height, width) > LONGEST:
        shown = " x ".join(map(str, reversed(shown_size(height, width))))
        note += f"{'; ' if note else ''}{width} x {height} pixels, shown at {shown}"
    return [
        photograph("natural", "natural image", natural, note),
        photograph("adversarial", "adversarial image", adversarial, note),
        drawn(
            "delta",
            "perturbation, amplified",
            strongest,
            Scale("RdBu_r", -reach, reach, "input units"),
            note="each pixel shows the channel that changed most",
        ),
    ]


def kept_picture(refinement: Refinement, example: int, scale: Scale) -> Picture:
    """The perturbation on the smallest fraction of groups on which the attack succeeds.

    All other pixels are transparent.

    Args:
        refinement (Refinement): The refinement of an attack that succeeds.
        example (int): Index of the example.
        scale (Scale): The scale of the whole perturbation.
    """
    smallest = float(refinement.smallest_fraction[example])
    chosen = refinement.keeps(smallest)
    (kept,) = refinement.groups.spread(chosen, refinement.inputs)
    (refined,) = refinement.at(smallest)
    change = strongest_channel((refined - refinement.baselines[0])[example])
    change[~kept[example].any(0)] = torch.nan
    n_kept = int(chosen[example].sum())
    n_groups = int((refinement.groups.sizes(refinement.inputs)[example] > 0).sum())
    return drawn(
        "kept",
        "perturbation on the fraction needed",
        to_numpy(change),
        scale,
        over="natural",
        note=f"kept on {n_kept} of {n_groups} groups; with one fewer the attack fails",
    )


def photograph(key: str, title: str, image: Array, note: str) -> Picture:
    """The picture of an image ``(H, W, 3)`` with values in [0, 1]."""
    whole = Image.fromarray((255 * image.clip(0, 1)).round().astype(np.uint8))
    return Picture(key, title, *both_sizes(whole), note=note)


def drawn(
    key: str, title: str, values: Array, scale: Scale, over: str = "", note: str = ""
) -> Picture:
    """The picture of a map ``(H, W)``."""
    uris = both_sizes(scale.draw(values))
    return Picture(key, title, *uris, over=over, scale=scale, note=note)


def both_sizes(image: Image.Image) -> tuple[str, str]:
    """The picture and its thumbnail."""
    large, small = (_png(_resized(image, longest)) for longest in (LONGEST, THUMBNAIL))
    return large, small


def data_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return _of_bytes(path.read_bytes())


def _resized(image: Image.Image, longest: int) -> Image.Image:
    height, width = shown_size(image.height, image.width, longest)
    # The colours of a map cannot be averaged.
    how = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BOX
    resized = image.resize((width, height), how)
    resized.info.update(image.info)
    return resized


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return _of_bytes(buffer.getvalue())


def _of_bytes(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
