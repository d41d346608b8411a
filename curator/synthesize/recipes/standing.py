"""Where an object could stand in a scene, as far as its labels tell.

In: an object with its image (`Exemplar`) and a labelled scene. Out: boxes in the scene, drawn at random:

    size      s(y) = exp of the kernel-weighted mean of log side over the class's objects of the scene and the
              object itself, at the height y of their feet; sides and heights in units of the image
    contact   its feet stay near the height in the image where they stood, half of the boxes very near; what
              its own image cut off stays at the image's border
    depth     it covers at most a fifth of any labelled object, and none that stands nearer

Which of them looks like a place for its class is another question: `curator.synthesize.context`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curator.boxes import area, clip, intersection
from curator.errors import StageError
from curator.synthesize.base import Exemplar, Scene

SIZES = (0.6, 1.6)
"""Of its own size relative to the image: the range in which its neighbours may set its size."""
LARGEST_ZOOM = 1.4
"""Of its pixels: beyond, it is visibly softer than its scene, and a scene is never blurred."""
OVERLAP = 0.2  # of either box
SMALLEST = 8.0  # pixels: shorter sides show nothing of a class
_KERNEL = 0.15  # of the image's height: objects whose feet are this far apart say little of each other
_OTHERS = 0.25  # weight of objects of other classes, where the scene has none of the class
_TRIES = 50  # per sway
SWAYS = (0.05, 0.2)  # of the image's height, standard deviation of the feet
Array = NDArray[np.float64]


def standing_places(
    exemplar: Exemplar, scene: Scene, own: Array, mirrored: bool, rng: np.random.Generator
) -> Array:
    """Boxes (N, 4) in the scene where the object in the box `own` could stand, at least one.

    Raises:
        StageError: there is none (says why).
    """
    (h, w), (height, width) = exemplar.image.shape[1:], scene.image.shape[1:]
    least = SIZES[0] * np.sqrt(width * height / (w * h))
    if least > LARGEST_ZOOM:
        raise StageError(
            f"scene {scene.image_id}: the object would be enlarged {least:.1f} times or more and blur"
        )
    taken = clip(np.asarray([a.box for a in scene.annotations]).reshape(-1, 4), width, height)
    boxes = np.concatenate([_tries(exemplar, scene, own, mirrored, sway, rng) for sway in SWAYS])
    both = intersection(boxes, taken)
    smaller = np.minimum(area(boxes)[:, None], area(taken)[None])
    behind = (boxes[:, None, 3] < taken[None, :, 3] - 2) & (both > 0.02 * smaller)
    free = ~((both > OVERLAP * smaller) | behind).any(axis=1)
    if free.any():
        return np.asarray(boxes[free])
    sides = own[2:] - own[:2]
    raise StageError(
        f"scene {scene.image_id}: no place that is free enough of labelled objects"
        if len(boxes)
        else f"scene {scene.image_id}: an object of {sides[0]:.0f} x {sides[1]:.0f} pixels does not fit in"
    )


def _tries(
    exemplar: Exemplar, scene: Scene, own: Array, mirrored: bool, sway: float, rng: np.random.Generator
) -> Array:
    """Boxes (N, 4) within the scene, of the right size for their height and at the borders of their own
    image; none may fit."""
    (h, w), (height, width) = exemplar.image.shape[1:], scene.image.shape[1:]
    sides = own[2:] - own[:2]
    left, top = own[:2] <= 1
    right, bottom = own[2:] >= np.array([w, h]) - 1
    if mirrored:
        left, right = right, left
    feet = own[3] / h + rng.normal(0, sway, _TRIES) * (not bottom)
    side = wanted_sides(feet, (own[3] / h, float(np.sqrt(sides.prod() / (w * h)))), exemplar, scene)
    zoom = side * rng.uniform(0.9, 1.1, _TRIES) * np.sqrt(width * height / sides.prod())
    extent = sides * np.minimum(zoom, LARGEST_ZOOM)[:, None]  # (N, 2)
    room = np.array([width, height]) - extent
    x1 = rng.uniform(0, 1, _TRIES) * room[:, 0]
    x1 = np.where(left, 0.0, np.where(right, room[:, 0], x1))
    y1 = np.where(bottom, room[:, 1], np.where(top, 0.0, feet * height - extent[:, 1]))
    fits = (room >= 0).all(1) & (y1 >= 0) & (y1 <= room[:, 1] + 0.5) & (extent.min(1) >= SMALLEST)
    boxes: Array = np.stack([x1, y1, x1 + extent[:, 0], y1 + extent[:, 1]], axis=1)[fits]
    return boxes


def wanted_sides(feet: Array, own: tuple[float, float], exemplar: Exemplar, scene: Scene) -> Array:
    """Side of the object, as a share of the square root of the scene's area, at each height of its feet.

    Args:
        feet: (N,) heights in units of the image. own: its feet and its side in its own image.
    Returns:
        (N,), between `SIZES` of its own.
    """
    height, width = scene.image.shape[1:]
    heights, sides, weights = [own[0]], [own[1]], [1.0]
    same = any(a.category == exemplar.category for a in scene.annotations)
    for a in scene.annotations:
        x1, y1, x2, y2 = a.box
        inside = x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1  # else a part of it was cut off
        if inside and not a.crowd and (a.category == exemplar.category or not same) and area(a.box) > 0:
            heights.append(y2 / height)
            sides.append(float(np.sqrt(area(a.box) / (width * height))))
            weights.append(1.0 if same else _OTHERS)
    kernel = np.exp(-0.5 * ((feet[:, None] - np.asarray(heights)) / _KERNEL) ** 2) * np.asarray(weights)
    mean = (kernel * np.log(sides)).sum(1) / np.maximum(kernel.sum(1), 1e-12)
    return np.asarray(np.clip(np.exp(mean), SIZES[0] * own[1], SIZES[1] * own[1]))
