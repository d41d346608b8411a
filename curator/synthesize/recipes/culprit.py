"""The `culprit` recipe: what is blamed for a miss, beside or over another object of the class.

In: a miss with its image and what an explanation blames for it (`Exemplar`), and a labelled scene. Out: a
`SamplePlan` that puts the thing blamed, with its own pixels, in the same relation to another object, which
keeps its label: at least 40% of its box stays visible. Where nothing is blamed, the recipe has nothing to
say; `object` has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from curator.boxes import clip, expand
from curator.errors import StageError
from curator.inpaint.masks import IntBox, Mask, main_part, superpixels
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.compose import RIM, paste
from curator.synthesize.cutout import cut_mask
from curator.synthesize.recipes.placing import centre, covered, make_plan, place, refuse, whole
from curator.tensors import image_pixels
from store.records import NewAnnotation

MAX_OCCLUSION = 0.6
_REACH = 2.2
"""A culprit is sought within the failed object's box, scaled by this factor."""
_ALIKE = 36.0  # sum of absolute differences of mean RGB, 0 to 765
_ENLARGED = 1.7  # of its pixels; where the object is larger yet, the culprit stays smaller, or it would blur
_SMALLEST = 8.0  # pixels: shorter sides are not painted on


class CulpritRecipe:
    """Puts what caused a miss next to or over another object of the class."""

    name = "culprit"
    kinds: tuple[str, ...] = ("FN",)
    explained = True
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
            raise StageError(
                f"nothing is blamed for outcome {exemplar.outcome_id}: `curator explain` finds the culprit"
            )
        cutout = cut_mask(exemplar.image, culprit)
        inner = np.asarray(cutout.extent) - np.tile(cutout.window[:2], 2)
        shape = cutout.alpha.numpy()[int(inner[1]) : int(inner[3]), int(inner[0]) : int(inner[2])] >= 0.5
        target, failed = np.asarray(scene.annotations[chosen].box), np.asarray(exemplar.box)
        region, size, failed_size = (
            np.asarray(cutout.extent),
            target[2:] - target[:2],
            failed[2:] - failed[:2],
        )
        # The culprit keeps its place relative to the object, in units of the object's size.
        offset = (centre(region) - centre(failed)) / failed_size
        mirrored = bool(rng.random() < 0.5)
        if mirrored:
            offset[0] *= -1
            shape = shape[:, ::-1]
        offset += rng.normal(0, 0.08, 2)
        zoom = min(float(np.sqrt(size.prod() / failed_size.prod())) * rng.uniform(0.85, 1.15), _ENLARGED)
        extent = (region[2:] - region[:2]) * zoom
        far = float(np.hypot(*offset))
        step = offset / far if far > 0.05 else np.array([1.0, 0.0])
        for push in np.linspace(0, 1.2, 25):  # outwards until enough of the object is left to see
            middle = centre(target) + (offset + push * step) * size
            placed = np.concatenate([middle - extent / 2, middle + extent / 2])
            hole = place(shape, placed, scene.image.shape[1:], grow=RIM + 2)  # and the soft edge
            if not hole.any() or covered(hole, target) > MAX_OCCLUSION:
                continue
            try:
                pasted = paste(
                    scene.image, exemplar.image, cutout, centre=middle, scale=zoom, mirrored=mirrored, rng=rng
                )
            except StageError as error:
                raise refuse(scene, error) from error
            if covered(pasted.hole, target) <= MAX_OCCLUSION:  # to the pixel
                break
        else:
            raise StageError(
                f"scene {scene.image_id}: the culprit would cover more than {MAX_OCCLUSION:.0%} "
                "of the object wherever it is put"
            )
        details = {
            "object": chosen,
            "occlusion": round(covered(pasted.thing, target), 3),
            "source": "explanation",
            "object_box": list(map(float, target)),
        }
        return make_plan(
            self.name,
            exemplar,
            scene,
            pasted,
            seed,
            details,
            cutout=cutout,
            behind=chosen,
            # A text model asked for nothing in particular would put a second, unlabelled object there.
            negative_prompt=exemplar.category,
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
    labels = superpixels(pixels[y1:y2, x1:x2])
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
