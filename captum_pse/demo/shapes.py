"""Shapes as functions that return the signed distance to their outline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
#: Maps coordinates ``u, v`` to the signed distance to an outline, negative inside.
Shape = Callable[[Array, Array], Array]


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
