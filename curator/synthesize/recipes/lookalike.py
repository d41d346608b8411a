"""The `lookalike` recipe: what was mistaken for an object, unlabelled, in another scene: a hard negative.

In: a false positive on background with its image (`Exemplar`) and a labelled scene. Out: a `SamplePlan` that
puts the thing, with its own pixels and without a label, away from labelled objects, where it looks most like
where it was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curator.boxes import expand, intersection
from curator.errors import StageError
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.compose import paste
from curator.synthesize.cutout import Cutout, cut_mask, cut_object
from curator.synthesize.recipes.placing import centre, make_plan, most_alike, refuse, whole
from store.records import NewAnnotation

SIZES = (0.85, 1.2)  # of its own pixels: it deceives at its size
_TRIES = 60
_EDGE = 8.0  # pixels around the thing that the hole may take
Array = NDArray[np.float64]


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
        cutout = lookalike_cutout(exemplar)
        own = np.asarray(cutout.extent)
        zoom = float(rng.uniform(*SIZES))
        mirrored = bool(rng.random() < 0.5)
        places = self._free_places(scene, (own[2:] - own[:2]) * zoom, rng)
        chosen, distance = most_alike(exemplar, scene, places)
        try:
            pasted = paste(
                scene.image,
                exemplar.image,
                cutout,
                centre=centre(places[chosen]),
                scale=zoom,
                mirrored=mirrored,
                rng=rng,
            )
        except StageError as error:
            raise refuse(scene, error) from error
        return make_plan(
            self.name,
            exemplar,
            scene,
            pasted,
            seed,
            {
                "source": "box" if exemplar.blamed is None else "explanation",
                "category": exemplar.category,
                "fit": round(-distance, 1),
            },
            cutout=cutout,
            negative_prompt=exemplar.category,
        )

    def _free_places(self, scene: Scene, extent: Array, rng: np.random.Generator) -> Array:
        """Places (N, 4) of this extent that touch no labelled object, at least one."""
        height, width = scene.image.shape[1:]
        if extent[0] > width - 4 or extent[1] > height - 4:
            raise StageError(f"scene {scene.image_id}: the look-alike is larger than the scene")
        corner = rng.uniform([2, 2], [width - extent[0] - 2, height - extent[1] - 2], (_TRIES, 2))
        boxes = np.concatenate([corner, corner + extent], axis=1)
        taken = np.asarray([a.box for a in scene.annotations]).reshape(-1, 4)
        edge = np.array([-_EDGE, -_EDGE, _EDGE, _EDGE])
        free = boxes[(intersection(boxes + edge, expand(taken, 1.1)) == 0).all(axis=1)]
        if not len(free):
            raise StageError(f"scene {scene.image_id}: no place free of labelled objects for the look-alike")
        return np.asarray(free)


def lookalike_cutout(exemplar: Exemplar) -> Cutout:
    """What was mistaken: the thing that fills the false detection's box; where no outline does, the segments
    blamed in it; where nothing is, the box's content with a soft edge."""
    cutout = cut_object(exemplar.image, exemplar.box)
    if cutout.source == "box" and exemplar.blamed is not None:
        height, width = exemplar.image.shape[1:]
        x1, y1, x2, y2 = whole(expand(exemplar.box, 1.08), width, height)
        inside = np.zeros((height, width), bool)
        inside[y1:y2, x1:x2] = exemplar.blamed.numpy()[y1:y2, x1:x2]
        if inside.sum() >= 0.1 * (x2 - x1) * (y2 - y1):
            return cut_mask(exemplar.image, inside)
    return cutout
