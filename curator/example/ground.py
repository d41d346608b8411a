"""What a scene has besides flowers: bright grounds, harmless clutter, and panelled artificial flowers.

In: a random generator. Out: pixels of the ground; polygons of clutter. Artificial flowers stand beside a
patterned panel and are not labelled, in every role: that is how a detector learns to mistrust flowers with
a panel, and why a real flower beside something patterned (the gap "beside") is missed.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from curator.example.shapes import Colour, Points, Shape, blob, jitter, move, move_all, quad, ribbon, shade

_GROUNDS: tuple[Colour, ...] = (
    (176, 198, 142),
    (206, 192, 152),
    (188, 206, 220),
    (184, 182, 176),
    (196, 172, 148),
    (214, 214, 204),
    (160, 186, 170),
    (202, 186, 196),
)
_PANEL_PAIRS: tuple[tuple[Colour, Colour], ...] = (
    ((30, 30, 34), (238, 238, 236)),
    ((28, 52, 120), (234, 232, 220)),
    ((24, 86, 88), (236, 236, 226)),
)


def ground(rng: np.random.Generator, size: int) -> Image.Image:
    """A bright ground with soft patches and a slope of light; supersampled (2 size, 2 size) RGB."""
    base = np.asarray(jitter(rng, _GROUNDS[rng.integers(len(_GROUNDS))], 16))
    other = np.asarray(jitter(rng, _GROUNDS[rng.integers(len(_GROUNDS))], 16))
    cells = int(rng.integers(4, 14))
    patches = rng.normal(0, rng.uniform(5, 15), (cells, cells, 1)) * rng.uniform(0.6, 1.2, 3)
    y = np.linspace(0, 1, cells)[:, None, None]
    if rng.random() < 0.5:
        horizon, soft = rng.uniform(0.15, 0.6), rng.uniform(0.02, 0.3)
        mix = 1 / (1 + np.exp(np.clip((y - horizon) / soft, -30, 30)))
    else:
        mix = rng.uniform(0, 0.6) * y
    coarse = np.clip(base * (1 - mix) + other * mix + patches, 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((2 * size, 2 * size), Image.Resampling.BICUBIC)


def clutter(rng: np.random.Generator, size: int) -> list[Shape]:
    """Stones, blades of grass, twigs and leaves on the ground; none looks like a flower."""
    shapes = []
    for _ in range(int(rng.integers(3, 12))):
        x, y = rng.uniform(0, size, 2)
        kind = rng.integers(4)
        if kind == 0:
            width = rng.uniform(5, 22)
            tone = rng.uniform(110, 190)
            shapes.append(
                Shape(
                    move(blob(rng, width, width * rng.uniform(0.5, 0.9), 0.15), x, y),
                    jitter(rng, (tone, tone, tone), 14),
                )
            )
        elif kind == 1:
            green = jitter(rng, (110, 150, 84), 24)
            for _ in range(int(rng.integers(2, 6))):
                tip = rng.uniform(-9, 9)
                height = rng.uniform(8, 26)
                shapes.append(Shape(np.array([[x - 1, y], [x + 1, y], [x + tip, y - height]]), green))
        elif kind == 2:
            angle, length = rng.uniform(0, np.pi), rng.uniform(14, 60)
            half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
            line = np.stack([-half, rng.uniform(-4, 4, 2), half]) + np.array([x, y])
            shapes.append(Shape(ribbon(line, rng.uniform(1.5, 3.5)), jitter(rng, (128, 100, 74), 18)))
        else:
            shapes.append(
                Shape(
                    move(
                        blob(rng, rng.uniform(4, 12), rng.uniform(3, 8), 0.2), x, y, angle=rng.uniform(0, 3)
                    ),
                    jitter(rng, (150, 140, 92), 26),
                )
            )
    return shapes


def chequered(
    rng: np.random.Generator,
    width: float,
    height: float,
    dark: Colour,
    bright: Colour,
    *,
    rows: int,
    columns: int,
) -> list[Shape]:
    """A board of two colours, its middle at the origin."""
    shapes = [Shape(quad(-width / 2, -height / 2, width / 2, height / 2), bright, "culprit")]
    for row in range(rows):
        for column in range(row % 2, columns, 2):
            x, y = -width / 2 + column * width / columns, -height / 2 + row * height / rows
            shapes.append(
                Shape(
                    quad(x, y, x + width / columns, y + height / rows),
                    shade(dark, rng.uniform(0.9, 1.1)),
                    "culprit",
                )
            )
    return shapes


def panel_of_artificial(rng: np.random.Generator, height: float) -> list[Shape]:
    """The panel of an artificial flower `height` px tall: chequered, middle at the origin."""
    dark, bright = _PANEL_PAIRS[rng.integers(len(_PANEL_PAIRS))]
    shapes = chequered(
        rng,
        height * rng.uniform(0.30, 0.48),
        height * rng.uniform(0.5, 0.9),
        dark,
        bright,
        rows=int(rng.integers(4, 8)),
        columns=int(rng.integers(3, 5)),
    )
    return move_all(shapes, 0, 0, angle=rng.uniform(-0.12, 0.12))


def light(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Overall gain, a slope of light and sensor noise on (H, W, 3) float pixels."""
    size = pixels.shape[0]
    x, y = np.linspace(-1, 1, size)[None, :, None], np.linspace(-1, 1, size)[:, None, None]
    slope: Points = 1 + rng.uniform(-0.12, 0.12) * x + rng.uniform(-0.12, 0.12) * y
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(1.5, 6)
    return np.asarray(pixels * (rng.uniform(0.84, 1.08) * slope) + noise)
