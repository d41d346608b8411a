"""Regions: the parts of an image that an attribution singles out.

In: segments (h, w) in the input frame, phi (M,), the outcome's box and the pin. Out: region drafts with boxes
in stored-image pixels: "object" (the box), "support" (segments that raise the score), "culprit" (what to
blame: segments that lower the score of a miss, segments that raise the score of a false positive).

Of one sign, the densest segments are taken until they hold half of that sign's mass; those that touch form a
region; the heaviest regions are kept. A success has nothing to blame; for a false positive, what raises the
score is what to blame, so it has a culprit and no support. A map without evidence gives the object alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curator.boxes import area, clip
from store.keys import content_key
from store.records import BoxTuple, Floats, OutcomeKind, Pin, Region, RegionKind, SegmentMap

VERSION = 1
MASS = 0.5
"""Share of a sign's |phi| that the chosen segments hold."""
LIMIT = 3
"""Regions per kind at most."""
NOISE = 0.05
"""Segments below this share of the largest |phi| are never chosen."""


_SIGNS: Mapping[OutcomeKind, tuple[tuple[RegionKind, int], ...]] = {
    "TP": (("support", 1),),
    "FN": (("support", 1), ("culprit", -1)),
    "FP": (("culprit", 1),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDraft:
    """A region before it is stored; fields as in `store.records.Region`."""

    kind: RegionKind
    box: BoxTuple
    segments: tuple[int, ...]
    weight: float

    def stored(self, *, attribution_id: int, attribution_key: str, outcome_id: int, image_id: int) -> Region:
        """The record of a stored attribution's region."""
        key = content_key("region", VERSION, attribution_key, self.kind, self.segments)
        return Region(
            attribution_id=attribution_id,
            outcome_id=outcome_id,
            image_id=image_id,
            kind=self.kind,
            box=self.box,
            segments=self.segments,
            weight=self.weight,
            key=key,
        )


def find_regions(
    labels: NDArray[np.uint16], explained: SegmentMap, pin: Pin, *, kind: OutcomeKind, box: BoxTuple
) -> list[RegionDraft]:
    """Regions of one explained outcome, the object first, then by kind and weight.

    Args:
        labels: (h, w) segments in the pin's input frame.
        kind, box: of the outcome.
    """
    regions = [RegionDraft(kind="object", box=box, segments=(), weight=1.0)]
    if not explained.evidence:
        return regions
    pairs, boxes = adjacent_pairs(labels), segment_boxes(labels)
    for name, sign in _SIGNS[kind]:
        chosen = choose_segments(labels, explained.phi, sign)
        found = []
        for members in components(chosen, pairs):
            frame = boxes[members]
            bounds = np.concatenate([frame[:, :2].min(0), frame[:, 2:].max(0)])
            stored = clip(pin.to_image(bounds), pin.image_size[1], pin.image_size[0])
            if area(stored) > 0:  # letterbox padding lies outside the stored image
                x1, y1, x2, y2 = stored.tolist()
                found.append(
                    RegionDraft(
                        kind=name,
                        box=(x1, y1, x2, y2),
                        segments=tuple(members.tolist()),
                        weight=float(np.abs(explained.phi[members]).sum()),
                    )
                )
        found.sort(key=lambda region: (-region.weight, region.segments))
        regions += found[:LIMIT]
    return regions


def choose_segments(labels: NDArray[np.uint16], phi: Floats, sign: int) -> NDArray[np.int64]:
    """The densest segments of one sign that hold `MASS` of its |phi|, in ascending order."""
    strength = np.clip(sign * np.asarray(phi, dtype=np.float64), 0, None)
    eligible = np.flatnonzero(strength > NOISE * np.abs(phi).max(initial=0.0))
    if not len(eligible):
        return eligible
    density = strength[eligible] / np.bincount(labels.ravel(), minlength=len(phi))[eligible]
    ranked = eligible[np.argsort(-density, kind="stable")]
    held = np.cumsum(strength[ranked])
    enough = int(np.searchsorted(held, MASS * held[-1])) + 1
    return np.sort(ranked[:enough])


def adjacent_pairs(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Pairs (P, 2) of segments that share an edge between pixels."""
    wide = labels.astype(np.int64)
    right = np.stack([wide[:, :-1].ravel(), wide[:, 1:].ravel()], axis=1)
    below = np.stack([wide[:-1].ravel(), wide[1:].ravel()], axis=1)
    both = np.concatenate([right, below])
    return np.unique(both[both[:, 0] != both[:, 1]], axis=0)


def segment_boxes(labels: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Bounding boxes (M, 4) of the segments, input frame, pixel edges."""
    flat = labels.ravel()
    rows, columns = np.divmod(np.arange(flat.size), labels.shape[1])
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat))[:-1]])
    edges = [
        np.minimum.reduceat(columns[order], starts),
        np.minimum.reduceat(rows[order], starts),
        np.maximum.reduceat(columns[order], starts) + 1,
        np.maximum.reduceat(rows[order], starts) + 1,
    ]
    return np.stack(edges, axis=1).astype(np.float64)


def components(chosen: NDArray[np.int64], pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split chosen segments (n,) into groups that touch; each ascending."""
    if not len(chosen):
        return []
    inside = np.isin(pairs, chosen).all(axis=1)
    edges = np.searchsorted(chosen, pairs[inside])
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(chosen), len(chosen)))
    number, label = connected_components(graph, directed=False)
    return [chosen[label == i] for i in range(number)]
