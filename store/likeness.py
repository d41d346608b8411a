"""How unlike two pictures are: is one a copy of the other, or do they show other things?

In: two thumbnails (`store.appearance`). Out: a number, 0 for equal blocks. Up to the threshold (1 by default,
docs/decisions/0008) the two count as one picture: resized, encoded anew, brightened or cropped to 90%.

A copy differs a little everywhere, another object differs much in one place. So the largest difference of a
block counts, not the mean, after what a copy changes as a whole is taken out:

    f = gain * a + offset    fitted to b, the worst 30% of the blocks left out; none for pictures without
                             contrast, so that plain colours stay different
    u = |b - f| / (floor + share * range)     per block; range: of the 3 x 3 blocks around in f or b
    unlikeness = max u       over the blocks of luma and of the two colour differences

Brightening cuts off what gets whiter than white (Pillow, cameras): where a block of f may hold such pixels, b
may be darker by as much. a is the picture that needs the larger gain, so that the measure is symmetric.

Where the whole pictures do not lie on one another, the window of one that shows the other is sought: from
nine windows on, by steps that halve, for the least mean difference. A window is found to a fraction of a
block, so means of 2 x 2 blocks are compared then, with a larger share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from store.appearance import COLOUR, FULL, LUMA, WINDOWS, Doubles, Planes, Window, resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Of a block: `floor` in grey levels, and `share` of the range around it."""

    floor: float
    share: float


MEASURE = 1
"""Counts up when `unlikeness` gives other numbers: stored ones are then computed anew."""
ALIGNED = Tolerance(floor=16.0, share=0.15)
WINDOWED = Tolerance(floor=11.0, share=0.4)
LYING = 0.13
"""Whole pictures lie on one another, and what differs are objects, where 85% of the blocks differ by less
than this part of their tolerance."""
SAME, LIE_SHARE = 2, 0.85
"""Grey levels, and the share of blocks that differ by no more, from which on no brightness is fitted."""
_SEARCH = 32  # blocks a side, to search with
_STEPS = (1 / 32, 1 / 64, 1 / 128, 1 / 256)
_SMALLEST = 0.8  # side of a window
_CROPPED = 0.95  # area of a window above which it is no crop, but the whole picture, not quite in place
_WORTH = 0.75  # mean difference, in mean contrasts, of the best start from which a search is worth while
_STARTS = 3  # windows to start from
_REACH = 0.8  # of the range around, how far a block's pixels may lie from its mean
_CUT = 1.03  # gain from which a brightened picture may have lost its lightest pixels


def unlikeness(a: Planes, b: Planes) -> float:
    """How unlike two pictures are, whichever shows more of the scene; symmetric, to the last bit."""
    # Which of two needs the larger gain is a matter of rounding where they are mirror images.
    a, b = sorted((a, b), key=lambda planes: (planes.luma.tobytes(), planes.colour.tobytes()))
    whole, lying = _compare(a, b, FULL, ALIGNED)
    if lying:
        return whole
    return min(whole, _windowed(a, b), _windowed(b, a))


def _windowed(a: Planes, b: Planes) -> float:
    """Unlikeness of `b` and the part of `a` that shows it; infinite where that is all of `a`."""
    window = find_window(a, b)
    if window is None:
        return float("inf")
    top, bottom, left, right = window
    if (bottom - top) * (right - left) > _CROPPED:
        return float("inf")
    return _compare(a, b, window, WINDOWED)[0]


