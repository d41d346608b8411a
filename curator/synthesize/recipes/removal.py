"""The `removal` recipe: a scene without one of its objects, the counterfactual of an explanation.

In: a miss (its class alone counts) and a labelled scene. Out: a `SamplePlan` whose hole is an object of the
class, along its polygon or its box grown by a few pixels, without its label. Composed is what patches of the
surroundings make of it (`curator.inpaint.completion`); a generator may go on from there. Not in the default
list: what is removed teaches a detector only where it mistook the surroundings for the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from curator.boxes import area, intersection
from curator.errors import StageError
from curator.inpaint.completion import completed
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.cutout import polygon_mask
from curator.synthesize.recipes.placing import box_tuple, whole
from store.records import NewAnnotation

GROWN = 4  # pixels around the outline: its soft edge, and a part of its shadow
LARGEST = 0.25  # of the image: beyond, hardly anything is known of what is behind
SHARED = 0.05  # of another label's box that the hole may take: more, and that object would be removed too


class RemovalRecipe:
    """Takes an object of the class out of a scene."""

    name = "removal"
    kinds: tuple[str, ...] = ("FN",)
    causes: tuple[str, ...] = ()

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Needs an object of the class that is no crowd."""
        return any(a.category == category and not a.crowd for a in annotations)

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        alone = [i for i in range(len(scene.annotations)) if _removable(scene, i, exemplar.category)]
        if not alone:
            raise StageError(
                f"scene {scene.image_id} has no object of class {exemplar.category} that stands alone "
                f"and takes at most {LARGEST:.0%} of the image"
            )
        chosen = alone[int(rng.integers(len(alone)))]
        hole = hole_of(scene.annotations[chosen], scene.image)
        if hole.all():
            raise StageError(f"scene {scene.image_id}: the object with its edge is all of the image")
        x1, y1, x2, y2 = bounds(hole)
        composed = completed(scene.image, hole, objects(scene, hole))
        return SamplePlan(
            recipe=self.name,
            group=exemplar.group,
            scene=scene,
            exemplar=composed[:, y1:y2, x1:x2],
            exemplar_image_id=exemplar.image_id,
            outcome_id=exemplar.outcome_id,
            mask=torch.from_numpy(hole),
            painted=box_tuple((x1, y1, x2, y2)),
            annotations=(*scene.annotations[:chosen], *scene.annotations[chosen + 1 :]),
            seed=seed,
            prompt="background",
            negative_prompt=exemplar.category,
            details={"object": chosen, "object_box": list(scene.annotations[chosen].box)},
            composed=composed,
        )


def hole_of(annotation: NewAnnotation, image: Tensor) -> Mask:
    """The pixels (H, W) of an object of an image (3, H, W), grown by `GROWN`."""
    height, width = image.shape[1:]
    mask = np.zeros((height, width), bool)
    if annotation.polygon:
        mask = polygon_mask(annotation.polygon, (height, width))
    if not mask.any():
        x1, y1, x2, y2 = whole(annotation.box, width, height)
        mask[y1:y2, x1:x2] = True
    return np.asarray(ndimage.binary_dilation(mask, iterations=GROWN)) if mask.any() else mask


def objects(scene: Scene, hole: Mask) -> Mask:
    """The pixels (H, W) of labelled objects' boxes, from which the hole is not filled; not of crowds, nor of
    what the object stands on or in."""
    height, width = scene.image.shape[1:]
    mask = np.zeros((height, width), bool)
    for annotation in scene.annotations:
        x1, y1, x2, y2 = whole(annotation.box, width, height)
        if not annotation.crowd and hole[y1:y2, x1:x2].sum() < 0.5 * hole.sum():
            mask[y1:y2, x1:x2] = True
    return mask


def _removable(scene: Scene, number: int, category: str) -> bool:
    a = scene.annotations[number]
    height, width = scene.image.shape[1:]
    others = [b.box for i, b in enumerate(scene.annotations) if i != number]
    if a.category != category or a.crowd or not 16 <= area(a.box) <= LARGEST * width * height:
        return False
    if not others:
        return True
    box = np.asarray(a.box) + np.array([-GROWN, -GROWN, GROWN, GROWN])
    return bool((intersection([box], others)[0] <= SHARED * area(others)).all())
