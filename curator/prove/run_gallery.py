"""The gallery of a verification: crops of holdout objects, as blobs of its own.

In: the holdout and finished trials. Out: plain facts, one a crop, for the run. Report and page show these
alone of the holdout's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from curator.prove.arms.base import split_label
from curator.prove.fates import unpack_holdout, unpack_matched
from curator.prove.gallery import choose
from curator.prove.trials import HoldoutImage
from store.errors import CorruptionError, ImageError
from store.images import encode_png
from store.records import BoxTuple, Trial

if TYPE_CHECKING:
    from store.store import Store

PER_KIND = 6  # crops of each kind, per arm
CONTEXT = 0.75  # of the object's larger side, on every side of it
SIDE = 192  # pixels, at most
SMALLEST = 48
_WITHOUT = ("nothing", "random", "oracle")


def put_gallery(
    store: Store, holdout: Sequence[HoldoutImage], trials: Sequence[Trial]
) -> list[dict[str, Any]]:
    """Crop and store.

    Returns:
        per crop {"arm", "kind", "blob", "box" (in the crop), "class", "image" (sha256), "seeds", "trials",
        "before", "after"}; [] where fates are not kept.
    """
    places = [(i, a) for i, image in enumerate(holdout) for a in image.annotations]
    facts: list[dict[str, Any]] = []
    for arm in dict.fromkeys(t.arm for t in trials if split_label(t.arm)[0] not in _WITHOUT):
        own = [t for t in trials if t.arm == arm]
        if any("fates" not in t.metrics for t in own):
            continue
        base = unpack_holdout(store.blob(own[0].metrics["base_fates"])).base
        matched = [unpack_matched(store.blob(t.metrics["fates"])) for t in own]
        if len(base.objects.image) != len(places):
            continue  # another holdout
        for shown in choose(base, matched, most=PER_KIND):
            number, annotation = places[shown.index]
            image = holdout[number].image
            with suppress(ImageError, CorruptionError):
                crop, box = _crop(store.pixels(image, reader="verify"), annotation.box)
                facts.append(
                    {
                        "arm": arm,
                        "kind": shown.kind,
                        "blob": store.put_blob(encode_png(crop)),
                        "box": box,
                        "class": annotation.category,
                        "image": image.sha256,
                        "seeds": shown.seeds,
                        "trials": shown.trials,
                        "before": shown.before,
                        "after": shown.after,
                    }
                )
    return facts


def _crop(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], box: BoxTuple
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[float]]:
    """The object with what is around it, at most `SIDE` pixels wide or high, and its box therein."""
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = box
    reach = max(CONTEXT * max(x2 - x1, y2 - y1), SMALLEST / 2)
    left, top = max(0, int(x1 - reach)), max(0, int(y1 - reach))
    right, bottom = min(width, int(x2 + reach) + 1), min(height, int(y2 + reach) + 1)
    part = Image.fromarray(pixels[top:bottom, left:right])
    scale = min(1.0, SIDE / max(part.size))
    size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    if size != part.size:
        part = part.resize(size, Image.Resampling.BILINEAR)
    moved = [(x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale]
    return np.asarray(part), [round(value, 2) for value in moved]
