"""Recipes: what to paint where, so that a scene shows the condition of a failure.

In: a failure with its image (`Exemplar`) and a labelled `Scene`. Out: a `Plan` with the labels that the
painted scene will have.

    culprit     FN   the thing blamed for a miss, put in the same relation to another object of the class,
                     which keeps its label; at most 60% of its box is covered. Without an explanation the
                     whole failed object with its surroundings is painted over an object of the class.
    lookalike   FP   the thing that was mistaken for an object, put without a label away from labelled
                     objects.

A labelled object whose box is covered by more than 70% loses its label; below that it keeps it, whole, as
annotators label occluded objects. The third recipe, `appearance`, is in `appearance.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import area, clip, expand, intersection
from curator.errors import StageError
from curator.inpaint.exemplar import UNKNOWN
from curator.inpaint.masks import IntBox, Mask, bounds, main_part, standing_out, superpixels
from curator.synthesize.base import Exemplar, Plan, Scene
from curator.tensors import image_pixels
from store.records import BoxTuple, NewAnnotation

MAX_OCCLUSION = 0.6
LOSES_LABEL = 0.7
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

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> Plan:
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
        offset = (_centre(region) - _centre(failed)) / failed_size
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
            centre = _centre(target) + (offset + push * step) * size
            placed = np.concatenate([centre - extent / 2, centre + extent / 2])
            mask = place(shape, placed, scene.image.shape[1:])
            if mask.any() and covered(mask, target) <= MAX_OCCLUSION:
                break
        else:
            raise StageError(
                f"scene {scene.image_id}: the culprit would cover more than {MAX_OCCLUSION:.0%} "
                "of the object wherever it is put"
            )
        shown = visible_part(shown, placed, mask)
        return _plan(
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
    ) -> Plan:
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
        shift = _centre(target) - zoom * _centre(wide)
        new_box = clip(zoom * failed + np.tile(shift, 2), *scene.image.shape[:0:-1])
        mask = place(np.ones((2, 2), bool), zoom * wide + np.tile(shift, 2), scene.image.shape[1:], grow=0)
        others = [a for i, a in enumerate(scene.annotations) if i != chosen]
        if any(covered(mask, np.asarray(a.box)) > 0 for a in others):
            raise StageError(
                f"scene {scene.image_id}: the painted object would touch another labelled object"
            )
        x1, y1, x2, y2 = wide.round().astype(int)
        shown = visible_part(exemplar.image[:, y1:y2, x1:x2], zoom * wide + np.tile(shift, 2), mask)
        label = NewAnnotation(category=exemplar.category, box=_box(new_box))
        return _plan(
            self.name,
            exemplar,
            scene,
            shown,
            mask,
            seed,
            {"object": chosen, "occlusion": 0.0, "source": "box", "object_box": list(map(float, new_box))},
            annotations=(*others, label),
        )


class LookalikeRecipe:
    """Puts what was mistaken for an object, unlabelled, into another scene: a hard negative."""

    name = "lookalike"
    kinds: tuple[str, ...] = ("FP",)
    causes: tuple[str, ...] = ("background",)  # the other causes concern real objects

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Any labelled scene will do; `plan` finds out whether there is a free place."""
        return True

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> Plan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        height, width = exemplar.image.shape[1:]
        x1, y1, x2, y2 = _whole(expand(clip(exemplar.box, width, height), 1.08), width, height)
        if min(x2 - x1, y2 - y1) < 4:
            raise StageError(f"the false detection of outcome {exemplar.outcome_id} is smaller than 4 pixels")
        pixels = image_pixels(exemplar.image)
        mask = standing_out(pixels, superpixels(pixels), (x1, y1, x2, y2))
        if exemplar.blamed is not None:
            blamed = np.zeros_like(mask)
            blamed[y1:y2, x1:x2] = exemplar.blamed.numpy()[y1:y2, x1:x2]
            mask |= blamed
        mask = main_part(ndimage.binary_closing(mask, iterations=1) | mask, ((x1 + x2) / 2, (y1 + y2) / 2))
        if not mask.any():
            mask[y1:y2, x1:x2] = True
        region = np.asarray(bounds(mask), dtype=np.float64)
        shape = mask[int(region[1]) : int(region[3]), int(region[0]) : int(region[2])]
        shown = shown_in(exemplar.image, region, mask)
        if rng.random() < 0.5:
            shape, shown = shape[:, ::-1], shown.flip(-1)
        extent = (region[2:] - region[:2]) * rng.uniform(0.85, 1.2)
        placed = self._free_place(exemplar, scene, extent, rng)
        hole = place(shape, placed, scene.image.shape[1:])
        return _plan(
            self.name,
            exemplar,
            scene,
            visible_part(shown, placed, hole),
            hole,
            seed,
            {"source": "box" if exemplar.blamed is None else "explanation", "category": exemplar.category},
        )

    def _free_place(
        self, exemplar: Exemplar, scene: Scene, extent: Any, rng: np.random.Generator, tries: int = 60
    ) -> Any:
        """Of the places that touch no labelled object, the one most alike in colour to where it was seen."""
        height, width = scene.image.shape[1:]
        if extent[0] > width - 4 or extent[1] > height - 4:
            raise StageError(f"scene {scene.image_id}: the look-alike is larger than the scene")
        corner = rng.uniform([2, 2], [width - extent[0] - 2, height - extent[1] - 2], (tries, 2))
        boxes = np.concatenate([corner, corner + extent], axis=1)
        taken = np.asarray([a.box for a in scene.annotations]).reshape(-1, 4)
        free = boxes[(intersection(expand(boxes, 1.2), expand(taken, 1.1)) == 0).all(axis=1)]
        if not len(free):
            raise StageError(f"scene {scene.image_id}: no place free of labelled objects for the look-alike")
        home = _surround(exemplar.image, np.asarray(exemplar.box))
        gap = [float((_surround(scene.image, box) - home).abs().sum()) for box in free[:12]]
        return free[int(np.argmin(gap))]


