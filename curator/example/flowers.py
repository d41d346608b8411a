"""Flowers after VEBI's an8Flower (Oramas, Wang, Tuytelaars, ICLR 2019): the class is a colour on one part.

In: a random generator and a height. Out: polygons of the parts "blossom" (petals and heart) and "stem" (stalk
and leaves). The part that the class names bears its colour; the other part is white or green.
"""

from __future__ import annotations

import numpy as np

from curator.example.shapes import Colour, Shape, ellipse, jitter, move, petal, ribbon, shade

COLOURS: dict[str, Colour] = {"red": (208, 38, 42), "yellow": (236, 200, 36), "violet": (138, 62, 192)}
PARTS = ("blossom", "stem")
CLASSES = tuple(f"{colour}-{part}" for part in PARTS for colour in COLOURS)

_WHITES: tuple[Colour, ...] = ((238, 236, 228), (226, 230, 238), (240, 226, 222))
_GREENS: tuple[Colour, ...] = ((58, 128, 52), (40, 104, 60), (84, 140, 48))
_HEARTS: tuple[Colour, ...] = ((96, 62, 30), (70, 52, 44), (58, 70, 34))


def flower(rng: np.random.Generator, category: str, height: float) -> list[Shape]:
    """Draw a flower of class `category`, its foot at the origin, about `height` px tall (y points down)."""
    colour_name, part = category.split("-")
    colour = jitter(rng, COLOURS[colour_name])
    petals = colour if part == "blossom" else jitter(rng, _WHITES[rng.integers(len(_WHITES))], 8)
    stem = colour if part == "stem" else jitter(rng, _GREENS[rng.integers(len(_GREENS))], 10)
    radius = height * rng.uniform(0.20, 0.26)
    length = height - radius
    lean, bend = rng.uniform(-0.16, 0.16) * length, rng.uniform(-0.10, 0.10) * length
    t = np.linspace(0, 1, 8)[:, None]
    line = np.concatenate([lean * t + bend * np.sin(np.pi * t), -length * t], axis=1)
    shapes = [Shape(ribbon(line, height * rng.uniform(0.055, 0.08)), stem, "stem")]
    side = rng.choice((-1, 1))
    for number in range(int(rng.integers(2, 4))):
        place = line[int(rng.integers(1, 4)) + number]
        tilt = -np.pi / 2 + side * rng.uniform(0.6, 1.25)
        leaf = petal(height * rng.uniform(0.20, 0.30), height * rng.uniform(0.09, 0.14), 0.6)
        shapes.append(Shape(move(leaf, *place, angle=tilt), shade(stem, rng.uniform(0.84, 1.1)), "stem"))
        side = -side
    return shapes + _blossom(rng, petals, radius, line[-1])


def _blossom(rng: np.random.Generator, colour: Colour, radius: float, centre: np.ndarray) -> list[Shape]:
    count, start = int(rng.integers(5, 10)), rng.uniform(0, 2 * np.pi)
    pointed, squash = rng.uniform(0, 0.9), rng.uniform(0.75, 1.0)
    outline = petal(radius, radius * 2 * np.pi / count * rng.uniform(0.75, 1.0), pointed)
    shapes = []
    for number in range(count):
        points = move(outline, angle=start + 2 * np.pi * number / count) * (1, squash)
        shapes.append(
            Shape(
                points + centre,
                shade(colour, 0.86 + 0.2 * (number % 2) + rng.uniform(-0.04, 0.04)),
                "blossom",
            )
        )
    heart = radius * rng.uniform(0.45, 0.7)
    shapes.append(
        Shape(
            ellipse(heart, heart * squash, 12) + centre,
            jitter(rng, _HEARTS[rng.integers(len(_HEARTS))], 8),
            "blossom",
        )
    )
    return shapes
