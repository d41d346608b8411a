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
the whole and nine windows on, by steps that halve, for the least mean difference. A window may reach a
sixteenth beyond its picture, which was moved then; what both show is compared. A window is found to a
fraction of a block, so means of 2 x 2 blocks are compared, with a larger share; where it is no crop but
nearly all of the picture, `_NEARLY` times as strictly and both ways, which must agree: frames of a camera
that shakes differ in objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from store.appearance import COLOUR, LUMA, WINDOWS, Doubles, Planes, Window, resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Of a block: `floor` in grey levels, and `share` of the range around it."""

    floor: float
    share: float


MEASURE = 2
"""Counts up when `unlikeness` gives other numbers: stored ones are then computed anew."""
ALIGNED = Tolerance(floor=16.0, share=0.15)
WINDOWED = Tolerance(floor=11.0, share=0.4)
LYING = 0.13
"""Whole pictures lie on one another, and what differs are objects, where 85% of the blocks differ by less
than this part of their tolerance."""
SAME, LIE_SHARE = 2, 0.85
"""Grey levels, and the share of blocks that differ by no more, from which on no brightness is fitted."""
_SEARCH = 32  # blocks a side, to search with
_STEPS = (1 / 32, 1 / 64, 1 / 128, 1 / 256, 1 / 512)
_MOVES = ((0,), (1,), (2,), (3,), (0, 1), (2, 3))  # sides of a window that move together
_PAD = 4  # blocks that a window may reach beyond the picture
_SMALLEST = 0.8  # side of a window
_CROPPED = 0.95  # area of a window above which it is no crop, but the whole picture, not quite in place
_NEARLY = 1.55
_WORTH = 0.75  # mean difference, in mean contrasts, of the best start from which a search is worth while
_STARTS = 3  # windows to start from
_REACH = 0.8  # of the range around, how far a block's pixels may lie from its mean
_CUT = 1.03  # gain from which a brightened picture may have lost its lightest pixels


def unlikeness(a: Planes, b: Planes) -> float:
    """How unlike two pictures are, whichever shows more of the scene; symmetric, to the last bit."""
    # Which of two needs the larger gain is a matter of rounding where they are mirror images.
    a, b = sorted((a, b), key=lambda planes: (planes.luma.tobytes(), planes.colour.tobytes()))
    whole, lying = _compare(a, b, ALIGNED)
    if lying:
        return whole
    (one, nearly), (other, too) = _windowed(a, b), _windowed(b, a)
    return min(whole, max(one, other) if nearly and too else min(one, other))


def in_place(a: Planes, b: Planes) -> float:
    """How unlike two pictures are, as they lie on one another: no window of either is sought."""
    a, b = sorted((a, b), key=lambda planes: (planes.luma.tobytes(), planes.colour.tobytes()))
    return _compare(a, b, ALIGNED)[0]


def _windowed(a: Planes, b: Planes) -> tuple[float, bool]:
    """(unlikeness of what `b` and a window of `a` both show, is that no crop but nearly all of the picture);
    infinite where no window comes near."""
    window = find_window(a, b)
    if window is None:
        return float("inf"), False
    top, bottom, left, right = window
    rows, columns = _inside(top, bottom, LUMA, 2), _inside(left, right, LUMA, 2)
    of_colour = tuple(slice(part.start // 2, part.stop // 2) for part in (rows, columns))
    shown = Planes(
        _shown(_padded(a.luma, _PAD), window, LUMA)[rows, columns],
        _shown(_padded(a.colour, _PAD // 2), window, COLOUR)[of_colour],
    )
    found = _compare(shown, Planes(b.luma[rows, columns], b.colour[of_colour]), WINDOWED)[0]
    seen = max(0.0, min(bottom, 1) - max(top, 0)) * max(0.0, min(right, 1) - max(left, 0))
    moved = min(top, left) < 0 or max(bottom, right) > 1
    nearly = moved or seen > _CROPPED
    return found * _NEARLY if nearly else found, nearly


def _compare(a: Planes, b: Planes, tolerance: Tolerance) -> tuple[float, bool]:
    """(unlikeness of two planes of one size, do most blocks differ next to nothing)."""
    dark, light = a, b
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
    height, width = colour.shape[:2]
    slack_colour = slack.reshape(height, LUMA // COLOUR, width, LUMA // COLOUR).max((1, 3))
    left = _beyond(light.luma - luma, slack)
    left_colour = _beyond(light.colour - colour, slack_colour[..., None])
    if tolerance is WINDOWED:
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
    start comes near (a crop to 90% starts below .71, two of three other pairs above .9). Where it reaches
    beyond `a`, what lies inside is compared."""
    half = (LUMA + 2 * _PAD) // 2
    own = _padded(a.luma, _PAD).reshape(half, 2, half, 2).mean((1, 3))
    other = b.luma.reshape(_SEARCH, LUMA // _SEARCH, _SEARCH, LUMA // _SEARCH).mean((1, 3))

    @cache
    def matrix(low: float, high: float) -> Doubles:
        return resampling(*_of_padded(low, high), _SEARCH, half)

    @cache
    def rows_of(top: float, bottom: float) -> Doubles:
        return np.asarray(matrix(top, bottom) @ own)

    @cache
    def wanted(top: int, bottom: int, left: int, right: int) -> tuple[Doubles, float, float]:
        """A part of `b` about its mean, its contrast, its mean difference from the mean."""
        part = other[top:bottom, left:right].ravel()
        part = part - float(part.sum()) / part.size
        return part, math.sqrt(float(part @ part) / part.size), float(np.abs(part).sum()) / part.size

    @cache  # a search comes back to where it was: four of ten windows are asked for again
    def cost(window: Window) -> float:
        """Mean difference over that of `b` from its mean."""
        top, bottom, left, right = window
        rows, columns = _inside(top, bottom, _SEARCH), _inside(left, right, _SEARCH)
        part, contrast, spread = wanted(rows.start, rows.stop, columns.start, columns.stop)
        shown = (rows_of(top, bottom)[rows] @ matrix(left, right)[columns].T).ravel()
        shown = shown - float(shown.sum()) / shown.size
        scale = contrast / max(math.sqrt(float(shown @ shown) / shown.size), 1e-6)
        shown *= scale
        shown -= part
        return float(np.abs(shown).sum()) / shown.size / max(spread, 1e-6)

    starts = sorted((cost(window), window) for window in WINDOWS)[:_STARTS]
    if starts[0][0] > _WORTH:
        return None
    return min(_descend(cost, window, value) for value, window in starts)[1]


def _descend(cost: Callable[[Window], float], window: Window, value: float) -> tuple[float, Window]:
    """Move one side or two while that helps, by steps that halve."""
    beyond = _PAD / LUMA
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for sides in _MOVES:
                for way in (-step, step):
                    top, bottom, left, right = (
                        edge + way * (number in sides) for number, edge in enumerate(window)
                    )
                    if min(top, left) < -beyond or max(bottom, right) > 1 + beyond:
                        continue
                    if not all(_SMALLEST <= side <= 1 + beyond for side in (bottom - top, right - left)):
                        continue
                    found = cost((top, bottom, left, right))
                    if found < value - 1e-9:
                        window, value, moved = (top, bottom, left, right), found, True
    return value, window


def _padded(plane: Doubles, blocks: int) -> Doubles:
    """The plane with its edges repeated, so that a window may reach beyond it."""
    sides = [(blocks, blocks), (blocks, blocks)] + [(0, 0)] * (plane.ndim - 2)
    return np.pad(plane, sides, mode="edge")


def _of_padded(low: float, high: float) -> tuple[float, float]:
    """A stretch of a side in parts of the padded side."""
    beyond = _PAD / LUMA
    return (low + beyond) / (1 + 2 * beyond), (high + beyond) / (1 + 2 * beyond)


def _inside(low: float, high: float, count: int, together: int = 1) -> slice:
    """Those of `count` blocks of the stretch [low, high] that lie in [0, 1], in groups of `together`."""
    step = (high - low) / count
    first = max(0, math.ceil(-low / step - 1e-9))
    last = min(count, math.floor((1 - low) / step + 1e-9))
    return slice(-(-first // together) * together, last // together * together)


def _shown(plane: Doubles, window: Window, count: int) -> Doubles:
    """What a window of a padded plane shows, in count x count blocks."""
    top, bottom, left, right = window
    rows = resampling(*_of_padded(top, bottom), count, plane.shape[0])
    columns = resampling(*_of_padded(left, right), count, plane.shape[1])
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
