"""The `culprit` recipe: what is blamed for a miss, beside or over another object of the class.

In: a miss with its image (`Exemplar`) and a labelled scene. Out: a `SamplePlan` that puts the thing blamed in
the same relation to another object, which keeps its label; at most 60% of its box is covered. Without an
explanation the whole failed object with its surroundings is painted over an object of the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from curator.boxes import area, clip, expand
from curator.errors import StageError
from curator.inpaint.masks import IntBox, Mask, bounds, main_part, superpixels
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.recipes.placing import (
    box_tuple,
    centre,
    covered,
    make_plan,
    place,
    shown_in,
    visible_part,
    whole,
)
from curator.tensors import image_pixels
from store.records import NewAnnotation

MAX_OCCLUSION = 0.6
_REACH = 2.2
"""A culprit is sought within the failed object's box, scaled by this factor."""
_ALIKE = 36.0  # sum of absolute differences of mean RGB, 0 to 765
_ENLARGED = 1.7  # more would paint a blur
_SMALLEST = 8.0  # pixels: shorter sides are not painted on


class CulpritRecipe:
    """Puts what caused a miss next to or over another object of the class."""

    name = "culprit"
    kinds: tuple[str, ...] = ("FN",)
    causes: tuple[str, ...] = ()

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Needs an object of the class that is no crowd and not tiny."""
        return bool(_paintable(category, annotations))

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        paintable = _paintable(exemplar.category, scene.annotations)
        if not paintable:
            raise StageError(f"scene {scene.image_id} has no object of class {exemplar.category} to paint on")
        chosen = paintable[int(rng.integers(len(paintable)))]
        culprit = culprit_mask(exemplar)
        if culprit is None:
            return self._replace(exemplar, scene, chosen, seed, rng)
        target = np.asarray(scene.annotations[chosen].box)
        failed = np.asarray(exemplar.box)
        region = np.asarray(bounds(culprit), dtype=np.float64)
        size, failed_size = target[2:] - target[:2], failed[2:] - failed[:2]
        zoom = float(np.sqrt(size.prod() / failed_size.prod()))
        # The culprit keeps its place relative to the object, in units of the object's size.
        offset = (centre(region) - centre(failed)) / failed_size
        mirrored = bool(rng.random() < 0.5)
        if mirrored:
            offset[0] *= -1
        offset += rng.normal(0, 0.08, 2)
        extent = np.maximum((region[2:] - region[:2]) * zoom * rng.uniform(0.85, 1.15), 3)
        shape = culprit[int(region[1]) : int(region[3]), int(region[0]) : int(region[2])]
        shown = shown_in(exemplar.image, region, culprit)
        if mirrored:
            shape, shown = shape[:, ::-1], shown.flip(-1)
        step = (
            offset / max(float(np.hypot(*offset)), 1e-6) if np.hypot(*offset) > 0.05 else np.array([1.0, 0.0])
        )
        for push in np.linspace(0, 1.2, 25):  # outwards until enough of the object is left to see
            middle = centre(target) + (offset + push * step) * size
            placed = np.concatenate([middle - extent / 2, middle + extent / 2])
            mask = place(shape, placed, scene.image.shape[1:])
            if mask.any() and covered(mask, target) <= MAX_OCCLUSION:
                break
        else:
            raise StageError(
                f"scene {scene.image_id}: the culprit would cover more than {MAX_OCCLUSION:.0%} "
                "of the object wherever it is put"
            )
        shown = visible_part(shown, placed, mask)
        return make_plan(
            self.name,
            exemplar,
            scene,
            shown,
            mask,
            seed,
            {
                "object": chosen,
                "occlusion": round(covered(mask, target), 3),
                "source": "explanation",
                "object_box": list(map(float, target)),
            },
        )

    def _replace(
        self, exemplar: Exemplar, scene: Scene, chosen: int, seed: int, rng: np.random.Generator
    ) -> SamplePlan:
        """Without an explanation: paint the failed object as it is, surroundings and all, over `chosen`."""
        target = np.asarray(scene.annotations[chosen].box)
        height, width = exemplar.image.shape[1:]
        failed = clip(exemplar.box, width, height)
        wide = clip(expand(failed, 1.25), width, height)
        zoom = float(np.sqrt(area(target) / max(float(area(failed)), 1.0)) * rng.uniform(0.9, 1.1))
        # The hole must cover the old object, or two would share one label.
        zoom = max(zoom, *((target[2:] - target[:2] + 2) / (wide[2:] - wide[:2])))
        if zoom > _ENLARGED:
            raise StageError(
                f"scene {scene.image_id}: the failed object would be enlarged {zoom:.1f} times and blur"
            )
        shift = centre(target) - zoom * centre(wide)
        new_box = clip(zoom * failed + np.tile(shift, 2), *scene.image.shape[:0:-1])
        mask = place(np.ones((2, 2), bool), zoom * wide + np.tile(shift, 2), scene.image.shape[1:], grow=0)
        others = [a for i, a in enumerate(scene.annotations) if i != chosen]
        if any(covered(mask, np.asarray(a.box)) > 0 for a in others):
            raise StageError(
                f"scene {scene.image_id}: the painted object would touch another labelled object"
            )
        x1, y1, x2, y2 = wide.round().astype(int)
        shown = visible_part(exemplar.image[:, y1:y2, x1:x2], zoom * wide + np.tile(shift, 2), mask)
        label = NewAnnotation(category=exemplar.category, box=box_tuple(new_box))
        return make_plan(
            self.name,
            exemplar,
            scene,
            shown,
            mask,
            seed,
            {"object": chosen, "occlusion": 0.0, "source": "box", "object_box": list(map(float, new_box))},
            annotations=(*others, label),
        )


def culprit_mask(exemplar: Exemplar) -> Mask | None:
    """The blamed segments near the failed object, their main part (H, W); None when there are none."""
    if exemplar.blamed is None:
        return None
    height, width = exemplar.image.shape[1:]
    x1, y1, x2, y2 = whole(clip(expand(exemplar.box, _REACH), width, height), width, height)
    near = np.zeros((height, width), bool)
    near[y1:y2, x1:x2] = exemplar.blamed.numpy()[y1:y2, x1:x2]
    if near.sum() < 12:
        return None
    x, y = centre(np.asarray(exemplar.box))
    return grow(image_pixels(exemplar.image), main_part(near, (x, y)), (x1, y1, x2, y2))


def grow(pixels: NDArray[np.uint8], core: Mask, window: IntBox) -> Mask:
    """Add what touches `core` (H, W) in `window` and has its colours: an explanation blames a part of a post,
    and half a post is no post. Where that floods more than a third of the window, the core was ground: kept
    as it is."""
    x1, y1, x2, y2 = window
    labels = superpixels(pixels)[y1:y2, x1:x2]
    part, inside = pixels[y1:y2, x1:x2].astype(np.float32), core[y1:y2, x1:x2]
    _, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    count = np.bincount(index.ravel())
    means = np.stack([np.bincount(index.ravel(), part[..., c].ravel()) / count for c in range(3)], axis=1)
    mostly = np.bincount(index.ravel(), inside.ravel()) / count > 0.5
    if not mostly.any():
        return core
    distance = np.abs(means[:, None] - means[mostly][None]).sum(-1).min(axis=1)
    alike = (distance < _ALIKE)[index] | inside
    parts, _ = ndimage.label(alike)
    joined = np.isin(parts, np.unique(parts[inside])) & alike
    if joined.mean() > 1 / 3:
        return core
    out = core.copy()
    out[y1:y2, x1:x2] |= joined
    return out


def _paintable(category: str, annotations: Sequence[NewAnnotation]) -> list[int]:
    return [
        i
        for i, a in enumerate(annotations)
        if a.category == category
        and not a.crowd
        and min(a.box[2] - a.box[0], a.box[3] - a.box[1]) >= _SMALLEST
    ]
