"""Procedurally drawn scenes with the pixel mask of every concept in them.

Each scene is one object of :data:`CLASSES`, built of named parts with a colour and a
texture, before one of the backgrounds of :data:`SCENES`. A scene is a function of
``(seed, index)`` alone, so that any of them can be drawn at any time, in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

Array = npt.NDArray[np.float32]
#: Signed distance to an outline, negative inside.
Shape = Callable[[Array, Array], Array]

SIZE = 64

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


def disc(x: float, y: float, radius: float) -> Shape:
    return lambda u, v: np.hypot(u - x, v - y) - radius


def ellipse(x: float, y: float, rx: float, ry: float) -> Shape:
    return lambda u, v: (np.hypot((u - x) / rx, (v - y) / ry) - 1) * min(rx, ry)


def ring(x: float, y: float, radius: float, width: float) -> Shape:
    return lambda u, v: np.abs(np.hypot(u - x, v - y) - radius) - width / 2


def box(x: float, y: float, half_width: float, half_height: float) -> Shape:
    return lambda u, v: np.maximum(
        np.abs(u - x) - half_width, np.abs(v - y) - half_height
    )


def polygon(*points: tuple[float, float]) -> Shape:
    def distance(u: Array, v: Array) -> Array:
        inside = np.zeros(u.shape, dtype=bool)
        nearest = np.full(u.shape, np.inf, dtype=u.dtype)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            dx, dy = x1 - x0, y1 - y0
            along = ((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0, 1)
            nearest = np.minimum(
                nearest, np.hypot(u - x0 - along * dx, v - y0 - along * dy)
            )
            if dy != 0:
                crosses = (v < y0) != (v < y1)
                inside ^= crosses & (u < x0 + (v - y0) * dx / dy)
        return np.where(inside, -nearest, nearest)

    return distance


def upper_half(shape: Shape, y: float) -> Shape:
    return lambda u, v: np.maximum(shape(u, v), v - y)


def both(first: Shape, second: Shape) -> Shape:
    return lambda u, v: np.minimum(first(u, v), second(u, v))


class Part(NamedTuple):
    name: str
    shape: Shape
    #: Names the part may be painted with; empty means the object's main colour.
    colors: tuple[str, ...] = ()


_METAL = ("black", "grey")
_GLASS = ("blue", "white", "yellow")

#: Every object in its own frame: x to the right and y down, both within [-1, 1].
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
    #: Stuff above and below the horizon, each with the colours it may have.
    above: tuple[str, tuple[str, ...]]
    below: tuple[str, tuple[str, ...]]
    #: What may stand at the horizon or in the sky.
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

#: Every concept by category. In a mask, 0 is unlabelled and k is the k-th name here,
#: counted from 1; ``scene`` is one number for the whole image.
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
_NUMBER = {
    category: {name: k for k, name in enumerate(names, start=1)}
    for category, names in CONCEPTS.items()
}


@dataclass(frozen=True)
class Scene:
    """One drawn scene; made by :func:`draw_scene` and :meth:`Scenes.scene`.

    Attributes:
        image (Tensor): RGB in [0, 1], shape ``(3, 64, 64)``, float32.
        label (int): Index of the object's class in :data:`CLASSES`.
        concepts (dict[str, Tensor]): For each category of :data:`CONCEPTS` an int64
            mask of shape ``(64, 64)``, 0 for none; for ``scene`` an int64 scalar.

    Examples::

        >>> scene = draw_scene(seed=1, index=5)
        >>> fish = CONCEPTS["object"].index("fish") + 1
        >>> CLASSES[scene.label], bool((scene.concepts["object"] == fish).any())
        ('fish', True)
        >>> CONCEPTS["scene"][scene.concepts["scene"] - 1]
        'night'
    """

    image: Tensor
    label: int
    concepts: dict[str, Tensor]


class _Canvas:
    """An image and its label masks, painted from back to front."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.y, self.x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + np.float32(0.5)
        self.image = np.zeros((3, SIZE, SIZE), dtype=np.float32)
        self.masks = {
            name: np.zeros((SIZE, SIZE), dtype=np.int64)
            for name in ("color", "object", "part", "texture")
        }

    def pixels(self, color: str) -> Array:
        jitter = self.rng.normal(0, 0.03, 3)
        rgb = np.clip(np.asarray(PALETTE[color]) + jitter, 0, 1).astype(np.float32)
        return rgb[:, None, None]

    def paint(self, distance: Array, color: str, **labels: str) -> None:
        """Fills where ``distance`` (in pixels) is negative; edges are antialiased."""
        alpha = np.clip(0.5 - distance, 0, 1).astype(np.float32)
        self.image += alpha * (self.pixels(color) - self.image)
        inside = alpha > 0.5
        labels["color"] = color
        for category, mask in self.masks.items():
            name = labels.get(category)
            mask[inside] = _NUMBER[category][name] if name else 0


