"""Coloured polygons: everything in a scene is made of them, so that every picture comes with its exact mask.

In: `Shape`s in pixels of the scene. Out: pixels painted with anti-aliasing (drawn twice as large, then
averaged), or the silhouette that the same polygons cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 2

Points = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled polygon.

    Attributes:
        points: (N, 2) x, y in scene pixels. colour: RGB, 0 to 255. part: what it belongs to.
    """

    points: Points
    colour: Colour
    part: str = ""


def paint(image: Image.Image, shapes: Iterable[Shape]) -> None:
    """Paint shapes in order on a supersampled RGB image."""
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        red, green, blue = (int(min(max(value, 0), 255)) for value in shape.colour)
        draw.polygon((shape.points * SUPERSAMPLING).ravel().tolist(), fill=(red, green, blue))


def silhouette(shapes: Iterable[Shape], size: int) -> NDArray[np.bool_]:
    """(size, size): pixels of which the shapes cover at least half."""
    image = Image.new("L", (size * SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        draw.polygon((shape.points * SUPERSAMPLING).ravel().tolist(), fill=255)
    return np.asarray(image.reduce(SUPERSAMPLING)) >= 128


def tight_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """The smallest box (x1, y1, x2, y2) around a mask (H, W); None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


# ---------------------------------------------------------------- outlines around the origin


def ellipse(width: float, height: float, corners: int = 18) -> Points:
    """An ellipse with the given diameters."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angle) * width / 2, np.sin(angle) * height / 2], axis=1)


def quad(x1: float, y1: float, x2: float, y2: float) -> Points:
    """A rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def star(radius: float, tips: int, inner: float) -> Points:
    """A star, or with `inner` 1 a regular polygon of 2 * tips corners; `inner` is relative to `radius`."""
    angle = np.arange(2 * tips) * (np.pi / tips) - np.pi / 2
    length = np.where(np.arange(2 * tips) % 2 == 0, radius, radius * inner)
    return np.stack([np.cos(angle) * length, np.sin(angle) * length], axis=1)


def petal(length: float, width: float, pointed: float) -> Points:
    """A petal or leaf from the origin along +x; `pointed` 0 is round, 1 has a tip."""
    t = np.linspace(0, np.pi, 9)
    upper = np.stack([(1 - np.cos(t)) / 2 * length, np.sin(t) ** (1 + pointed) * width / 2], axis=1)
    return np.concatenate([upper, upper[-2:0:-1] * (1, -1)])


def blob(rng: np.random.Generator, width: float, height: float, roughness: float) -> Points:
    """An irregular round outline."""
    points = ellipse(width, height, 20)
    return points * (1 + roughness * rng.uniform(-1, 1, (len(points), 1)))


def ribbon(line: Points, widths: float | NDArray[np.float64]) -> Points:
    """A band along a polyline (N, 2) with the given full width(s)."""
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(
        np.linalg.norm(along, axis=1, keepdims=True), 1e-9
    )
    half = np.broadcast_to(np.asarray(widths, dtype=np.float64), (len(line),))[:, None] / 2
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def move(points: Points, x: float = 0, y: float = 0, *, angle: float = 0) -> Points:
    """Turn by `angle` (radians, clockwise on screen) about the origin, then shift."""
    if angle:
        cos, sin = np.cos(angle), np.sin(angle)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(points + np.array([x, y]))


def move_all(shapes: Sequence[Shape], x: float, y: float, *, angle: float = 0) -> list[Shape]:
    """`move` for shapes."""
    return [replace(shape, points=move(shape.points, x, y, angle=angle)) for shape in shapes]


def shade(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 14) -> Colour:
    """A colour near `colour`."""
    red, green, blue = np.asarray(colour) + rng.uniform(-amount, amount, 3)
    return (float(red), float(green), float(blue))
