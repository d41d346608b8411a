"""The `appearance` recipe: global conditions, which no local inpainter can bring about.

In: a failure with its image, and a labelled scene. Out: a `SamplePlan` whose sample is rendered already. No
diffusion is involved; it is colour statistics and geometry:

    colour    mean and spread of each CIE Lab channel, taken from the failing image around the object, are
              given to the scene (Reinhard et al., IEEE CG&A 2001), over all of it or over a soft spot around
              one object
    contrast  where the luminance around the failed object spreads less: haze, J t + A (1 - t), the atmosphere
              A the surroundings' own bright end (Koschmieder's law, as in He, Sun & Tang, CVPR 2009)
    blur      where its edges are softer: a Gaussian that brings the scene's to the same width
    noise     where it is noisier: noise of the luminance of the missing variance
    scale     a failed object much smaller than the scene's is answered by the scene shrunk; copies of it,
              every other one mirrored, fill the frame, and every copy keeps its labels

What does not differ noticeably is left alone; `details["changes"]` says what was done. Blur and noise are a
camera's and reach the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import area, clip, expand
from curator.errors import StageError
from curator.inpaint.masks import Mask
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.photometry import (
    blur,
    blurred,
    gap,
    lab_of,
    luminance,
    mean_and_spread,
    noise,
    noisy,
    rgb_of,
    spread,
)
from curator.synthesize.recipes.placing import TOUCHED, covered
from store.records import BoxTuple, NewAnnotation

SMALLER = 0.5
"""A failed object below this share of the scene's object (per side) is answered by scale."""
NOTICEABLE = 12.0
"""Lab distance of the means below which the colours are called alike: nothing to transfer."""
HAZY = 0.7
"""Share of the scene's spread of luminance below which the failing one counts as low in contrast."""
BLURRED = 1.5
"""Ratio of the edges' widths from which on the failing image counts as blurred: an eye sees less."""
NOISY = 0.008
"""Standard deviation of the missing noise from which on it is added: two steps of 8 bits."""
Array = NDArray[np.float64]


class AppearanceRecipe:
    """Gives a labelled scene the look or the object size of the failing image."""

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
            made = tuple(range(len(annotations)))
        else:
            strength = _soft_spot(target, scene.image.shape[1:], rng)
            rendered, changes = change_look(exemplar, scene.image, target, strength, rng)
            if not changes:
                raise StageError(
                    f"scene {scene.image_id} has the failing image's colours, contrast, sharpness, noise and "
                    f"object size already (size ratio {ratio:.2f})"
                )
            annotations = scene.annotations
            details.update(change="look", changes=changes)
            if "blur" in changes or "noise" in changes:
                strength = np.ones_like(strength)
            mask = torch.from_numpy(strength > 0)
            # The way through Lab and back changes a pixel even where the strength is zero.
            rendered = torch.where(mask, rendered, scene.image)
            made = tuple(i for i, a in enumerate(annotations) if covered(mask, a.box) > TOUCHED)
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
            made=made,
            seed=seed,
            details=details,
            rendered=rendered,
        )


def change_look(
    exemplar: Exemplar, image: Tensor, target: Any, strength: Array, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Give an image (3, H, W) what differs noticeably in the look of the failing one around the object:
    colour and contrast where `strength` (H, W) says, blur and noise everywhere.

    Returns:
        the image, and what was done with its figure: "colour" the Lab distance of the means, "contrast" the
        transmission t, "blur" the Gaussian's and "noise" the noise's standard deviation; empty: nothing
        differs.
    """
    changes: dict[str, float] = {}
    failing, here = _near(exemplar.image, exemplar.box), _near(image, target)
    out = image
    moved, distance = transfer_colours(exemplar, image, target, strength)
    share = spread(exemplar.image, failing) / max(spread(image, here), 1e-3)
    if distance >= NOTICEABLE:
        out, changes["colour"] = moved, round(distance, 1)
    elif share < HAZY:  # Reinhard's transfer brings the spread along
        transmission = max(share, 0.3)
        air = float(np.quantile(luminance(exemplar.image)[failing], 0.95))
        weight = torch.from_numpy((1 - transmission) * strength).float()
        out, changes["contrast"] = image + weight * (air - image), round(transmission, 2)
    soft, sharp = blur(exemplar.image, failing), blur(out)
    if np.isfinite(soft + sharp) and soft > BLURRED * sharp:
        sigma = float(np.sqrt(soft**2 - sharp**2))
        out, changes["blur"] = blurred(out, sigma), round(sigma, 2)
    missing = float(np.sqrt(max(noise(exemplar.image) ** 2 - noise(out) ** 2, 0.0)))
    if missing > NOISY:
        out, changes["noise"] = noisy(out, missing, rng), round(missing, 4)
    return out, changes


def transfer_colours(exemplar: Exemplar, image: Tensor, target: Any, strength: Array) -> tuple[Tensor, float]:
    """Reinhard's transfer from around the failed object to around `target`, applied where `strength` (H, W)
    says.

    Returns:
        the image (3, H, W) and the Lab distance of the two means.
    """
    lab = lab_of(image)
    from_mean, from_spread = mean_and_spread(lab_of(exemplar.image), _near(exemplar.image, exemplar.box))
    to_mean, to_spread = mean_and_spread(lab, _near(image, target))
    gain = np.clip(from_spread / np.maximum(to_spread, 1e-3), 0.3, 2.0)
    moved = (lab - to_mean) * gain + from_mean
    return rgb_of(lab + strength[..., None] * (moved - lab)), gap(from_mean, to_mean)


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


def _near(image: Tensor, box: Any) -> Mask:
    """The box with its surroundings, (H, W)."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = clip(expand(box, 1.8), width, height).round().astype(int)
    mask = np.zeros((height, width), bool)
    mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return mask


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
