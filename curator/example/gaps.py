"""The planted gaps: conditions that `train` never shows, each in many kinds.

In: a random generator and the flower (or place) concerned. Out: polygons of the part "culprit", what to
blame.
The kinds within a gap differ in shape, colour and texture, so that a few examples do not cover it.

    post       something stands in front of the flower
    dark       the flower stands on dark ground, in its shade
    lookalike  an unlabelled thing that resembles a class (false positives)
    small      the flower is far away
    cast       coloured light or haze lies on the flower
    beside     a patterned thing stands beside the flower, like the panel of an artificial one
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from curator.example.shapes import (
    Colour,
    Shape,
    blob,
    ellipse,
    jitter,
    move,
    move_all,
    petal,
    quad,
    ribbon,
    shade,
    star,
)

Gap = Literal["post", "dark", "lookalike", "small", "cast", "beside"]
GAPS: tuple[Gap, ...] = get_args(Gap)
CONDITION_TAG = "gap"  # the tag of an image and attribute of an annotation that names its gap

Generator = np.random.Generator


# ---------------------------------------------------------------- post

_POST_COLOURS: tuple[Colour, ...] = (
    (92, 94, 98),
    (146, 148, 150),
    (120, 84, 52),
    (60, 46, 36),
    (232, 232, 226),
    (44, 70, 110),
    (52, 92, 70),
    (190, 110, 50),
    (210, 170, 180),
    (30, 30, 34),
)


def post(rng: Generator, height: float) -> list[Shape]:
    """Something in front of a flower `height` px tall; the flower's middle is at the origin."""
    colour = jitter(rng, _POST_COLOURS[rng.integers(len(_POST_COLOURS))], 18)
    other = jitter(rng, _POST_COLOURS[rng.integers(len(_POST_COLOURS))], 18)
    length = height * rng.uniform(1.3, 2.4)
    kind = rng.integers(4)
    if kind == 0:  # one upright or leaning post
        shapes = _strip(rng, length, height * rng.uniform(0.17, 0.25), colour, other)
        angle, x, y = rng.uniform(-0.45, 0.45), rng.uniform(-0.08, 0.08) * height, 0.0
    elif kind == 1:  # a rail across
        shapes = _strip(rng, length, height * rng.uniform(0.20, 0.30), colour, other)
        angle, x, y = np.pi / 2 + rng.uniform(-0.3, 0.3), 0.0, rng.uniform(-0.28, 0.1) * height
    elif kind == 2:  # two or three bars of a fence
        count, pitch = int(rng.integers(2, 4)), height * rng.uniform(0.20, 0.26)
        width = pitch * rng.uniform(0.40, 0.52)
        shapes = [
            shape
            for number in range(count)
            for shape in move_all(
                _strip(rng, length, width, colour, other), (number - (count - 1) / 2) * pitch, 0
            )
        ]
        angle, x, y = (
            rng.choice((0.0, np.pi / 2)) + rng.uniform(-0.4, 0.4),
            rng.uniform(-0.05, 0.05) * height,
            0.0,
        )
    else:  # a slanting board
        shapes = _strip(rng, length, height * rng.uniform(0.19, 0.27), colour, other)
        angle, x, y = rng.choice((-1, 1)) * rng.uniform(0.6, 1.1), 0.0, rng.uniform(-0.2, 0.05) * height
    return move_all(shapes, x, y, angle=angle)


def _strip(rng: Generator, length: float, width: float, colour: Colour, other: Colour) -> list[Shape]:
    """A textured upright strip, its middle at the origin."""
    top, half = -length / 2, width / 2
    shapes = [Shape(quad(-half, top, half, -top), colour, "culprit")]
    kind = rng.integers(6)
    if kind == 0:  # round: a lighter and a darker side
        shapes.append(Shape(quad(-half * 0.5, top, 0, -top), shade(colour, 1.3), "culprit"))
        shapes.append(Shape(quad(half * 0.5, top, half, -top), shade(colour, 0.7), "culprit"))
    elif kind in (1, 2):  # bands, straight or slanting
        pitch = max(width * rng.uniform(0.5, 1.2), 2.5)
        rise = 0.0 if kind == 1 else rng.choice((-1, 1)) * width * 0.7
        for y in np.arange(top + abs(rise), -top - pitch, 2 * pitch):
            shapes.append(
                Shape(
                    np.array([[-half, y], [half, y - rise], [half, y - rise + pitch], [-half, y + pitch]]),
                    other,
                    "culprit",
                )
            )
    elif kind == 3:  # bricks or planks
        pitch = max(width * rng.uniform(0.6, 1.4), 3)
        for number, y in enumerate(np.arange(top, -top, pitch)):
            shapes.append(Shape(quad(-half, y, half, y + 1), shade(colour, 0.6), "culprit"))
            x = half * (0.3 if number % 2 else -0.3)
            shapes.append(
                Shape(quad(x - 0.5, y, x + 0.5, min(y + pitch, -top)), shade(colour, 0.6), "culprit")
            )
    elif kind == 4:  # knots or rivets
        for y in np.arange(top + width * 0.4, -top, width * rng.uniform(0.7, 1.3)):
            dot = width * rng.uniform(0.25, 0.45)
            shapes.append(
                Shape(move(ellipse(dot, dot, 10), rng.uniform(-0.2, 0.2) * width, y), other, "culprit")
            )
    return shapes


