"""Procedurally drawn scenes with a pixel mask of every concept.

Each scene is one object of :data:`CLASSES`, with named parts, a colour and a texture,
in front of one of the backgrounds of :data:`SCENES`. A scene depends only on
``(seed, index)``, so scenes can be drawn in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_pse._model.checks import check_int
from captum_pse.demo.shapes import Array, both, box, disc, ellipse
from captum_pse.demo.things import (
    BACKDROPS,
    CLASSES,
    CONCEPTS,
    OBJECTS,
    PALETTE,
    SCENES,
    TEXTURES,
)

SIZE = 64

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
        concepts (dict[str, Tensor]): For each category of :data:`CONCEPTS`, an int64
            mask of shape ``(64, 64)``, 0 for none; for ``scene``, an int64 scalar.

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
    """Draws the background and returns the colours used."""
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
    """A mask of the texture's second colour; ``x`` and ``y`` in pixels."""
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
    """Draws scene ``index`` of the infinite series ``seed``.

    Args:
        seed (int): Seed of the series, 0 or more.
        index (int): Index of the scene, 0 or more. The class is ``index % 12``.

    Returns:
        *Scene*: The scene; equal for equal arguments.

    Raises:
        TypeError, ValueError: ``seed`` or ``index`` is not an int of 0 or more.

    Examples::

        >>> scene = draw_scene(seed=0, index=3)
        >>> CLASSES[scene.label], tuple(scene.image.shape)
        ('car', (3, 64, 64))
        >>> torch.equal(scene.image, draw_scene(seed=0, index=3).image)
        True
    """
    seed, index = check_int("seed", seed, 0), check_int("index", index, 0)
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

    The image is RGB, float32 ``(3, 64, 64)`` in [0, 1]. The label is an index into
    :data:`CLASSES`. The training set of the demo model has ``seed`` 0, its test set
    ``seed`` 1.

    Args:
        n (int): Number of scenes, 1 or more.
        seed (int, optional): Seed of the series, 0 or more. Default: 1

    Raises:
        TypeError, ValueError: ``n`` is not a positive int, or ``seed`` not one of 0 or
            more.
        IndexError: There is no scene with the index of an item.

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
        self.n, self.seed = check_int("n", n, 1), check_int("seed", seed, 0)

    def __len__(self) -> int:
        return self.n

    def scene(self, index: int) -> Scene:
        """The scene with the mask of every concept.

        Args:
            index (int): Index of the scene, 0 to ``n - 1``.

        Raises:
            IndexError: There is no such scene.
        """
        if not 0 <= check_int("index", index) < self.n:
            raise IndexError(f"index: got {index}, want 0 to {self.n - 1}")
        return draw_scene(self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scene = self.scene(index)
        return scene.image, scene.label

    def batch(self) -> tuple[Tensor, Tensor]:
        """All images ``(n, 3, 64, 64)`` and their labels, int64 ``(n,)``."""
        images, labels = zip(*(self[i] for i in range(self.n)), strict=True)
        return torch.stack(images), torch.tensor(labels)
