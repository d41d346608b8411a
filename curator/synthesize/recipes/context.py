"""The `context` recipe: the missed object with its own surroundings, in another labelled scene.

In: a miss with its image (`Exemplar`) and a labelled scene. Out: a `SamplePlan` that puts the object down
together with what lay around it: the dark ground on which it was not seen, what stood beside it, the light on
both. `object` brings the object into the scene's light, and `culprit` brings what is blamed to another
object; both lose what was between the two. (Context decides whether detectors find an object: Divvala et
al., CVPR 2009; what pasted objects need of it: Dvornik, Mairal & Schmid, ECCV 2018.)

    what    the object's box, grown on each side by `AROUND` of it, and up to `MOST_AROUND` where what is
            blamed lies there; the edge fades out
    where   size, contact with the ground and depth by `standing`; of these places the one of which the
            surroundings are most like those of the part, so that its edge hardly shows (at least as like as
            those of three in four pairs of objects of a class in two of the user's pictures); of no labelled
            object more than `COVERED` is hidden
    light   as it was: the part brings its own
    labels  the object's, and those of its neighbours of which most came along
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from curator.boxes import area, clip, expand, intersection
from curator.errors import StageError
from curator.inpaint.masks import bounds
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.compose import paste
from curator.synthesize.cutout import Cutout
from curator.synthesize.recipes.placing import box_tuple, centre, make_plan, refuse, whole
from curator.synthesize.recipes.standing import standing_places
from curator.synthesize.surroundings import Surroundings, unlikeness
from store.records import NewAnnotation

AROUND, MOST_AROUND = 0.35, 0.7
COVERED = 0.1
"""Of a labelled object's box: what its surroundings may hide of others."""
CAME_ALONG = 0.6
"""Share of a neighbour's box within the opaque part from which on it is labelled; below, it is a fragment."""
_OPAQUE = 0.5  # of what is around the object: from there on the edge fades out
Array = NDArray[np.float64]


