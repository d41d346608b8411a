"""The split rule of `query_real.py`, stated before any figure was looked at.

Images   of a set, each content (sha256) once; broken images and images whose labels are incomplete are left
         out. A part "a-b" is the product's: the names that hash into [a, b) percent.
           vehicles   vehicles_openimages, splits train and valid (test proves retrainings: query_retrain.py)
           bccd       split train, part 35-100, and split val (part 0-35 trains the SSD, test proves)
           voc_coco   all of voc100 and of coco_val128, in COCO's class names
           deeppcb    split trainval, part 30-100, and split test (part 0-30 trains the SSD; no retraining)
Split s  orders them by sha256("query-real/{s}/{sha256 of the image}"): the first half (rounded down) is
         mined, the rest is the pool. Splits 0 to 3 are for development. Splits 9 and 19 are unread: refused
         without --unread, each run once, when all choices are made. 9 was read for the first predictor
         (results/query_real.json until 2026-11-29); 19 judges the prior and the penalties chosen after that
         reading, by the highest mean over the sets of (AP + hit@40) / 2 on splits 0 to 3 (vehicles 0 and 1,
         for time); within .003 the smaller change.
Selector (kind, class), kind FN or FP; and (kind, class, cause) where the mined half has at least 10 such
         failures. Classes are those that set and detector share.
Episode  (set, detector, selector, split) with at least 5 mined failures and at least 5 pool images that hold
         such a failure. Every episode is reported.
Truth    of the pool: the product's own diagnosis of it, hidden from the methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError

DEVELOPMENT = (0, 1, 2, 3)
UNREAD = (9, 19)
LEAST_FAILURES, LEAST_BY_CAUSE, LEAST_IMAGES = 5, 10, 5


def halves(sha256: Sequence[str], split: int, *, unread: bool = False) -> tuple[NDArray[np.int64], ...]:
    """Places of the mined images and of the pool's, in the order of the split.

    Args:
        sha256: of the images, each once.
    Raises:
        InputError: the unread split without `unread`, or an image twice.
    """
    if split in UNREAD and not unread:
        raise InputError(f"split {UNREAD} is unread: it is run once, at the end, with --unread")
    if len(set(sha256)) < len(sha256):
        raise InputError(f"splits: expected each image once, got {len(sha256) - len(set(sha256))} twice")
    salted = [hashlib.sha256(f"query-real/{split}/{own}".encode()).hexdigest() for own in sha256]
    order = np.array(sorted(range(len(salted)), key=salted.__getitem__), dtype=np.int64)
    return order[: len(order) // 2], order[len(order) // 2 :]
