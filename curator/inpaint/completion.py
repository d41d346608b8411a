"""Fill a hole with patches of its surroundings: what a scene looks like without an object, without a model.

In: an image and a hole. Out: the image with the hole filled in; pixels outside the hole are its own.

Global patch-based completion (Wexler, Shechtman & Irani, Space-time completion of video, IEEE TPAMI 2007;
weights and pyramid as Newson et al., Video inpainting of complex scenes, SIAM Imaging 2014): every patch that
overlaps the hole should have a twin in the surroundings. From coarse to fine, each such patch finds its
nearest neighbour there (by FAISS; exactly, but for a sample around very long holes), and each pixel of the
hole becomes the mean of what the neighbours of the patches over it say, nearer ones counting more; in the end
it becomes what the nearest says. Where the hole is large, the finest levels only copy by the neighbours found
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError
from curator.inpaint.masks import Mask, bounds

PATCH = 7
"""Pixels a side."""
_HALF = PATCH // 2
_ROUNDS = (5, 3, 2)  # of search and vote, from the coarsest level on; the last for all finer ones
_MOST = 26_000  # pixels of a level's window that are searched: finer levels copy
_COARSEST = 2 * PATCH  # pixels of the hole's width at the coarsest level
_AROUND = 32  # pixels of surroundings at least
_FEWEST = 500  # patches to choose from
_CHUNK = 50_000  # patches that are compared at once
Array = NDArray[np.float32]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class _Level:
    """A window at one scale: pixels (h, w, 3) in [0, 1], the hole (h, w), and what patches are not taken
    from, the hole included."""

    pixels: Array
    hole: Mask
    barred: Mask


def completed(image: Tensor, hole: Mask, avoid: Mask | None = None) -> Tensor:
    """Fill a hole from its surroundings.

    Args:
        image: (3, H, W) RGB [0, 1]. hole: (H, W), True = fill.
        avoid: (H, W), what nothing is taken from, such as other objects, which would stand in the hole again.
    Returns:
        (3, H, W); outside the hole bit for bit `image`.
    Raises:
        InputError: nothing of the image is outside the hole.
    """
    if not hole.any():
        return image.clone()
    if hole.all():
        raise InputError("expected a hole with something of the image around it, got one that is all of it")
    barred = hole if avoid is None else hole | avoid
    if not len(_sources(barred)):
        barred = hole
    rows, columns = _window(hole, barred)
    part = np.ascontiguousarray(image[:, rows, columns].permute(1, 2, 0).numpy(), dtype=np.float32)
    found = _complete(_Level(part, hole[rows, columns], barred[rows, columns]))
    out = image.clone()
    filled = torch.from_numpy(found).permute(2, 0, 1).to(image)
    inside = torch.from_numpy(hole[rows, columns])
    out[:, rows, columns] = torch.where(inside, filled, image[:, rows, columns])
    return out


def _window(hole: Mask, barred: Mask) -> tuple[slice, slice]:
    """The hole with its surroundings: as much again on each side, more where that holds too few patches."""
    x1, y1, x2, y2 = bounds(hole)
    height, width = hole.shape
    around = max(x2 - x1, y2 - y1, _AROUND)
    while True:
        rows = slice(max(y1 - around, 0), min(y2 + around, height))
        columns = slice(max(x1 - around, 0), min(x2 + around, width))
        whole = rows == slice(0, height) and columns == slice(0, width)
        if whole or len(_sources(barred[rows, columns])) >= _FEWEST:
            return rows, columns
        around *= 2


def _complete(finest: _Level) -> Array:
    """The level with its hole filled in."""
    if not len(_sources(finest.barred)):
        return _smooth(finest)  # too little around it for a patch
    levels = _pyramid(finest)
    current = _smooth(levels[-1])
    neighbours: Index | None = None
    for number, level in enumerate(reversed(levels)):
        sources, targets = _sources(level.barred), _targets(level.hole)
        if neighbours is not None:
            neighbours = _finer(neighbours, levels[len(levels) - number], level)
            neighbours = _legal(neighbours, sources, level.hole.shape)
            current = _vote(level, targets, neighbours, np.zeros(len(targets), np.float32), last=False)
            if level.hole.size > _MOST:
                distance = _distance(current, level, targets, neighbours)
                current = _vote(level, targets, neighbours, distance, last=level is finest)
                continue
        sources = sources[:: -(-len(sources) // _MOST)]  # a long thin hole has many around it
        index = _index(level.pixels, sources)
        rounds = _ROUNDS[min(number, len(_ROUNDS) - 1)]
        for turn in range(rounds):
            squared, nearest = _search(index, current, targets)
            neighbours = sources[nearest]
            last = level is finest and turn == rounds - 1
            current = _vote(level, targets, neighbours, squared, last=last)
    return current


def _pyramid(finest: _Level) -> list[_Level]:
    """From fine to coarse, until the hole is about as wide as two patches."""
    levels = [finest]
    while True:
        level = levels[-1]
        wide = 2 * float(ndimage.distance_transform_edt(np.pad(level.hole, 1))[1:-1, 1:-1].max())
        size = [side // 2 for side in level.hole.shape]
        if wide <= _COARSEST or min(size) < 3 * PATCH:
            return levels
        known = torch.from_numpy(~level.hole).float()[None, None]
        image = torch.from_numpy(level.pixels).permute(2, 0, 1)[None]
        weight = F.interpolate(known, size, mode="bilinear", antialias=True)
        small = F.interpolate(image * known, size, mode="bilinear", antialias=True) / weight.clamp(min=1e-6)
        smaller = small[0].permute(1, 2, 0).clamp(0, 1).numpy()
        holes = np.asarray((weight[0, 0] < 0.5).numpy())
        of_finer = torch.from_numpy(level.barred).float()[None, None]
        barred = holes | np.asarray(F.adaptive_max_pool2d(of_finer, size)[0, 0].numpy() > 0)
        if not holes.any() or not len(_sources(barred)):
            return levels
        levels.append(_Level(np.ascontiguousarray(smaller), holes, barred))


def _smooth(level: _Level) -> Array:
    """A level with its hole filled in by the biharmonic equation (Damelin & Hoang, IJMMS 2018); a large hole
    by the nearest pixels."""
    if level.hole.sum() > _MOST:
        near = ndimage.distance_transform_edt(level.hole, return_distances=False, return_indices=True)
        return np.asarray(level.pixels[near[0], near[1]], np.float32)
    solved = inpaint_biharmonic(level.pixels, level.hole, channel_axis=-1)
    return np.asarray(np.clip(solved, 0, 1), np.float32)


def _sources(barred: Mask) -> Index:
    """Centres (N, 2) of the patches that hold nothing of what is barred."""
    clear = ~ndimage.binary_dilation(barred, np.ones((PATCH, PATCH)))
    inside = np.zeros_like(clear)
    inside[_HALF : barred.shape[0] - _HALF, _HALF : barred.shape[1] - _HALF] = True
    return np.argwhere(clear & inside)


def _targets(hole: Mask) -> Index:
    """Centres (M, 2) of the patches that hold something of the hole; they may reach over the border."""
    return np.argwhere(ndimage.binary_dilation(hole, np.ones((PATCH, PATCH))))


def _patches(pixels: Array, centres: Index) -> Array:
    """Patches (N, 3 PATCH^2) around centres; the border is mirrored."""
    padded = np.pad(pixels, ((_HALF, _HALF), (_HALF, _HALF), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (PATCH, PATCH), axis=(0, 1))
    return np.ascontiguousarray(windows[centres[:, 0], centres[:, 1]].reshape(len(centres), -1))


def _index(pixels: Array, sources: Index) -> faiss.IndexFlatL2:
    index = faiss.IndexFlatL2(3 * PATCH * PATCH)
    index.add(_patches(pixels, sources))
    return index


def _search(index: faiss.IndexFlatL2, current: Array, targets: Index) -> tuple[Array, Index]:
    """Squared distances (M,) and numbers (M,) of the nearest patches."""
    found = [
        index.search(_patches(current, targets[i : i + _CHUNK]), 1) for i in range(0, len(targets), _CHUNK)
    ]
    return np.concatenate([d[:, 0] for d, _ in found]), np.concatenate([n[:, 0] for _, n in found])


def _distance(current: Array, level: _Level, targets: Index, neighbours: Index) -> Array:
    """Squared distances (M,) of patches to their neighbours."""
    found = []
    for i in range(0, len(targets), _CHUNK):
        here = _patches(current, targets[i : i + _CHUNK])
        there = _patches(level.pixels, neighbours[i : i + _CHUNK])
        found.append(((here - there) ** 2).sum(1))
    return np.concatenate(found).astype(np.float32)


def _vote(level: _Level, targets: Index, neighbours: Index, distance: Array, *, last: bool) -> Array:
    """The level with its hole filled by what the neighbours (M, 2) of the patches at `targets` (M, 2) say.

    Args:
        distance: (M,) squared, of the patches to their neighbours. last: each pixel becomes what the nearest
            of the patches over it says, not the mean.
    """
    height, width = level.hole.shape
    best = np.full((height, width), np.inf)
    if last:
        nearest = level.pixels.copy()
        for y, x, held, dy, dx in _over(targets, height, width):
            # Of equally near patches the one around the pixel itself.
            rank = distance[held] + 1e-6 * (abs(dy) + abs(dx))
            better = rank < best[y, x]
            best[y[better], x[better]] = rank[better]
            there = neighbours[held][better]
            nearest[y[better], x[better]] = level.pixels[there[:, 0] + dy, there[:, 1] + dx]
        return np.where(level.hole[..., None], nearest, level.pixels)
    # Weights relative to the nearest patch over a pixel, or all of a pixel's may vanish.
    for y, x, held, _, _ in _over(targets, height, width):
        best[y, x] = np.minimum(best[y, x], distance[held])
    spread = max(float(np.quantile(distance, 0.75)), 1e-6)
    total, mass = np.zeros((height, width, 3), np.float64), np.zeros((height, width))
    for y, x, held, dy, dx in _over(targets, height, width):
        weight = np.exp(-(distance[held] - best[y, x]) / (2 * spread))
        total[y, x] += weight[:, None] * level.pixels[neighbours[held, 0] + dy, neighbours[held, 1] + dx]
        mass[y, x] += weight
    mean = (total / np.maximum(mass, 1e-12)[..., None]).astype(np.float32)
    return np.where(level.hole[..., None], mean, level.pixels)


def _over(
    targets: Index, height: int, width: int
) -> Iterator[tuple[Index, Index, NDArray[np.bool_], int, int]]:
    """Per place in a patch: the pixels there (rows, columns), of which targets, and the place."""
    for dy in range(-_HALF, _HALF + 1):
        for dx in range(-_HALF, _HALF + 1):
            y, x = targets[:, 0] + dy, targets[:, 1] + dx
            held = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            yield y[held], x[held], held, dy, dx


def _finer(neighbours: Index, coarse: _Level, fine: _Level) -> Index:
    """Neighbours of the finer level's targets, by those of the coarser one's at the same place."""
    scale = np.array(fine.hole.shape) / np.array(coarse.hole.shape)
    field = np.zeros((*coarse.hole.shape, 2), np.int64)
    known = np.zeros(coarse.hole.shape, bool)
    targets = _targets(coarse.hole)
    field[targets[:, 0], targets[:, 1]] = neighbours - targets
    known[targets[:, 0], targets[:, 1]] = True
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    wanted = _targets(fine.hole)
    at = np.minimum((wanted / scale).astype(np.int64), np.array(coarse.hole.shape) - 1)
    y, x = nearest[0][at[:, 0], at[:, 1]], nearest[1][at[:, 0], at[:, 1]]
    return np.asarray(np.rint(wanted + field[y, x] * scale), np.int64)


def _legal(neighbours: Index, sources: Index, shape: tuple[int, ...]) -> Index:
    """Neighbours moved to the nearest source where they are none."""
    allowed = np.zeros(shape, bool)
    allowed[sources[:, 0], sources[:, 1]] = True
    near = ndimage.distance_transform_edt(~allowed, return_distances=False, return_indices=True)
    y = np.clip(neighbours[:, 0], 0, shape[0] - 1)
    x = np.clip(neighbours[:, 1], 0, shape[1] - 1)
    return np.stack([near[0][y, x], near[1][y, x]], axis=1)