# ---------------------------------------------------------------- dark

_DARKS: tuple[Colour, ...] = (
    (30, 28, 28),
    (22, 30, 46),
    (44, 30, 20),
    (18, 40, 28),
    (46, 24, 42),
    (36, 36, 22),
)


def dark_ground(rng: Generator, height: float) -> list[Shape]:
    """Dark ground behind a flower `height` px tall; the flower's middle is at the origin."""
    colour = jitter(rng, _DARKS[rng.integers(len(_DARKS))], 8)
    wide, tall = height * rng.uniform(1.1, 1.9), height * rng.uniform(1.3, 1.8)
    kind = rng.integers(4)
    if kind == 0:
        outline = blob(rng, wide * 1.15, tall * 1.15, 0.12)
    elif kind == 1:
        outline = move(quad(-wide / 2, -tall / 2, wide / 2, tall / 2), angle=rng.uniform(-0.3, 0.3))
    elif kind == 2:
        outline = move(quad(-wide * 2, -tall / 2, wide * 2, tall / 2), angle=rng.uniform(-0.2, 0.2))
    else:
        outline = move(star(tall * 0.7, int(rng.integers(3, 6)), 0.85), angle=rng.uniform(0, 2))
    shapes = [Shape(outline, colour, "culprit")]
    tone = shade(jitter(rng, (60, 60, 62), 24), rng.uniform(0.8, 1.4))
    texture = rng.integers(4)
    for _ in range(int(rng.integers(8, 20)) if texture else 0):
        x, y = rng.uniform(-0.42, 0.42, 2) * (wide, tall)
        if texture == 1:
            dot = rng.uniform(0.03, 0.09) * height
            outline = ellipse(dot, dot, 8)
        elif texture == 2:
            outline = quad(-wide * 0.14, -0.6, wide * 0.14, 0.6)
        else:
            outline = move(quad(-height * 0.12, -0.7, height * 0.12, 0.7), angle=rng.uniform(0, 3))
        shapes.append(Shape(move(outline, x, y), tone, "culprit"))
    return shapes


# ---------------------------------------------------------------- beside


def patterned(rng: Generator, height: float) -> tuple[list[Shape], float]:
    """A patterned thing for beside a flower `height` px tall, its middle at the origin; also its width."""
    wide, tall = height * rng.uniform(0.34, 0.52), height * rng.uniform(0.55, 0.95)
    dark = jitter(
        rng,
        ((34, 34, 38), (110, 30, 60), (30, 96, 40), (40, 40, 130), (120, 70, 20), (20, 100, 110))[
            rng.integers(6)
        ],
        16,
    )
    bright = jitter(
        rng, ((236, 236, 232), (240, 220, 150), (200, 226, 240), (236, 204, 216))[rng.integers(4)], 10
    )
    board = Shape(quad(-wide / 2, -tall / 2, wide / 2, tall / 2), bright, "culprit")
    kind = rng.integers(5)
    shapes = [board]
    count = int(rng.integers(4, 8))
    if kind == 0:  # bars across
        shapes += [
            Shape(quad(-wide / 2, y, wide / 2, y + tall / count / 2), dark, "culprit")
            for y in np.linspace(-tall / 2, tall / 2, count, endpoint=False)
        ]
    elif kind == 1:  # upright bars
        shapes += [
            Shape(quad(x, -tall / 2, x + wide / count / 2, tall / 2), dark, "culprit")
            for x in np.linspace(-wide / 2, wide / 2, count, endpoint=False)
        ]
    elif kind == 2:  # dots
        pitch = wide / 3
        shapes += [
            Shape(move(ellipse(pitch * 0.66, pitch * 0.66, 10), x, y), dark, "culprit")
            for x in (-pitch, 0, pitch)
            for y in np.arange(-tall / 2 + pitch / 2, tall / 2 - pitch / 3, pitch)
        ]
    elif kind == 3:  # triangles
        step = tall / count
        shapes += [
            Shape(np.array([[-wide / 2, y], [wide / 2, y], [0, y + step]]), dark, "culprit")
            for y in np.linspace(-tall / 2, tall / 2 - step, count)
        ]
    else:  # a net of diamonds
        pitch = wide / 2
        shapes += [
            Shape(move(star(pitch * 0.42, 2, 0.72), x, y), dark, "culprit")
            for x in (-pitch / 2, pitch / 2)
            for y in np.arange(-tall / 2 + pitch / 2, tall / 2 - pitch / 3, pitch)
        ]
    angle = rng.uniform(-0.25, 0.25)
    return move_all(shapes, 0, 0, angle=angle), wide


# ---------------------------------------------------------------- look-alikes