class ContextRecipe:
    """Puts the missed object, with what lay around it, into another scene."""

    name = "context"
    kinds: tuple[str, ...] = ("FN",)
    causes: tuple[str, ...] = ()

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Any labelled scene will do; `plan` finds out whether there is a place."""
        return True

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        cutout = surroundings_of(exemplar)
        mirrored = bool(rng.random() < 0.5)
        own, window = np.asarray(exemplar.box), np.asarray(cutout.extent)
        places = standing_places(exemplar, scene, own, mirrored, rng)
        scales = np.sqrt(area(places) / area(own))
        parts = _moved(window, own, places, scales, mirrored)
        free = _free(parts, scene)
        if not free.any():
            raise StageError(
                f"scene {scene.image_id}: no place that is free enough for what is around the object"
            )
        places, scales, parts = places[free], scales[free], parts[free]
        apart = unlikeness(exemplar.image, window, Surroundings(scene.image), parts)
        chosen = int(apart.argmin())
        if apart[chosen] > (scene.context.unlike if scene.context else np.inf):
            raise StageError(f"scene {scene.image_id}: no place has surroundings like those of the object")
        place, scale = places[chosen : chosen + 1], scales[chosen : chosen + 1]
        try:
            pasted = paste(
                scene.image,
                exemplar.image,
                cutout,
                centre=centre(_moved(window, own, place, scale, mirrored)[0]),
                scale=float(scale[0]),
                mirrored=mirrored,
                rng=rng,
                match=False,
                bands=True,
            )
        except StageError as error:
            raise refuse(scene, error) from error
        height, width = scene.image.shape[1:]

        def here(box: Sequence[float]) -> Array:
            return np.asarray(clip(_moved(np.asarray(box), own, place, scale, mirrored)[0], width, height))

        label = NewAnnotation(category=exemplar.category, box=box_tuple(here(exemplar.box)))
        neighbours = [
            replace(a, box=box_tuple(here(a.box)), polygon=None)
            for a in exemplar.neighbours
            if _along(a, cutout)
        ]
        plan = make_plan(
            self.name,
            exemplar,
            scene,
            pasted,
            seed,
            {
                "source": "surroundings",
                "object_box": list(label.box),
                "mirrored": mirrored,
                "fit": round(-float(apart[chosen]), 1),
                "neighbours": len(neighbours),
            },
            cutout=cutout,
            label=label,
            prompt=f"a photo of a {exemplar.category}",
        )
        return replace(plan, annotations=(*plan.annotations, *neighbours))


def surroundings_of(exemplar: Exemplar) -> Cutout:
    """The object with what lay around it, with a soft edge."""
    height, width = exemplar.image.shape[1:]
    own = np.asarray(exemplar.box, float)
    least, most = (clip(expand(own, 1 + 2 * share), width, height) for share in (AROUND, MOST_AROUND))
    wanted = np.asarray(least, float)
    if exemplar.blamed is not None:
        x1, y1, x2, y2 = whole(most, width, height)
        part = exemplar.blamed.numpy()[y1:y2, x1:x2]
        if part.any():
            blamed = np.asarray(bounds(part), float) + np.array([x1, y1, x1, y1])
            wanted = np.r_[np.minimum(wanted[:2], blamed[:2]), np.maximum(wanted[2:], blamed[2:])]
    window = whole(wanted, width, height)
    x1, y1, x2, y2 = window
    y, x = np.mgrid[y1:y2, x1:x2] + 0.5

    def beyond(low: float, high: float, start: float, stop: float, at: Array, size: int) -> Array:
        """How far from the object a coordinate is, 1 at the window's border; the image's is no edge."""
        before = (low - at) / max(low - start, 1e-6) if start > 0 else np.zeros_like(at)
        after = (at - high) / max(stop - high, 1e-6) if stop < size else np.zeros_like(at)
        return np.asarray(np.maximum(np.maximum(before, after), 0))

    far = np.hypot(beyond(own[0], own[2], x1, x2, x, width), beyond(own[1], own[3], y1, y2, y, height))
    alpha = np.clip((1 - far) / (1 - _OPAQUE), 0, 1).astype(np.float32)
    return Cutout(
        pixels=exemplar.image[:, y1:y2, x1:x2].clone(),
        alpha=torch.from_numpy(alpha),
        window=window,
        extent=box_tuple(window),
        box=exemplar.box,
        quality=0.0,
        source="box",
    )


def _moved(box: Array, own: Array, places: Array, scales: Array, mirrored: bool) -> Array:
    """A box of the failing image where it comes to lie (N, 4) when the object in `own` is put in `places` (N,
    4)."""
    offset = (np.asarray(box) - np.tile(centre(own), 2))[None] * scales[:, None]
    if mirrored:
        offset = np.stack([-offset[:, 2], offset[:, 1], -offset[:, 0], offset[:, 3]], axis=1)
    middle = (places[:, :2] + places[:, 2:]) / 2
    return np.asarray(np.tile(middle, 2) + offset)


def _free(parts: Array, scene: Scene) -> NDArray[np.bool_]:
    """Which parts (N, 4) hide little of what is labelled in a scene."""
    taken = np.asarray([a.box for a in scene.annotations]).reshape(-1, 4)
    if not len(taken):
        return np.ones(len(parts), bool)
    return np.asarray((intersection(parts, taken) <= COVERED * area(taken)).all(axis=1))


def _along(neighbour: NewAnnotation, cutout: Cutout) -> bool:
    """Whether most of a neighbour lies in the opaque part."""
    x1, y1 = cutout.window[:2]
    a, b, c, d = (round(float(v)) for v in neighbour.box)
    inside = cutout.alpha[max(b - y1, 0) : max(d - y1, 0), max(a - x1, 0) : max(c - x1, 0)]
    return float((inside > 0.5).sum()) >= CAME_ALONG * max((c - a) * (d - b), 1)
