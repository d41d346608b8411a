"""The `lookalike` recipe: what was mistaken for an object, unlabelled, in another scene: a hard negative.

In: a false positive on background with its image (`Exemplar`) and a labelled scene. Out: a `SamplePlan` that
puts the thing, without a label, away from labelled objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from curator.boxes import clip, expand, intersection
from curator.errors import StageError
from curator.inpaint.masks import bounds, main_part, standing_out, superpixels
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.recipes.placing import make_plan, place, shown_in, visible_part, whole
from curator.tensors import image_pixels
from store.records import NewAnnotation


class LookalikeRecipe:
    """Puts what was mistaken for an object, unlabelled, into another scene: a hard negative."""

    name = "lookalike"
    kinds: tuple[str, ...] = ("FP",)
    causes: tuple[str, ...] = ("background",)  # the other causes concern real objects

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Any labelled scene will do; `plan` finds out whether there is a free place."""
        return True

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        height, width = exemplar.image.shape[1:]
        x1, y1, x2, y2 = whole(expand(clip(exemplar.box, width, height), 1.08), width, height)
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
        return make_plan(
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


def _surround(image: Tensor, box: Any) -> Tensor:
    """Mean colour (3,) of the rim around a box."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = whole(box, width, height)
    a, b, c, d = whole(np.asarray(box) + np.array([-4, -4, 4, 4]), width, height)
    total = image[:, b:d, a:c].sum((1, 2)) - image[:, y1:y2, x1:x2].sum((1, 2))
    return total / max((d - b) * (c - a) - (y2 - y1) * (x2 - x1), 1)
