"""Vectors and what they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from store.records.boxes import BoxTuple, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOwner:
    """What a vector describes: a box of an image, perhaps a region or an outcome.

    Attributes:
        source: "candidate" (a detector's candidate box), "cell" (a grid cell), "outcome" (a failure's or
            success's box), "region", "image" (the whole of it).
        attribution_id: what blames the region, for "region". score: the candidate's score, 0 elsewhere.
        label: its class index or -1.
    """

    image_id: int
    box: BoxTuple
    source: Literal["candidate", "cell", "outcome", "region", "image"]
    outcome_id: int | None = None
    attribution_id: int | None = None
    score: float = 0.0
    label: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorBlock:
    """Vectors of one (embedder, view) with their owners.

    Attributes:
        ids: (N,) int64, the SQL ids, which are the FAISS ids.
        vectors: (N, D) float32.
    """

    ids: Ints
    vectors: Floats
    owners: tuple[VectorOwner, ...]
