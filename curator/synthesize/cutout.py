"""Cutting a thing out of a photograph along its outline.

In: an image, and what is known of the thing: its polygon, its box, or some of its pixels. Out: a `Cutout`:
its pixels, a soft alpha, and how far the outline can be trusted.

With a box alone the thing is told from its surroundings by GrabCut (Rother, Kolmogorov & Blake, SIGGRAPH
2004) with two changes: the colour models are smoothed Lab histograms instead of Gaussian mixtures (no random
start), and the box says more than "inside": how often an object covers each place of its box.

    x_i   Lab colour of pixel i                       l_i  1 object, 0 background
    p_i   prior of l_i = 1 from the place, in [0, 1]  h_l  histogram of colours, weighted by label and prior
    E(l) = sum_i l_i (log h_0(x_i) - log h_1(x_i) - logit p_i)
         + G sum_ij [l_i != l_j] exp(-|x_i - x_j|^2 / 2b)

b is the mean of the |x_i - x_j|^2; pixels beyond the box are background. Histograms and the minimum of E (a
minimum cut) are computed in turn. The constants were chosen on half of coco_val128's polygons by
`benchmarks/cutouts.py`, which reports on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from skimage.draw import polygon as polygon_pixels
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip, iou
from curator.errors import StageError
from curator.inpaint.masks import IntBox, Mask, bounds
from curator.synthesize.photometry import lab_of
from store.records import BoxTuple

SMALLEST = 4.0
"""Pixels; a thing with a shorter side shows nothing that could be pasted."""
FEATHER = 0.7  # pixels; standard deviation of the soft edge, about a camera's own
_SIDE = 96  # pixels of the longer side at which the cut is sought: above, accuracy grows no more
_GROWN = 0.3  # of the box's side, on each side: what the background looks like
_SHAPE = (2.57, 3.51, 0.87)  # logit p = b (c - r), r the distance in this norm a, 1 at the box's sides
_BINS = (10, 14, 14)
_SMOOTH = 0.4  # bins
_SMOOTHNESS = 1.0  # G
_ROUNDS = 4
_TIGHT = 0.75  # IoU of the cut's extent with the box below which the cut is not believed
_NEAR = 0.5  # of a seed's extent: how far beyond it the rest of the thing is sought
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """A thing cut out of an image.

    Attributes:
        pixels: (3, h, w) RGB [0, 1], a window of the image. alpha: (h, w) float32 in [0, 1].
        window: where the pixels were, whole pixels of the image. extent: box of the alpha >= 0.5 in the
        image.
        box: the box that annotates the thing, where there is one; else the extent.
        quality: contrast along the outline in [0, 1): d / (d + 10), d the median Lab distance between just
            inside and just outside; 0 for a soft box.
        source: "polygon", "cut" (from a box), "mask" (from some of its pixels), or "box": the outline was not
            found and a soft super-ellipse in the box serves.
    """

    pixels: Tensor
    alpha: Tensor
    window: IntBox
    extent: BoxTuple
    box: BoxTuple
    quality: float
    source: str


def cut_object(
    image: Tensor, box: BoxTuple, polygon: Sequence[Sequence[float]] | None = None, *, fallback: bool = True
) -> Cutout:
    """Cut out the object in a box of an image (3, H, W).

    Args:
        box: xyxy pixels. polygon: its outline, flat (x, y, x, y, ...) rings in pixels; it is believed.
        fallback: give a soft box where the cut is empty, fills its window, or its extent is not the box's.
    Raises:
        StageError: less than `SMALLEST` pixels of the box are in the image.
    """
    height, width = image.shape[1:]
    inside = _box(clip(box, width, height))
    if min(inside[2] - inside[0], inside[3] - inside[1]) < SMALLEST:
        raise StageError(f"expected an object of at least {SMALLEST:.0f} pixels a side, got {tuple(box)}")
    if polygon:
        mask = polygon_mask(polygon, (height, width))
        if mask.sum() >= SMALLEST**2:
            return replace(_finished(image, mask, "polygon"), box=inside)
    window = _grown(inside, _GROWN, width, height)
    x1, y1, x2, y2 = window
    small, lab = _reduced(image[:, y1:y2, x1:x2])
    u, v = _places(np.asarray(box) - [x1, y1, x1, y1], (y2 - y1, x2 - x1), lab.shape[:2])
    logit = _SHAPE[1] * (_SHAPE[2] - (np.abs(u) ** _SHAPE[0] + np.abs(v) ** _SHAPE[0]) ** (1 / _SHAPE[0]))
    outside = np.maximum(np.abs(u), np.abs(v)) > 1.03  # an annotator's box is a pixel or so too narrow
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = _sharpened(_labelled(lab, logit, outside), small, image[:, y1:y2, x1:x2])
    # An annotated box is tight: a cut of another extent took a part of the object, or more than it.
    if fallback and (not mask.any() or float(iou([bounds(mask)], [inside])[0, 0]) < _TIGHT):
        return soft_box(image, inside)
    return replace(_finished(image, mask, "cut"), box=inside)


def cut_mask(image: Tensor, seeds: Mask) -> Cutout:
    """Cut out the thing of which `seeds` (H, W) bool are pixels, such as the segments blamed for a miss,
    whose outlines are those of segments. The outline moves to where the colours change; seeds of which the
    cut keeps less than half, or that it more than doubles, keep their own outline.

    Raises:
        StageError: `seeds` are fewer than `SMALLEST` squared.
    """
    if seeds.sum() < SMALLEST**2:
        raise StageError(f"expected at least {SMALLEST**2:.0f} pixels of a thing, got {int(seeds.sum())}")
    height, width = image.shape[1:]
    window = _grown(bounds(seeds), _NEAR, width, height)
    x1, y1, x2, y2 = window
    inside = seeds[y1:y2, x1:x2]
    small, lab = _reduced(image[:, y1:y2, x1:x2])
    share = _resized(torch.from_numpy(inside).float(), lab.shape[:2]).numpy() >= 0.5
    if not share.any():
        return _finished(image, seeds, "mask")
    reach = max(
        float(np.sqrt(share.sum())) / 4, 1.0
    )  # half a width of a compact thing is a quarter of a side
    signed = ndimage.distance_transform_edt(share) - ndimage.distance_transform_edt(~share)
    logit = np.clip(2 * signed / reach, -3, 3)
    cut = _sharpened(_labelled(lab, logit, signed < -2 * reach), small, image[:, y1:y2, x1:x2])
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = cut
    kept = (mask & seeds).sum() / seeds.sum()
    if kept < 0.5 or mask.sum() > 2 * seeds.sum():
        mask = seeds
    return _finished(image, mask, "mask")


def soft_box(image: Tensor, box: BoxTuple) -> Cutout:
    """The content of a box of an image (3, H, W) as a super-ellipse that fades out over a tenth of the side:
    for a thing whose outline is not known. It brings some of its own surroundings along."""
    height, width = image.shape[1:]
    window = _grown(box, 0.1, width, height, least=1.0)  # where the super-ellipse has faded
    x1, y1, x2, y2 = window
    u, v = _places(np.asarray(box) - [x1, y1, x1, y1], (y2 - y1, x2 - x1), (y2 - y1, x2 - x1))
    distance = (np.abs(u) ** _SHAPE[0] + np.abs(v) ** _SHAPE[0]) ** (1 / _SHAPE[0])
    alpha = np.clip((1.1 - distance) / 0.2, 0, 1).astype(np.float32)
    return Cutout(
        pixels=image[:, y1:y2, x1:x2].clone(),
        alpha=torch.from_numpy(alpha),
        window=window,
        extent=_box(box),
        box=_box(box),
        quality=0.0,
        source="box",
    )


def polygon_mask(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """Pixels (H, W) = `size` whose centres lie in one of the flat (x, y, x, y, ...) rings."""
    mask = np.zeros(size, bool)
    for ring in rings:
        points = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
        if len(points) > 2:
            rows, columns = polygon_pixels(  # type: ignore[no-untyped-call]
                points[:, 1] - 0.5, points[:, 0] - 0.5, size
            )
            mask[rows, columns] = True
    return mask


def outline_contrast(image: Tensor, mask: Mask, reach: int = 3) -> float:
    """Median Lab distance d between just inside and just outside the outline of `mask` (H, W), as d / (d +
    10) in [0, 1); 10 is a difference seen at a glance. 0 where the mask is empty or fills the image."""
    if not mask.any() or mask.all():
        return 0.0
    height, width = mask.shape
    x1, y1, x2, y2 = _grown(bounds(mask), 0.0, width, height, least=2 * reach)
    inside = mask[y1:y2, x1:x2]
    lab = lab_of(image[:, y1:y2, x1:x2])
    size = 2 * reach + 1

    def mean(part: Mask) -> Array:
        weight = ndimage.uniform_filter(part.astype(np.float64), size, mode="nearest")
        total = ndimage.uniform_filter(lab * part[..., None], (size, size, 0), mode="nearest")
        return np.asarray(total / np.maximum(weight, 1e-9)[..., None])

    outline = inside & ~ndimage.binary_erosion(inside, border_value=1)
    if not outline.any():
        return 0.0
    distance = float(np.median(np.linalg.norm(mean(inside) - mean(~inside), axis=-1)[outline]))
    return distance / (distance + 10)


def _labelled(lab: Array, logit: Array, outside: Mask) -> Mask:
    """The minimum of E: object pixels (h, w). lab: (h, w, 3). logit: (h, w). outside: surely background."""
    prior = np.where(outside, 0.0, 1 / (1 + np.exp(-logit)))
    bins = _bins(lab)
    pairs = _neighbours(lab)
    weight = prior
    mask: Mask = prior > 0.5
    for _ in range(_ROUNDS):
        colour = np.log(_histogram(bins, weight)[bins] / _histogram(bins, 1 - weight)[bins])
        unary = np.where(outside, -30.0, np.clip(colour, -4, 4) + logit)
        new = _minimum_cut(unary, pairs)
        if new.sum() < 4 or np.array_equal(new, mask):
            break
        mask = new
        weight = (mask + prior) / 2 * ~outside
    return mask


def _bins(lab: Array) -> NDArray[np.intp]:
    low, high = np.array([0, -70, -70]), np.array([100, 70, 70])
    place = ((lab - low) / (high - low) * _BINS).clip(0, np.array(_BINS) - 1).astype(np.intp)
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(place, -1, 0)), _BINS))


def _histogram(bins: NDArray[np.intp], weight: Array) -> Array:
    """Smoothed share of the weight in each bin, never 0."""
    count = np.bincount(bins.ravel(), weight.ravel(), minlength=int(np.prod(_BINS))).reshape(_BINS)
    smooth = ndimage.gaussian_filter(count, _SMOOTH, mode="constant").ravel() + 1e-9
    return np.asarray(smooth / smooth.sum() + 1e-3 / smooth.size)


Pairs = list[tuple[NDArray[np.intp], NDArray[np.intp], Array]]


def _neighbours(lab: Array) -> Pairs:
    """Pairs of pixels of the 8-neighbourhood with the price of parting them."""
    index = np.arange(lab.shape[0] * lab.shape[1]).reshape(lab.shape[:2])
    colours = lab.reshape(-1, 3)
    ways = [
        (index[:, :-1], index[:, 1:], 1.0),
        (index[:-1], index[1:], 1.0),
        (index[:-1, :-1], index[1:, 1:], 2**-0.5),
        (index[:-1, 1:], index[1:, :-1], 2**-0.5),
    ]
    gaps = [((colours[a.ravel()] - colours[b.ravel()]) ** 2).sum(1) for a, b, _ in ways]
    scale = max(2 * float(np.concatenate(gaps).mean()), 1e-6)
    return [
        (a.ravel(), b.ravel(), _SMOOTHNESS * near * np.exp(-gap / scale))
        for (a, b, near), gap in zip(ways, gaps, strict=True)
    ]


def _minimum_cut(unary: Array, pairs: Pairs) -> Mask:
    """Object pixels (h, w) of the labelling with the least energy; `unary`: what label 1 gains over 0."""
    count = unary.size
    source, sink = count, count + 1
    gain, pixels = unary.ravel(), np.arange(count)
    rows, columns, prices = [], [], []
    for a, b, price in pairs:
        rows += [a, b]
        columns += [b, a]
        prices += [price, price]
    rows += [np.full(count, source), pixels]
    columns += [pixels, np.full(count, sink)]
    prices += [np.maximum(gain, 0), np.maximum(-gain, 0)]
    capacity = np.rint(np.concatenate(prices) * 200).astype(np.int32)  # maximum_flow takes whole numbers
    graph = csr_array((capacity, (np.concatenate(rows), np.concatenate(columns))), shape=(count + 2,) * 2)
    residual = graph - maximum_flow(graph, source, sink, method="dinic").flow
    residual.eliminate_zeros()
    reached = np.zeros(count + 2, bool)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return reached[:count].reshape(unary.shape)


def _sharpened(mask: Mask, small: Tensor, image: Tensor) -> Mask:
    """A mask found in the reduced image (h, w) at the size of `image` (3, H, W), its outline on the
    luminance's
    edges: the guided filter (He, Sun & Tang, ECCV 2010)."""
    rough = _resized(torch.from_numpy(mask).float(), image.shape[1:]).numpy().astype(np.float64)
    if small.shape == image.shape:
        return np.asarray(rough >= 0.5)
    size = 2 * int(np.ceil(image.shape[1] / small.shape[1])) + 1
    guide = image.mean(0).numpy().astype(np.float64)

    def mean(a: Array) -> Array:
        return np.asarray(ndimage.uniform_filter(a, size, mode="nearest"))

    guide_mean, rough_mean = mean(guide), mean(rough)
    slope = (mean(guide * rough) - guide_mean * rough_mean) / (mean(guide**2) - guide_mean**2 + 1e-3)
    return np.asarray(mean(slope) * guide + mean(rough_mean - slope * guide_mean) >= 0.5)


def _finished(image: Tensor, mask: Mask, source: str) -> Cutout:
    height, width = mask.shape
    extent = bounds(mask)
    x1, y1, x2, y2 = window = _grown(extent, 0.0, width, height, least=3)
    # The image's border is no outline: mirrored there, the alpha stays 1.
    alpha = ndimage.gaussian_filter(mask[y1:y2, x1:x2].astype(np.float32), FEATHER, mode="nearest")
    return Cutout(
        pixels=image[:, y1:y2, x1:x2].clone(),
        alpha=torch.from_numpy(np.clip(alpha, 0, 1)),
        window=window,
        extent=_box(extent),
        box=_box(extent),
        quality=outline_contrast(image, mask),
        source=source,
    )


def _reduced(image: Tensor) -> tuple[Tensor, Array]:
    """An image with its longer side at most `_SIDE`, and its Lab."""
    height, width = image.shape[1:]
    scale = min(_SIDE / max(height, width), 1.0)
    size = max(round(height * scale), 2), max(round(width * scale), 2)
    small = image if scale == 1 else F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return small, lab_of(small)


def _resized(mask: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(mask[None, None], tuple(size), mode="bilinear", antialias=True)[0, 0]


def _places(box: Array, size: tuple[int, int], shape: Sequence[int]) -> tuple[Array, Array]:
    """Where the pixels of a grid of `shape` over an image of `size` lie in a box: -1 and 1 are its sides."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    x, y = x * size[1] / shape[1], y * size[0] / shape[0]
    half = np.maximum((box[2:] - box[:2]) / 2, 0.5)
    return (x - (box[0] + box[2]) / 2) / half[0], (y - (box[1] + box[3]) / 2) / half[1]


def _grown(box: Sequence[float], share: float, width: int, height: int, least: float = 4.0) -> IntBox:
    by_x, by_y = max(share * (box[2] - box[0]), least), max(share * (box[3] - box[1]), least)
    return _whole((box[0] - by_x, box[1] - by_y, box[2] + by_x, box[3] + by_y), width, height)


def _whole(box: Sequence[float], width: int, height: int) -> IntBox:
    low = (max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0))
    return *low, min(int(np.ceil(box[2])), width), min(int(np.ceil(box[3])), height)


def _box(values: Sequence[float] | Array) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2
