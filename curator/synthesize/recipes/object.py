"""The `object` recipe: the missed object itself, with its own pixels, in another labelled scene.

In: a miss with its image (`Exemplar`) and a labelled scene. Out: a `SamplePlan` that puts the object where it
could stand (Dwibedi et al., ICCV 2017, paste anywhere; that context decides whether it helps: Dvornik, Mairal
& Schmid, ECCV 2018):

    where     size, contact with the ground and depth as labels tell them: `standing`
    place     of the tries, the one that looks most like a place where the class stands: `context`
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curator.errors import StageError
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.compose import paste
from curator.synthesize.context import Context
from curator.synthesize.cutout import cut_object
from curator.synthesize.recipes.placing import centre, covered, make_plan, refuse
from curator.synthesize.recipes.standing import standing_places
from store.records import NewAnnotation


class ObjectRecipe:
    """Puts the missed object into another scene."""

    name = "object"
    kinds: tuple[str, ...] = ("FN",)
    causes: tuple[str, ...] = ()

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Any labelled scene will do; `plan` finds out whether there is a place."""
        return True

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        cutout = cut_object(exemplar.image, exemplar.box, exemplar.polygon)
        mirrored = bool(rng.random() < 0.5)
        own = np.asarray(cutout.box)
        places = standing_places(exemplar, scene, own, mirrored, rng)
        chosen, fit = (scene.context or Context()).best(exemplar, scene, places)
        placed = places[chosen]
        # The cut-out's extent lies in its box as it did at home.
        scale = float((placed[2:] - placed[:2]).prod() / (own[2:] - own[:2]).prod()) ** 0.5
        shift = (centre(cutout.extent) - centre(own)) * scale
        if mirrored:
            shift[0] *= -1
        try:
            pasted = paste(
                scene.image,
                exemplar.image,
                cutout,
                centre=centre(placed) + shift,
                scale=scale,
                mirrored=mirrored,
                rng=rng,
            )
        except StageError as error:
            raise refuse(scene, error) from error
        overlap = max((covered(pasted.thing, a.box) for a in scene.annotations), default=0.0)
        label = NewAnnotation(category=exemplar.category, box=pasted.box)
        return make_plan(
            self.name,
            exemplar,
            scene,
            pasted,
            seed,
            {
                "source": cutout.source,
                "object_box": list(pasted.box),
                "mirrored": mirrored,
                "fit": round(fit, 3),
                "overlap": round(overlap, 3),
            },
            cutout=cutout,
            label=label,
            prompt=f"a photo of a {exemplar.category}",
        )
