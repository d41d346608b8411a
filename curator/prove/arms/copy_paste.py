"""Missed objects of the mined images, cut out and pasted into training images: the plainest synthesis.

Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation (CVPR 2021):
objects go anywhere, scaled and mirrored at random, without regard to the scene. An object is cut along its
polygon where it has one, along its box otherwise; the edge is feathered by a pixel or two. An object that is
half covered by what is pasted loses its label, as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from curator.prove.arms.base import Added, ArmContext, Labelled, Needs
from store.images import encode_png, read_pixels
from store.records import Annotation, BoxTuple, NewAnnotation

STREAM = 5  # of random numbers
MOST = 3  # objects pasted into one image
SCALE = (0.6, 1.5)
LARGEST = 0.8  # of the scene's side
HIDDEN = 0.5  # an object of which more is covered loses its label
FEATHER = 1.0  # pixels
SMALLEST = 4  # pixels; a smaller cut-out shows nothing


class CopyPaste:
    """Training images with missed objects pasted in."""

    drawn = True

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(cutouts=True)

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        assert context.cutouts is not None
        found: dict[str, Added] = {}
        for number in range(2 * budget):  # a few come out equal, or nothing fits
            rng = np.random.default_rng([context.seed, seed, STREAM, number])
            scene = context.cutouts.scenes[int(rng.integers(len(context.cutouts.scenes)))]
            chosen = rng.integers(len(context.cutouts.objects), size=int(rng.integers(1, MOST + 1)))
            made = pasted(scene, [context.cutouts.objects[k] for k in chosen], rng)
            if made is not None:
                found.setdefault(made.sha256, made)
            if len(found) == budget:
                break
        return tuple(found.values())


def pasted(
    scene: Labelled, objects: Sequence[tuple[Labelled, Annotation]], rng: np.random.Generator
) -> Added | None:
    """A scene with objects pasted in; None where not one could be."""
    pixels = read_pixels(scene.image.uri, sha256=scene.image.sha256).copy()
    height, width = pixels.shape[:2]
    labels: list[tuple[Annotation | NewAnnotation, int]] = [(a, 0) for a in scene.annotations]
    layer = np.zeros((height, width), np.int64)  # the last object that was pasted at each pixel
    count = 0
    for source, annotation in objects:
        cut = cut_out(read_pixels(source.image.uri, sha256=source.image.sha256), annotation)
        if cut is None:
            continue
        colour, mask = cut
        scale = rng.uniform(*SCALE)
        scale = min(scale, LARGEST * width / mask.shape[1], LARGEST * height / mask.shape[0])
        size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
        if min(size) < SMALLEST:
            continue
        mirrored = rng.random() < 0.5
        colour, mask = (_resized(part[:, ::-1] if mirrored else part, size) for part in (colour, mask))
        if mask.max() < 128:  # too thin for its new size
            continue
        x, y = int(rng.integers(0, width - size[0] + 1)), int(rng.integers(0, height - size[1] + 1))
        share = mask[..., None].astype(np.float32) / 255
        window = pixels[y : y + size[1], x : x + size[0]]
        window[:] = np.rint(share * colour + (1 - share) * window).astype(np.uint8)
        count += 1
        layer[y : y + size[1], x : x + size[0]][mask >= 128] = count
        labels = [(a, own) for a, own in labels if _hidden(a.box, layer, own) <= HIDDEN]
        labels.append((NewAnnotation(category=annotation.category, box=_extent(mask, x, y)), count))
    if not count:
        return None
    data = encode_png(pixels)
    return Added(sha256=hashlib.sha256(data).hexdigest(), annotations=tuple(a for a, _ in labels), data=data)


def cut_out(
    pixels: NDArray[np.uint8], annotation: Annotation
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """An object's pixels (h, w, 3) and its mask (h, w), 0 to 255; None for one of hardly a pixel."""
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = annotation.box
    left, top, right, bottom = max(0, int(x1)), max(0, int(y1)), min(width, round(x2)), min(height, round(y2))
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return None
    mask = Image.new("L", (right - left, bottom - top), 0 if annotation.polygon else 255)
    for ring in annotation.polygon or ():
        corners = [(x - left, y - top) for x, y in zip(ring[::2], ring[1::2], strict=True)]
        ImageDraw.Draw(mask).polygon(corners, fill=255)
    wide = ImageOps.expand(mask, border=4, fill=0).filter(ImageFilter.GaussianBlur(FEATHER))
    soft = np.asarray(wide)[4:-4, 4:-4]
    if not soft.max() >= 128:
        return None
    return pixels[top:bottom, left:right], soft


def _resized(part: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(size, Image.Resampling.BILINEAR))


def _hidden(box: BoxTuple, layer: NDArray[np.int64], own: int) -> float:
    """Share of a box's pixels that later objects cover."""
    x1, y1, x2, y2 = (max(0, int(v)) for v in box)
    inside = layer[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    return float((inside > own).mean()) if inside.size else 0.0


def _extent(mask: NDArray[np.uint8], x: int, y: int) -> BoxTuple:
    """The box of a mask that lies at (x, y)."""
    rows, columns = np.flatnonzero((mask >= 128).any(1)), np.flatnonzero((mask >= 128).any(0))
    left, top, right, bottom = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return float(x + left), float(y + top), float(x + right), float(y + bottom)