def _paint_backdrop(canvas: _Canvas, scene: str) -> set[str]:
    """Draws the background and returns the colours it used."""
    rng, backdrop = canvas.rng, BACKDROPS[scene]
    horizon = rng.uniform(0.45, 0.7) * SIZE
    sky, sky_colors = backdrop.above
    ground, ground_colors = backdrop.below
    sky_color, ground_color = (
        str(rng.choice(sky_colors)),
        str(rng.choice(ground_colors)),
    )
    canvas.paint(canvas.y - SIZE * 2, sky_color, object=sky)
    x, extra = rng.uniform(0.1, 0.9) * SIZE, backdrop.extra
    used = {sky_color, ground_color}
    if extra == "building":
        for left in range(-4, SIZE, 13):
            height = rng.uniform(10, 26)
            shape = box(left + 7, horizon - height / 2, 5.5, height / 2)
            color = str(rng.choice(("grey", "brown", "black")))
            canvas.paint(shape(canvas.x, canvas.y), color, object=extra)
    elif extra == "hill":
        shape = ellipse(x, horizon + 4, rng.uniform(18, 30), rng.uniform(8, 16))
        canvas.paint(shape(canvas.x, canvas.y), "green", object=extra)
    elif extra == "water":
        shape = box(SIZE / 2, horizon, SIZE, rng.uniform(4, 9))
        canvas.paint(shape(canvas.x, canvas.y), "blue", object=extra)
        used.add("blue")
    elif extra == "cloud":
        y, width = rng.uniform(6, 16), rng.uniform(5, 9)
        shape = both(ellipse(x, y, width, 3.5), ellipse(x + 6, y + 2, width, 3))
        canvas.paint(shape(canvas.x, canvas.y), "white", object=extra)
    else:  # sun or moon
        shape = disc(x, rng.uniform(6, 14), rng.uniform(3.5, 6))
        color = "yellow" if extra == "sun" else "white"
        canvas.paint(shape(canvas.x, canvas.y), color, object=extra)
    canvas.paint(horizon - canvas.y, ground_color, object=ground)
    return used


def _texture(name: str, rng: np.random.Generator, x: Array, y: Array) -> Any:
    """Where the texture's second colour goes; ``x`` and ``y`` in pixels."""
    period = rng.uniform(6, 8)
    if name == "striped":
        angle = rng.uniform(0, np.pi)
        return (x * np.cos(angle) + y * np.sin(angle)) % period < period / 2
    if name == "dotted":
        return np.hypot(x % period - period / 2, y % period - period / 2) < period / 3.4
    if name == "checkered":
        return (x % period < period / 2) ^ (y % period < period / 2)
    return np.zeros(x.shape, dtype=bool)


