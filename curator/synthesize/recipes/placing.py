"""Placing: what recipes share to put a cut-out into a scene.

In: images, masks, boxes, what was pasted. Out: what it covers, the labels that are left, places like those
that it comes from, and the `SamplePlan` of it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import StageError
from curator.inpaint.exemplar import UNKNOWN
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.base import Exemplar, Home, SamplePlan, Scene
from curator.synthesize.compose import RIM, Pasted
from curator.synthesize.cutout import Cutout
from curator.synthesize.surroundings import Surroundings, unlikeness
from store.records import BoxTuple, NewAnnotation

VISIBLE = 0.3
"""Share of a box that must be left to see for its label to stay: most annotators label less as "difficult" or
not at all, and a detector cannot be asked for it."""
TOUCHED = 0.2
"""Share of a box that is covered from which on the object counts as changed."""
Array = NDArray[np.float64]


def labels_left(
    annotations: Sequence[NewAnnotation], thing: Tensor, *, modal: bool = False
) -> tuple[tuple[NewAnnotation, ...], tuple[int, ...]]:
    """Labels of a scene in which `thing` (H, W) bool covers what is behind it.

    Args:
        modal: boxes are drawn around what is seen (COCO's instances): they shrink to the part of themselves
            that is left, and lose their polygon. Otherwise (amodal) they stay whole. Either way a box of
            which less than `VISIBLE` is left to see is dropped.
    Returns:
        the labels in their order, and the numbers among them of those covered by more than `TOUCHED` or
        moved.
    """
    kept: list[NewAnnotation] = []
    changed: list[int] = []
    for annotation in annotations:
        share = covered(thing, annotation.box)
        if share > 1 - VISIBLE:
            continue
        seen = annotation
        if modal and share > 0:
            x1, y1, x2, y2 = whole(annotation.box, thing.shape[1], thing.shape[0])
            a, b, c, d = bounds(~thing[y1:y2, x1:x2].numpy())
            inner = np.array([x1 + a, y1 + b, x1 + c, y1 + d], dtype=np.float64)
            low = np.maximum(inner[:2], annotation.box[:2])
            seen = replace(
                annotation, box=box_tuple([*low, *np.minimum(inner[2:], annotation.box[2:])]), polygon=None
            )
        if share > TOUCHED or seen.box != annotation.box:
            changed.append(len(kept))
        kept.append(seen)
    return tuple(kept), tuple(changed)


def make_plan(
    name: str,
    exemplar: Exemplar,
    scene: Scene,
    pasted: Pasted,
    seed: int,
    details: dict[str, Any],
    *,
    cutout: Cutout,
    behind: int | None = None,
    label: NewAnnotation | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
) -> SamplePlan:
    """The plan of a recipe that pasted something.

    Args:
        cutout: what was pasted.
        behind: number of the scene's object that the thing was brought in relation to: it counts as made.
        label: of the thing itself; None: it gets none.
    """
    kept, changed = labels_left(scene.annotations, pasted.thing, modal=scene.modal)
    made = set(changed)
    if behind is not None and covered(pasted.thing, scene.annotations[behind].box) <= 1 - VISIBLE:
        before = labels_left(scene.annotations[:behind], pasted.thing, modal=scene.modal)[0]
        made.add(len(before))
    if label is not None:
        made.add(len(kept))
        kept = (*kept, label)
    return SamplePlan(
        recipe=name,
        group=exemplar.group,
        scene=scene,
        exemplar=shown(pasted),
        exemplar_image_id=exemplar.image_id,
        outcome_id=exemplar.outcome_id,
        mask=pasted.hole,
        painted=box_tuple(bounds(pasted.hole.numpy())),
        annotations=kept,
        seed=seed,
        prompt=prompt,
        negative_prompt=negative_prompt,
        details={**details, **pasted.details},
        composed=pasted.image,
        made=tuple(sorted(made)),
        home=home_of(cutout, exemplar.image, label is not None),
    )


def home_of(cutout: Cutout, image: Tensor, labelled: bool) -> Home:
    """The pixels of its image (3, h, w) that a cut-out took, and a rim as wide as that of the hole."""
    x1, y1, x2, y2 = cutout.window
    mask = np.zeros(tuple(image.shape[1:]), bool)
    mask[y1:y2, x1:x2] = cutout.alpha.numpy() > 1 / 512
    grown = ndimage.binary_dilation(mask, iterations=RIM)
    return Home(image=image, mask=torch.from_numpy(grown), object=labelled)


def shown(pasted: Pasted) -> Tensor:
    """The thing as it was pasted (3, h, w), filling its hole's bounding box; `UNKNOWN` around it."""
    x1, y1, x2, y2 = bounds(pasted.hole.numpy())
    part = pasted.image[:, y1:y2, x1:x2]
    return torch.where(pasted.thing[y1:y2, x1:x2], part, torch.full_like(part, UNKNOWN))


def place(shape: Mask, box: Any, size: Sequence[int], grow: int = 2) -> Tensor:
    """Scale a mask into `box` of an image (H, W) = `size`, grown by `grow` pixels."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    shape_at_scale = F.interpolate(
        torch.from_numpy(shape.copy())[None, None].float(),
        (y2 - y1, x2 - x1),
        mode="bilinear",
        antialias=True,
    )[0, 0]
    scaled = shape_at_scale >= 0.5
    out = torch.zeros(tuple(size), dtype=torch.bool)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])
    if right > left and bottom > top:
        out[top:bottom, left:right] = scaled[top - y1 : bottom - y1, left - x1 : right - x1]
    if grow and out.any():
        out = torch.from_numpy(ndimage.binary_dilation(out.numpy(), iterations=grow))
    return out


def covered(mask: Tensor, box: Any) -> float:
    """Share of a box's pixels that a mask (H, W) covers, in [0, 1]."""
    x1, y1, x2, y2 = whole(np.asarray(box), mask.shape[1], mask.shape[0])
    inside = mask[y1:y2, x1:x2]
    return float(inside.float().mean()) if inside.numel() else 0.0


def most_alike(exemplar: Exemplar, scene: Scene, places: Array) -> tuple[int, float]:
    """The place (N, 4) whose surroundings are most like the exemplar's own; its number and the distance."""
    distance = unlikeness(exemplar.image, exemplar.box, Surroundings(scene.image), places)
    best = int(distance.argmin())
    return best, float(distance[best])


def whole(box: Any, width: int, height: int) -> tuple[int, int, int, int]:
    """A box on whole pixels, within the image."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return (
        max(int(np.floor(x1)), 0),
        max(int(np.floor(y1)), 0),
        min(int(np.ceil(x2)), width),
        min(int(np.ceil(y2)), height),
    )


def centre(box: Any) -> Any:
    """Centre (x, y) of a box."""
    return (np.asarray(box)[:2] + np.asarray(box)[2:]) / 2


def box_tuple(values: Any) -> BoxTuple:
    """Four numbers as a box of plain floats."""
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2


def refuse(scene: Scene, error: StageError) -> StageError:
    """The same refusal, with the scene's number."""
    return StageError(f"scene {scene.image_id}: {error}")
