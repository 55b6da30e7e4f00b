"""The contents of the scenes: colours, objects with their parts, backgrounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from captum_pse.demo.shapes import (
    Shape,
    both,
    box,
    disc,
    ellipse,
    polygon,
    ring,
    upper_half,
)

PALETTE: dict[str, tuple[float, float, float]] = {
    "black": (0.08, 0.08, 0.09),
    "blue": (0.20, 0.40, 0.85),
    "brown": (0.45, 0.29, 0.15),
    "grey": (0.52, 0.53, 0.55),
    "green": (0.22, 0.58, 0.24),
    "orange": (0.95, 0.55, 0.12),
    "pink": (0.96, 0.58, 0.72),
    "purple": (0.50, 0.24, 0.62),
    "red": (0.82, 0.15, 0.14),
    "white": (0.95, 0.95, 0.94),
    "yellow": (0.97, 0.87, 0.25),
}


class Part(NamedTuple):
    name: str
    shape: Shape
    #: Names of the part's possible colours; empty means the object's main colour.
    colors: tuple[str, ...] = ()


_METAL = ("black", "grey")
_GLASS = ("blue", "white", "yellow")

#: The parts of each object, in its own frame: x to the right, y down, both in [-1, 1].
OBJECTS: dict[str, tuple[Part, ...]] = {
    "balloon": (
        Part("rope", both(box(-0.2, 0.5, 0.03, 0.3), box(0.2, 0.5, 0.03, 0.3)), _METAL),
        Part("envelope", ellipse(0, -0.25, 0.7, 0.72)),
        Part("basket", box(0, 0.82, 0.27, 0.17), ("brown",)),
    ),
    "boat": (
        Part("mast", box(0, -0.2, 0.05, 0.75), ("brown", "black")),
        Part("sail", polygon((0.1, -0.9), (0.1, 0.3), (0.85, 0.3))),
        Part(
            "hull",
            polygon((-0.95, 0.42), (0.95, 0.42), (0.6, 0.9), (-0.6, 0.9)),
            ("brown", "white", "red", "black"),
        ),
    ),
    "butterfly": (
        Part(
            "wing",
            both(ellipse(-0.5, -0.35, 0.45, 0.5), ellipse(0.5, -0.35, 0.45, 0.5)),
        ),
        Part(
            "wing", both(ellipse(-0.4, 0.45, 0.36, 0.4), ellipse(0.4, 0.45, 0.36, 0.4))
        ),
        Part("body", ellipse(0, 0, 0.1, 0.75), ("black", "brown")),
    ),
    "car": (
        Part("cabin", polygon((-0.6, 0), (-0.35, -0.5), (0.35, -0.5), (0.65, 0))),
        Part("window", box(0, -0.22, 0.33, 0.17), _GLASS),
        Part("body", box(0, 0.22, 0.95, 0.27)),
        Part("wheel", both(disc(-0.5, 0.52, 0.25), disc(0.5, 0.52, 0.25)), _METAL),
    ),
    "cup": (
        Part("handle", ring(0.62, 0.05, 0.3, 0.16)),
        Part("body", polygon((-0.65, -0.6), (0.6, -0.6), (0.45, 0.75), (-0.5, 0.75))),
        Part("rim", ellipse(-0.02, -0.6, 0.63, 0.15), ("white", "brown")),
    ),
    "fish": (
        Part("tail", polygon((-0.45, 0), (-0.98, -0.48), (-0.98, 0.48))),
        Part("fin", polygon((-0.2, -0.35), (0.3, -0.35), (-0.15, -0.75))),
        Part("body", ellipse(0.15, 0, 0.75, 0.45)),
        Part("eye", disc(0.58, -0.12, 0.1), ("black", "white")),
    ),
    "flower": (
        Part("stem", box(0, 0.5, 0.06, 0.48), ("green",)),
        Part("leaf", ellipse(0.3, 0.6, 0.28, 0.12), ("green",)),
        Part(
            "petal",
            both(
                both(disc(0, -0.72, 0.26), disc(0, 0.0, 0.26)),
                both(
                    both(disc(-0.34, -0.54, 0.26), disc(0.34, -0.54, 0.26)),
                    both(disc(-0.34, -0.16, 0.26), disc(0.34, -0.16, 0.26)),
                ),
            ),
        ),
        Part("centre", disc(0, -0.36, 0.2), ("yellow", "brown", "white")),
    ),
    "house": (
        Part("wall", box(0, 0.35, 0.68, 0.55)),
        Part(
            "roof", polygon((-0.9, -0.15), (0, -0.92), (0.9, -0.15)), ("red", "brown")
        ),
        Part("door", box(-0.25, 0.6, 0.16, 0.3), ("brown", "black")),
        Part("window", box(0.3, 0.3, 0.18, 0.18), _GLASS),
    ),
    "mushroom": (
        Part("stem", box(0, 0.4, 0.2, 0.5), ("white", "grey")),
        Part("cap", upper_half(disc(0, 0.1, 0.88), 0.1)),
    ),
    "rocket": (
        Part(
            "flame", polygon((-0.2, 0.6), (0.2, 0.6), (0, 0.98)), ("orange", "yellow")
        ),
        Part("fin", polygon((-0.6, 0.75), (0, 0.1), (0.6, 0.75)), ("red", "black")),
        Part("body", box(0, 0.05, 0.27, 0.58)),
        Part(
            "nose", polygon((-0.27, -0.53), (0, -0.98), (0.27, -0.53)), ("red", "grey")
        ),
        Part("window", disc(0, -0.2, 0.14), _GLASS),
    ),
    "tree": (
        Part("trunk", box(0, 0.6, 0.14, 0.38), ("brown",)),
        Part(
            "crown",
            both(
                disc(0, -0.4, 0.5), both(disc(-0.4, -0.05, 0.4), disc(0.4, -0.05, 0.4))
            ),
            ("green", "orange", "pink", "yellow"),
        ),
    ),
    "umbrella": (
        Part("handle", box(0, 0.3, 0.05, 0.6), ("black", "brown")),
        Part("handle", ring(0.15, 0.82, 0.15, 0.1), ("black", "brown")),
        Part(
            "canopy",
            lambda u, v: np.maximum(
                upper_half(disc(0, 0.05, 0.92), 0.05)(u, v),
                -both(
                    disc(0, 0.12, 0.25),
                    both(disc(-0.6, 0.12, 0.25), disc(0.6, 0.12, 0.25)),
                )(u, v),
            ),
        ),
    ),
}


class Backdrop(NamedTuple):
    #: The names and possible colours of the areas above and below the horizon.
    above: tuple[str, tuple[str, ...]]
    below: tuple[str, tuple[str, ...]]
    #: The object at the horizon or in the sky.
    extra: str


BACKDROPS: dict[str, Backdrop] = {
    "beach": Backdrop(("sky", ("blue", "white")), ("sand", ("yellow",)), "water"),
    "city": Backdrop(("sky", ("blue", "grey")), ("road", ("grey",)), "building"),
    "desert": Backdrop(("sky", ("blue", "orange")), ("sand", ("orange",)), "sun"),
    "meadow": Backdrop(("sky", ("blue", "white")), ("grass", ("green",)), "hill"),
    "night": Backdrop(("sky", ("black", "purple")), ("grass", ("black",)), "moon"),
    "snow": Backdrop(("sky", ("grey", "blue")), ("snowfield", ("white",)), "cloud"),
}

#: The classes of the demo model, in the order of its logits.
CLASSES: tuple[str, ...] = tuple(OBJECTS)
SCENES: tuple[str, ...] = tuple(BACKDROPS)
TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checkered")

#: The concepts of each category. In a mask, 0 is unlabelled and k >= 1 is the k-th
#: name; ``scene`` is one number for the whole image.
CONCEPTS: dict[str, tuple[str, ...]] = {
    "color": tuple(PALETTE),
    "object": (
        *CLASSES,
        *("sky", "sand", "road", "grass", "snowfield"),
        *("water", "building", "sun", "hill", "moon", "cloud"),
    ),
    "part": tuple(dict.fromkeys(p.name for parts in OBJECTS.values() for p in parts)),
    "texture": TEXTURES,
    "scene": SCENES,
}
