"""The `appearance` recipe: global conditions, which no local inpainter can bring about.

In: a failure with its image, and a labelled scene. Out: a `SamplePlan` whose sample is rendered already. No
diffusion is involved; it is colour statistics and geometry:

    colour   mean and spread of each CIE Lab channel, taken from the failing image around the object, are
             given to the scene (Reinhard et al., IEEE CG&A 2001), over the whole of it or over a soft spot
             around one object.
    scale    a failed object much smaller than the scene's is answered by the scene shrunk; copies of it,
             every other one mirrored, fill the frame, and every copy keeps its labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import area, clip, expand
from curator.errors import StageError
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from store.records import BoxTuple, NewAnnotation

SMALLER = 0.5
"""A failed object below this share of the scene's object (per side) is answered by scale."""
NOTICEABLE = 12.0
"""Lab distance of the means below which the colours are called alike: nothing to transfer."""
Array = NDArray[np.float64]


class AppearanceRecipe:
    """Gives a labelled scene the colours or the object size of the failing image."""

    name = "appearance"
    kinds: tuple[str, ...] = ("FN",)
    causes: tuple[str, ...] = ()

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """Needs an object of the class."""
        return any(a.category == category and not a.crowd for a in annotations)

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; see `curator.synthesize.base.Recipe`."""
        rng = np.random.default_rng([seed, scene.image_id])
        chosen = [
            i for i, a in enumerate(scene.annotations) if a.category == exemplar.category and not a.crowd
        ]
        if not chosen:
            raise StageError(f"scene {scene.image_id} has no object of class {exemplar.category}")
        number = chosen[int(rng.integers(len(chosen)))]
        target = np.asarray(scene.annotations[number].box)
        ratio = float(np.sqrt(area(exemplar.box) / max(float(area(target)), 1.0)))
        details: dict[str, Any] = {"object": number, "source": "image"}
        if ratio < SMALLER:
            factor = max(ratio, 0.25) * rng.uniform(0.9, 1.1)
            rendered, annotations = shrink(scene.image, scene.annotations, factor, rng)
            details.update(change="scale", factor=round(factor, 3))
            mask = torch.ones(rendered.shape[1:], dtype=torch.bool)
        else:
            strength = _soft_spot(target, scene.image.shape[1:], rng)
            rendered, distance = transfer_colours(exemplar, scene.image, target, strength)
            if distance < NOTICEABLE:
                raise StageError(
                    f"scene {scene.image_id} has the failing image's colours and object size already "
                    f"(Lab distance {distance:.0f}, size ratio {ratio:.2f})"
                )
            annotations = scene.annotations
            details.update(change="colour", distance=round(distance, 1))
            mask = torch.from_numpy(strength > 0)
            # The way through Lab and back changes a pixel even where the strength is zero.
            rendered = torch.where(mask, rendered, scene.image)
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        painted: BoxTuple = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        return SamplePlan(
            recipe=self.name,
            group=exemplar.group,
            scene=scene,
            exemplar=exemplar.image,
            exemplar_image_id=exemplar.image_id,
            outcome_id=exemplar.outcome_id,
            mask=mask,
            painted=painted,
            annotations=annotations,
            seed=seed,
            details=details,
            rendered=rendered,
        )


def transfer_colours(exemplar: Exemplar, image: Tensor, target: Any, strength: Array) -> tuple[Tensor, float]:
    """Reinhard's transfer from around the failed object to around `target`, applied where `strength` (H, W)
    says.

    Returns:
        the image (3, H, W) and the Lab distance of the two means.
    """
    source = _lab(exemplar.image)
    lab = _lab(image)
    from_mean, from_spread = _statistics(source, exemplar.box)
    to_mean, to_spread = _statistics(lab, target)
    gain = np.clip(from_spread / np.maximum(to_spread, 1e-3), 0.3, 2.0)
    moved = (lab - to_mean) * gain + from_mean
    mixed = lab + strength[..., None] * (moved - lab)
    with warnings.catch_warnings():  # colours outside sRGB are clipped, as wanted
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")
        rgb = np.clip(lab2rgb(mixed), 0, 1).astype(np.float32)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous(), float(np.linalg.norm(from_mean - to_mean))


def shrink(
    image: Tensor, annotations: Sequence[NewAnnotation], factor: float, rng: np.random.Generator
) -> tuple[Tensor, tuple[NewAnnotation, ...]]:
    """Shrink an image (3, H, W) by `factor` and fill the frame with copies, labels included. Neighbours in a
    row are mirror images, so that no seam shows there; nothing is turned upside down.

    A copy's object that is cut by the frame keeps its label while at least 30% of its box is visible.
    """
    height, width = image.shape[1:]
    small = F.interpolate(
        image[None],
        (max(round(height * factor), 8), max(round(width * factor), 8)),
        mode="bilinear",
        antialias=True,
    )[0]
    h, w = small.shape[1:]
    top, left = int(rng.integers(0, h)), int(rng.integers(0, w))
    rows, columns = -(-(height + top) // h), -(-(width + left) // w)
    row = torch.cat([small.flip(2) if c % 2 else small for c in range(columns)], dim=2)
    out = torch.cat([row] * rows, dim=1)[:, top : top + height, left : left + width].contiguous()
    kept = []
    scale = np.array([w / width, h / height] * 2)
    for a in annotations:
        x1, y1, x2, y2 = np.asarray(a.box) * scale
        for r in range(rows):
            for c in range(columns):
                across = (w - x2, w - x1) if c % 2 else (x1, x2)
                box = np.array(
                    [across[0] + c * w - left, y1 + r * h - top, across[1] + c * w - left, y2 + r * h - top]
                )
                visible = clip(box, width, height)
                if (
                    area(visible) >= 0.3 * area(box)
                    and min(visible[2] - visible[0], visible[3] - visible[1]) >= 3
                ):
                    bx = tuple(float(v) for v in visible)
                    kept.append(
                        NewAnnotation(
                            category=a.category,
                            box=(bx[0], bx[1], bx[2], bx[3]),
                            crowd=a.crowd,
                            difficult=a.difficult,
                        )
                    )
    return out, tuple(kept)


def _lab(image: Tensor) -> Array:
    return np.asarray(rgb2lab(image.permute(1, 2, 0).numpy()), dtype=np.float64)


def _statistics(lab: Array, box: Any) -> tuple[Array, Array]:
    """Mean and spread (3,) of the box with its surroundings."""
    height, width = lab.shape[:2]
    x1, y1, x2, y2 = clip(expand(box, 1.8), width, height).round().astype(int)
    part = lab[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].reshape(-1, 3)
    return part.mean(0), part.std(0)


def _soft_spot(box: Any, size: Sequence[int], rng: np.random.Generator) -> Array:
    """Strength (H, W) in [0, 1]: everywhere, or a spot around the box that fades out."""
    if rng.random() < 0.4:
        return np.ones(tuple(size))
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    centre = (np.asarray(box)[:2] + np.asarray(box)[2:]) / 2
    reach = float(max(box[2] - box[0], box[3] - box[1])) * rng.uniform(0.75, 1.3)
    distance = np.hypot(x - centre[0], y - centre[1])
    soft = rng.uniform(0.05, 0.35) * reach
    return np.asarray(np.clip((reach + soft - distance) / (2 * soft), 0, 1))
