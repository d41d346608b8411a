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

from curator.boxes import clip, expand
from curator.errors import StageError
from curator.inpaint.exemplar import UNKNOWN
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.compose import Pasted
from curator.synthesize.photometry import lab_of
from store.records import BoxTuple, NewAnnotation

VISIBLE = 0.3
"""Share of a box that must be left to see for its label to stay: most annotators label less as "difficult" or
not at all, and a detector cannot be asked for it."""
TOUCHED = 0.2
"""Share of a box that is covered from which on the object counts as changed."""
_COARSE = 160  # pixels of the longer side at which surroundings are compared
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
    behind: int | None = None,
    label: NewAnnotation | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
) -> SamplePlan:
    """The plan of a recipe that pasted something.

    Args:
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
    )


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


class Surroundings:
    """What lies around boxes of an image (3, H, W): mean L, a, b, spread of L and its mean gradient, in units
    of Lab, each of a frame of a quarter of the box's side on each side."""

    def __init__(self, image: Tensor) -> None:
        self.size = tuple(image.shape[:0:-1])  # (W, H)
        scale = min(_COARSE / max(self.size), 1.0)
        if scale < 1:
            size = [max(round(side * scale), 2) for side in image.shape[1:]]
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        lab = lab_of(image)
        gradient = ndimage.gaussian_gradient_magnitude(lab[..., 0], 1.0, mode="nearest")
        maps = [*np.moveaxis(lab, -1, 0), lab[..., 0] ** 2, gradient, np.ones(lab.shape[:2])]
        self._sums = np.pad(np.stack(maps).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))  # integral images
        self._scale = np.tile(np.array(lab.shape[1::-1]) / self.size, 2)

    def around(self, boxes: Any) -> Array:
        """Features (N, 5) of boxes (N, 4); of the whole image where a box leaves nothing around it."""
        inner = clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), *self.size)
        outer = clip(expand(inner, 1.5) + np.array([-4.0, -4.0, 4.0, 4.0]), *self.size)
        total = self._within(outer) - self._within(inner)
        none = total[:, -1] < 1
        total[none] = self._sums[:, -1, -1]
        means = total[:, :-1] / total[:, -1:]
        deviation = np.sqrt(np.maximum(means[:, 3] - means[:, 0] ** 2, 0))
        return np.concatenate([means[:, :3], deviation[:, None], means[:, 4:]], axis=1)

    def _within(self, boxes: Array) -> Array:
        x1, y1, x2, y2 = np.rint(boxes * self._scale).astype(int).T
        s = self._sums
        return np.asarray((s[:, y2, x2] - s[:, y1, x2] - s[:, y2, x1] + s[:, y1, x1]).T)


def most_alike(exemplar: Exemplar, scene: Scene, places: Array) -> tuple[int, float]:
    """The place (N, 4) whose surroundings are most like the exemplar's own; its number and the distance."""
    home = Surroundings(exemplar.image).around(exemplar.box)
    distance = np.linalg.norm(Surroundings(scene.image).around(places) - home, axis=1)
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
