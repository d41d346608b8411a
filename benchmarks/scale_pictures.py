"""Pictures that exist only as rows, for `scale.py`: hashes and thumbnails as photographs have them.

In: photographs (../shared/data), a seed, numbers of pictures. Out: hashes and thumbnails.

A made-up picture mixes two of `CROPS` crops of photographs: each crop takes 50 to 100% of each side at a
random place, every second one is mirrored; the first counts 50 to 60%. The product's own windows and
thresholds make the hashes, so that the windows of a picture lie as far apart as a photograph's, and bits are
as skewed. `check` says how near that comes: bits between two pictures and between a picture and its windows,
and how many pairs there are for one that is a candidate.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from store import appearance
from store.appearance import COLOUR, HASHES, LUMA, WINDOWS
from store.hash_table import HashTable, popcount

SETS = ("vehicles_openimages/**/*.jpg", "voc100/**/*.jpg", "coco_val128/**/*.jpg")
CROPS = 12_000
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


class Pictures:
    """Makes pictures by number; the same numbers give the same pictures."""

    def __init__(self, data: Path, seed: int = 0, crops: int = CROPS) -> None:
        draw = random.Random(seed)
        photographs = []
        for pattern in SETS:
            for path in sorted(data.glob(pattern)):
                picture = Image.open(path)
                picture.draft("RGB", (512, 512))
                photographs.append(picture.convert("RGB").resize((256, 256), Image.Resampling.BOX))
        self._seed = seed
        self._photographs = photographs
        self._luma = np.empty((crops, LUMA, LUMA), dtype=np.uint8)
        self._colour = np.empty((crops, 2, COLOUR, COLOUR), dtype=np.uint8)
        for k in range(crops):
            height, width = (draw.uniform(128, 256) for _ in range(2))
            left, top = draw.uniform(0, 256 - width), draw.uniform(0, 256 - height)
            box = (left, top, left + width, top + height)
            source = photographs[k % len(photographs)]
            crop = source.resize((LUMA, LUMA), Image.Resampling.BOX, box=box).convert("YCbCr")
            pixels = np.asarray(crop)[:, :: -1 if k % 2 else 1]
            self._luma[k] = pixels[..., 0]
            colours = pixels[..., 1:].reshape(COLOUR, 2, COLOUR, 2, 2).mean((1, 3))
            self._colour[k] = np.rint(np.moveaxis(colours, -1, 0))

    def make(self, start: int, count: int) -> tuple[Hashes, Bytes]:
        """(count, HASHES) hashes and (count, 6144) thumbnails of pictures `start` and after."""
        rng = np.random.default_rng([self._seed, start, count])
        one, other = rng.integers(0, len(self._luma), (2, count))
        share = rng.uniform(0.5, 0.6, (count, 1, 1)).astype(np.float32)
        luma = np.rint(share * self._luma[one] + (1 - share) * self._luma[other]).astype(np.uint8)
        share = share[..., None]
        colour = np.rint(share * self._colour[one] + (1 - share) * self._colour[other]).astype(np.uint8)
        thumbnails = np.concatenate([luma.reshape(count, -1), colour.reshape(count, -1)], axis=1)
        return hashes_of(luma), thumbnails

    def check(self, count: int = 4000) -> dict[str, Any]:
        """Made-up pictures beside photographs."""
        real = [np.frombuffer(appearance.appearance(p).hashes, dtype="<u8") for p in self._photographs]
        groups = {"photographs": np.stack(real).astype(np.uint64), "made up": self.make(0, count)[0]}
        return {name: _facts(hashes) for name, hashes in groups.items()}


def hashes_of(luma: Bytes) -> Hashes:
    """(N, LUMA, LUMA) -> (N, HASHES), as `store.appearance` makes them one by one."""
    stretches = list(dict.fromkeys(part for window in WINDOWS for part in (window[:2], window[2:])))
    bases = np.concatenate([appearance._to_frequencies(*stretch) for stretch in stretches])  # (S * 8, LUMA)
    along = (luma.reshape(-1, LUMA).astype(np.float64) @ bases.T).reshape(len(luma), LUMA, -1)
    both = (bases @ along).reshape(len(luma), len(stretches), 8, len(stretches), 8)
    flat = [both[:, stretches.index((t, b)), :, stretches.index((le, r))] for t, b, le, r in WINDOWS]
    flat.append(flat[0] * (-1.0) ** np.arange(8))  # of the mirror image
    low = np.round(np.stack(flat, axis=1).reshape(len(luma), HASHES, -1), 6)
    middle = np.partition(low, (31, 32), axis=-1)[..., 31:33].mean(-1, keepdims=True)
    packed = np.packbits(low > middle, axis=-1, bitorder="little")
    return np.asarray(np.ascontiguousarray(packed).view("<u8")[..., 0], dtype=np.uint64)


def _facts(hashes: Hashes) -> dict[str, Any]:
    pairs = np.triu_indices(min(len(hashes), 1000), 1)
    apart = popcount(hashes[pairs[0], 0] ^ hashes[pairs[1], 0]).astype(float)
    windows = popcount(hashes[:, :1] ^ hashes[:, 1:10]).astype(float)
    near = [(i, j) for i, j, _ in HashTable(hashes).near(hashes)]
    candidates = {(a, b) for i, j in near for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < b}
    return {
        "pictures": len(hashes),
        "bits apart": [round(float(apart.mean()), 2), round(float(apart.std()), 2)],
        "bits from a window": [round(float(windows.mean()), 2), round(float(windows.std()), 2)],
        "pairs for a candidate": round(len(hashes) * (len(hashes) - 1) / 2 / max(1, len(candidates))),
    }