def _compare(a: Planes, b: Planes, window: Window, tolerance: Tolerance) -> tuple[float, bool]:
    """(unlikeness of `b` and the window of `a`, do most blocks differ next to nothing)."""
    dark, light = Planes(_shown(a.luma, window, LUMA), _shown(a.colour, window, COLOUR)), b
    gain, offset = fit_brightness(dark.luma, light.luma)
    back = fit_brightness(light.luma, dark.luma)
    if (back[0], light.luma.mean()) > (gain, dark.luma.mean()):
        dark, light = light, dark
        gain, offset = back
    luma, colour = gain * dark.luma + offset, gain * dark.colour
    range_luma = np.maximum(block_range(luma), block_range(light.luma))
    range_colour = np.maximum(block_range(colour), block_range(light.colour))
    slack = np.zeros_like(luma)
    if gain > _CUT or abs(offset) > 255 * (_CUT - 1):
        slack = _cut_off(luma, colour, range_luma)
        luma = np.clip(luma, 0, 255)
    slack_colour = slack.reshape(COLOUR, LUMA // COLOUR, COLOUR, LUMA // COLOUR).max((1, 3))
    left = _beyond(light.luma - luma, slack)
    left_colour = _beyond(light.colour - colour, slack_colour[..., None])
    if window != FULL:
        left, left_colour = _mean4(left), _mean4(left_colour)
        range_luma, range_colour = _mean4(range_luma), _mean4(range_colour)
    out = np.abs(left) / (tolerance.floor + tolerance.share * range_luma)
    out_colour = np.abs(left_colour) / (tolerance.floor + tolerance.share * range_colour)
    return float(max(out.max(), out_colour.max())), _quantile(out.ravel(), LIE_SHARE) <= LYING


def _cut_off(luma: Doubles, colour: Doubles, spread: Doubles) -> Doubles:
    """(LUMA, LUMA) by how much black and white may have cut a block's channels, in grey levels."""
    blue, red = np.moveaxis(colour.repeat(LUMA // COLOUR, 0).repeat(LUMA // COLOUR, 1), -1, 0)
    channels = np.stack([luma + 1.402 * red, luma - 0.344 * blue - 0.714 * red, luma + 1.772 * blue])
    above = channels.max(0) + _REACH * spread - 255
    below = _REACH * spread - channels.min(0)
    return np.asarray(np.maximum(0, np.maximum(above, below)))


def _beyond(difference: Doubles, slack: Doubles) -> Doubles:
    return np.asarray(np.sign(difference) * np.maximum(0, np.abs(difference) - slack))


def fit_brightness(a: Doubles, b: Doubles) -> tuple[float, float]:
    """(gain, offset) of the one change of grey levels from `a` to `b`, whatever a few blocks show."""
    if float((np.abs(a - b) <= SAME).mean()) >= LIE_SHARE:
        return 1.0, 0.0
    inside = (a > 4) & (a < 251) & (b > 4) & (b < 251)
    x, y = a[inside], b[inside]
    if len(x) < 0.02 * a.size:
        return 1.0, 0.0
    gain, offset = 1.0, 0.0
    kept = np.ones(len(x), dtype=bool)
    for _ in range(6):
        p, q = x[kept], y[kept]
        mean_p, mean_q = float(p.sum()) / len(p), float(q.sum()) / len(q)
        p, q = p - mean_p, q - mean_q
        variance = float(p @ p) / len(p)
        if variance < 9 or float(q @ q) / len(q) < 9:
            return 1.0, 0.0
        gain = min(max(float(p @ q) / len(p) / variance, 0.5), 2.0)
        offset = mean_q - gain * mean_p
        error = np.abs(gain * x + offset - y)
        before, kept = kept, error <= max(_quantile(error, 0.7), 1.0)
        if np.array_equal(before, kept):
            break
    return gain, offset


def _quantile(values: Doubles, share: float) -> float:
    """`np.quantile` of many values that are all numbers, in a fifth of its time."""
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    ordered = np.partition(values, (low, high))
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


def find_window(a: Planes, b: Planes) -> Window | None:
    """The window of `a` whose grey blocks, of equal mean and contrast, differ least from `b`'s; None where no
    start comes near (a crop to 90% starts below .71, two of three other pairs above .9)."""
    own, other = (
        plane.reshape(_SEARCH, LUMA // _SEARCH, _SEARCH, LUMA // _SEARCH).mean((1, 3))
        for plane in (a.luma, b.luma)
    )
    other = (other - other.mean()).ravel()
    size = _SEARCH * _SEARCH
    contrast = math.sqrt(float(other @ other) / size)

    @cache
    def rows_of(top: float, bottom: float) -> Doubles:
        return np.asarray(resampling(top, bottom, _SEARCH, _SEARCH) @ own)

    @cache  # a search comes back to where it was: four of ten windows are asked for again
    def cost(window: Window) -> float:
        top, bottom, left, right = window
        shown = (rows_of(top, bottom) @ resampling(left, right, _SEARCH, _SEARCH).T).ravel()
        shown = shown - float(shown.sum()) / size
        scale = contrast / max(math.sqrt(float(shown @ shown) / size), 1e-6)
        shown *= scale
        shown -= other
        return float(np.abs(shown).sum()) / size

    starts = sorted((cost(window), window) for window in WINDOWS[1:])[:_STARTS]
    if starts[0][0] > _WORTH * float(np.abs(other).sum()) / size:
        return None
    return min(_descend(cost, window, value) for value, window in starts)[1]


def _descend(cost: Callable[[Window], float], window: Window, value: float) -> tuple[float, Window]:
    """Move one side at a time while that helps, by steps that halve."""
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for side in range(4):
                for way in (-step, step):
                    top, bottom, left, right = (
                        edge + way * (number == side) for number, edge in enumerate(window)
                    )
                    if min(top, left) < 0 or max(bottom, right) > 1:
                        continue
                    if min(bottom - top, right - left) < _SMALLEST:
                        continue
                    found = cost((top, bottom, left, right))
                    if found < value - 1e-9:
                        window, value, moved = (top, bottom, left, right), found, True
    return value, window


def _shown(plane: Doubles, window: Window, count: int) -> Doubles:
    """What a window of the plane shows, in count x count blocks."""
    if window == FULL:
        return plane
    top, bottom, left, right = window
    rows = resampling(top, bottom, count, plane.shape[0])
    columns = resampling(left, right, count, plane.shape[1])
    if plane.ndim == 2:
        return np.asarray(rows @ plane @ columns.T)
    return np.stack([rows @ plane[..., c] @ columns.T for c in range(plane.shape[2])], axis=-1)


def block_range(plane: Doubles) -> Doubles:
    """Largest minus smallest of the 3 x 3 blocks around each."""
    padded = np.pad(plane, [(1, 1), (1, 1)] + [(0, 0)] * (plane.ndim - 2), mode="edge")
    rows = [padded[:-2], padded[1:-1], padded[2:]]
    high, low = np.maximum.reduce(rows), np.minimum.reduce(rows)
    high = np.maximum.reduce([high[:, :-2], high[:, 1:-1], high[:, 2:]])
    low = np.minimum.reduce([low[:, :-2], low[:, 1:-1], low[:, 2:]])
    return np.asarray(high - low)


def _mean4(plane: Doubles) -> Doubles:
    return np.asarray((plane[:-1, :-1] + plane[1:, :-1] + plane[:-1, 1:] + plane[1:, 1:]) / 4)