def culprit_mask(exemplar: Exemplar) -> Mask | None:
    """The blamed segments near the failed object, their main part (H, W); None when there are none."""
    if exemplar.blamed is None:
        return None
    height, width = exemplar.image.shape[1:]
    x1, y1, x2, y2 = _whole(clip(expand(exemplar.box, _REACH), width, height), width, height)
    near = np.zeros((height, width), bool)
    near[y1:y2, x1:x2] = exemplar.blamed.numpy()[y1:y2, x1:x2]
    if near.sum() < 12:
        return None
    x, y = _centre(np.asarray(exemplar.box))
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


def shown_in(image: Tensor, region: Any, mask: Mask) -> Tensor:
    """The content of `region` in (3, H, W), `UNKNOWN` where `mask` (H, W) is False."""
    x1, y1, x2, y2 = (int(v) for v in region)
    inside = torch.from_numpy(mask[y1:y2, x1:x2].copy())
    return torch.where(inside, image[:, y1:y2, x1:x2], torch.full_like(image[:, y1:y2, x1:x2], UNKNOWN))


def place(shape: Mask, box: Any, size: Sequence[int], grow: int = 2) -> Tensor:
    """Scale a mask into `box` of an image (H, W) = `size`, grown by `grow` pixels so that the painting can
    blend."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    scaled = (
        F.interpolate(
            torch.from_numpy(shape.copy())[None, None].float(),
            (y2 - y1, x2 - x1),
            mode="bilinear",
            antialias=True,
        )[0, 0]
        >= 0.5
    )
    out = torch.zeros(tuple(size), dtype=torch.bool)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])
    if right > left and bottom > top:
        out[top:bottom, left:right] = scaled[top - y1 : bottom - y1, left - x1 : right - x1]
    if grow and out.any():
        out = torch.from_numpy(ndimage.binary_dilation(out.numpy(), iterations=grow))
    return out


def visible_part(shown: Tensor, placed: Any, mask: Tensor) -> Tensor:
    """Crop or pad an exemplar (3, h, w) that belongs at `placed`, so that it fills the mask's bounding
    box."""
    x1, y1, x2, y2 = (round(float(v)) for v in placed)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    at_scale = F.interpolate(shown[None], (y2 - y1, x2 - x1), mode="bilinear", antialias=True)[0]
    left, top, right, bottom = bounds(mask.numpy())
    out = torch.full((3, bottom - top, right - left), UNKNOWN)
    a, b, c, d = max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)
    if c > a and d > b:
        out[:, b - top : d - top, a - left : c - left] = at_scale[:, b - y1 : d - y1, a - x1 : c - x1]
    return out


def covered(mask: Tensor, box: Any) -> float:
    """Share of a box's pixels that a mask (H, W) covers, in [0, 1]."""
    x1, y1, x2, y2 = _whole(np.asarray(box), mask.shape[1], mask.shape[0])
    inside = mask[y1:y2, x1:x2]
    return float(inside.float().mean()) if inside.numel() else 0.0


def kept_labels(annotations: Sequence[NewAnnotation], mask: Tensor) -> tuple[NewAnnotation, ...]:
    """The objects that keep their label when `mask` is painted over."""
    return tuple(a for a in annotations if covered(mask, a.box) <= LOSES_LABEL)


def _plan(
    name: str,
    exemplar: Exemplar,
    scene: Scene,
    shown: Tensor,
    mask: Tensor,
    seed: int,
    details: dict[str, Any],
    annotations: tuple[NewAnnotation, ...] | None = None,
) -> Plan:
    if not mask.any():
        raise StageError(f"scene {scene.image_id}: nothing would be painted")
    kept = kept_labels(scene.annotations, mask) if annotations is None else annotations
    return Plan(
        recipe=name,
        group=exemplar.group,
        scene=scene,
        exemplar=shown,
        exemplar_image_id=exemplar.image_id,
        outcome_id=exemplar.outcome_id,
        mask=mask,
        painted=_box(bounds(mask.numpy())),
        annotations=kept,
        seed=seed,
        prompt=f"a photo of a {exemplar.category}" if exemplar.kind == "FN" else None,
        details=details,
    )


def _paintable(category: str, annotations: Sequence[NewAnnotation]) -> list[int]:
    return [
        i
        for i, a in enumerate(annotations)
        if a.category == category
        and not a.crowd
        and min(a.box[2] - a.box[0], a.box[3] - a.box[1]) >= _SMALLEST
    ]


def _surround(image: Tensor, box: Any) -> Tensor:
    """Mean colour (3,) of the rim around a box."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = _whole(box, width, height)
    a, b, c, d = _whole(np.asarray(box) + np.array([-4, -4, 4, 4]), width, height)
    total = image[:, b:d, a:c].sum((1, 2)) - image[:, y1:y2, x1:x2].sum((1, 2))
    return total / max((d - b) * (c - a) - (y2 - y1) * (x2 - x1), 1)


def _whole(box: Any, width: int, height: int) -> tuple[int, int, int, int]:
    """A box on whole pixels, within the image."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return (
        max(int(np.floor(x1)), 0),
        max(int(np.floor(y1)), 0),
        min(int(np.ceil(x2)), width),
        min(int(np.ceil(y2)), height),
    )


def _centre(box: Any) -> Any:
    return (np.asarray(box)[:2] + np.asarray(box)[2:]) / 2


def _box(values: Any) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2