def _paint_object(canvas: _Canvas, name: str, background: set[str]) -> None:
    rng = canvas.rng
    scale = rng.uniform(17, 25)
    angle = rng.normal(0, 0.12)
    mirror = rng.choice((-1.0, 1.0))
    reach = SIZE / 2 - scale
    dx = canvas.x - SIZE / 2 - rng.uniform(-reach, reach)
    dy = canvas.y - SIZE / 2 - rng.uniform(-reach, reach)
    u = mirror * (dx * np.cos(angle) + dy * np.sin(angle)) / scale
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / scale
    free = [color for color in PALETTE if color not in background]
    main, second = rng.choice(free, size=2, replace=False)
    texture = str(rng.choice(TEXTURES, p=(0.4, 0.2, 0.2, 0.2)))
    pattern = _texture(texture, rng, u * scale, v * scale)
    for part in OBJECTS[name]:
        distance = part.shape(u, v) * scale
        color = str(rng.choice(part.colors)) if part.colors else str(main)
        labels = {"object": name, "part": part.name}
        if part.colors:
            canvas.paint(distance, color, **labels)
        else:
            labels["texture"] = texture
            canvas.paint(distance, color, **labels)
            canvas.paint(np.where(pattern, distance, 1), str(second), **labels)


def draw_scene(seed: int, index: int) -> Scene:
    """Draws scene ``index`` of the endless series ``seed``; classes come in turn.

    Args:
        seed (int): Which series, 0 or more.
        index (int): Which scene of it, 0 or more; its class is ``index % 12``.

    Returns:
        *Scene*: The same for the same arguments.

    Raises:
        ValueError: ``seed`` or ``index`` is negative.

    Examples::

        >>> scene = draw_scene(seed=0, index=3)
        >>> CLASSES[scene.label], tuple(scene.image.shape)
        ('car', (3, 64, 64))
        >>> torch.equal(scene.image, draw_scene(seed=0, index=3).image)
        True
    """
    for name, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise ValueError(f"{name}: got {value}, want 0 or more")
    rng = np.random.default_rng((seed, index))
    label = index % len(CLASSES)
    scene = str(rng.choice(SCENES))
    canvas = _Canvas(rng)
    background = _paint_backdrop(canvas, scene)
    _paint_object(canvas, CLASSES[label], background)
    light = rng.uniform(0.85, 1.08) + rng.uniform(-0.08, 0.08) * (canvas.x / SIZE - 0.5)
    noise = rng.normal(0, 0.02, canvas.image.shape)
    image = np.clip(canvas.image * light + noise, 0, 1).astype(np.float32)
    concepts = {name: torch.from_numpy(mask) for name, mask in canvas.masks.items()}
    concepts["scene"] = torch.tensor(_NUMBER["scene"][scene])
    return Scene(torch.from_numpy(image), label, concepts)


class Scenes(Dataset[tuple[Tensor, int]]):
    """A data set of drawn scenes: item ``i`` is ``(image, label)``.

    The image is RGB, float32 ``(3, 64, 64)`` in [0, 1], the label an index of
    :data:`CLASSES`. The training set of the demo model is ``seed`` 0, its test set
    ``seed`` 1.

    Args:
        n (int): How many scenes, 1 or more.
        seed (int, optional): Which series, 0 or more. Default: 1

    Raises:
        ValueError: ``n`` is less than 1.
        IndexError: When an item is read: there is no such scene.

    Examples::

        >>> scenes = Scenes(12)
        >>> image, label = scenes[5]
        >>> CLASSES[label]
        'fish'
        >>> images, labels = scenes.batch()
        >>> torch.equal(images[5], image), labels.tolist() == list(range(12))
        (True, True)
        >>> torch.equal(scenes.scene(5).image, image)
        True
    """

    def __init__(self, n: int, seed: int = 1) -> None:
        if n < 1:
            raise ValueError(f"n: got {n}, want at least 1 scene")
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def scene(self, index: int) -> Scene:
        """The whole scene, with the mask of every concept.

        Raises:
            IndexError: There is no such scene.
        """
        if not 0 <= index < self.n:
            raise IndexError(f"index: got {index}, want 0 to {self.n - 1}")
        return draw_scene(self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scene = self.scene(index)
        return scene.image, scene.label

    def batch(self) -> tuple[Tensor, Tensor]:
        """All images ``(n, 3, 64, 64)`` and their labels, int64 ``(n,)``."""
        images, labels = zip(*(self[i] for i in range(self.n)), strict=True)
        return torch.stack(images), torch.tensor(labels)