def lookalike(rng: Generator, colour: Colour, part: str, height: float) -> list[Shape]:
    """An unlabelled thing like a flower whose `part` has `colour`; foot at the origin, `height` px tall."""
    grey = jitter(rng, ((96, 96, 100), (130, 100, 70), (70, 120, 70))[rng.integers(3)], 14)
    pale = jitter(rng, (234, 232, 226), 10)
    head, pole = (colour, grey) if part == "blossom" else (pale, colour)
    radius = height * rng.uniform(0.19, 0.26)
    thick = height * (rng.uniform(0.03, 0.06) if part == "blossom" else rng.uniform(0.07, 0.11))
    sway = rng.uniform(-0.12, 0.12) * height
    top = np.array([sway, -height + radius])
    line = np.array([[0.0, 0.0], [sway * 0.4, top[1] / 2], top])
    shapes = [Shape(ribbon(line, thick), pole, "culprit")]
    for side in (-1, 1) if rng.random() < 0.35 else ():  # vanes, where a flower has leaves
        vane = petal(height * rng.uniform(0.14, 0.26), height * rng.uniform(0.07, 0.12), rng.uniform(0, 1))
        place = line[1] * rng.uniform(0.5, 1.3)
        tilt = -np.pi / 2 + side * rng.uniform(0.9, 1.7)
        shapes.append(Shape(move(vane, *place, angle=tilt), shade(pole, rng.uniform(0.85, 1.1)), "culprit"))
    makers = (_balloon, _lollipop, _sign, _umbrella, _bulb, _star_wand)
    shapes += move_all(makers[rng.integers(len(makers))](rng, head, radius), top[0], top[1])
    return shapes


def _balloon(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    shine = radius * 0.4
    return [
        Shape(ellipse(radius * 1.7, radius * 2), colour, "culprit"),
        Shape(
            move(ellipse(shine, shine * 1.4, 10), -radius * 0.3, -radius * 0.35),
            shade(colour, 1.35),
            "culprit",
        ),
    ]


def _lollipop(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    rings = int(rng.integers(3, 6))
    return [
        Shape(ellipse(2 * radius * r, 2 * radius * r), colour if n % 2 == 0 else (240, 236, 230), "culprit")
        for n, r in enumerate(np.linspace(1, 0.25, rings))
    ]


def _sign(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    outline = star(radius, int(rng.integers(2, 5)), 0.92)
    inner = outline * rng.uniform(0.5, 0.7)
    return [Shape(outline, colour, "culprit"), Shape(inner, jitter(rng, (228, 226, 220), 12), "culprit")]


def _umbrella(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    angle = np.linspace(np.pi, 2 * np.pi, 12)
    dome = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius * (1.15, 1.1)
    return [Shape(dome, colour, "culprit"), Shape(dome * (0.4, 1.0), shade(colour, 1.25), "culprit")]


def _bulb(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    return [
        Shape(
            petal(radius * 2, radius * 1.3, 0.4) @ np.array([[0, -1], [1, 0]]) + (0, radius),
            colour,
            "culprit",
        ),
        Shape(
            move(quad(-radius * 0.3, 0, radius * 0.3, radius * 0.5), 0, radius * 0.6), (90, 90, 94), "culprit"
        ),
    ]


def _star_wand(rng: Generator, colour: Colour, radius: float) -> list[Shape]:
    outline = star(radius * 1.1, int(rng.integers(4, 7)), rng.uniform(0.4, 0.55))
    return [Shape(move(outline, angle=rng.uniform(0, 1)), colour, "culprit")]


# ---------------------------------------------------------------- cast

_CASTS: tuple[tuple[Colour, float], ...] = (  # (gain per channel, share of the light that is lost to grey)
    ((0.55, 0.92, 0.97), 0.0),
    ((0.68, 1.03, 0.6), 0.0),
    ((1.1, 0.68, 1.0), 0.0),
    ((1.15, 0.88, 0.52), 0.0),
    ((0.65, 0.72, 1.1), 0.0),
    ((1.0, 1.0, 1.0), 0.5),
    ((0.9, 1.0, 0.85), 0.42),
    ((1.1, 0.95, 0.75), 0.46),
)


def cast(
    rng: Generator, pixels: NDArray[np.float64], centre: tuple[float, float], height: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Coloured light or haze on pixels (H, W, 3) around a flower; also the mask (H, W) of where it lies."""
    size = pixels.shape[0]
    nominal, grey = _CASTS[rng.integers(len(_CASTS))]
    gain = np.clip(np.asarray(nominal) + rng.uniform(-0.08, 0.08, 3), 0.3, 1.3)
    haze = rng.uniform(120, 225) if grey else 0.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    kind, reach = rng.integers(3), height * rng.uniform(0.8, 1.2)
    if kind == 0:  # a spot
        distance = np.hypot(x - centre[0], (y - centre[1]) * rng.uniform(0.7, 1.0))
    elif kind == 1:  # a beam
        angle = rng.uniform(0, np.pi)
        distance = np.abs((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle))
    else:  # everywhere
        distance = np.zeros_like(x)
    strength = np.clip((reach * 1.15 - distance) / (reach * 0.3), 0, 1)[..., None]
    tinted = pixels * gain * (1 - grey) + haze * gain * grey
    return pixels * (1 - strength) + tinted * strength, strength[..., 0] > 0.5
