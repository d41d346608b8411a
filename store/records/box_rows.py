"""What images offer a query: boxes with classes, scores and compact vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from store.records.boxes import Floats, Ints

CLASSES = 5  # classes kept per candidate, best first
VIEW_SCALE = 25.0
"""int8 of a vector's component = round(25 x component), so that +-5.08 is the range; components are scaled to
unit deviation (`curator.represent.projection`)."""
BoxesKind = Literal["offered", "outcomes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceShape:
    """What every image of a vector space holds.

    Attributes:
        views: box view -> dimension. image_views: view of the whole image -> dimension.
        classes: number of the detector's classes.
        facts: plain JSON: what the space was made with.
        arrays: what turns an embedder's output into the stored components, such as projections.
    """

    views: Mapping[str, int]
    image_views: Mapping[str, int]
    classes: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBoxes:
    """The boxes of one image, as `index` hands them to the Store.

    Attributes:
        key: content key; equal key, equal content.
        size: (height, width) of the stored image.
        boxes: (N, 4) stored-image pixels: the detector's candidates by falling score, then windows. (For
            "outcomes": the boxes of outcomes, then culprit regions.)
        labels: (C, 5) int, C <= N: classes of the first C boxes, best first, -1 where there is none.
        scores: (C, 5) probabilities of these classes.
        views: view -> (N, D) int8. image_views: view -> (D,) int8.
        outcome_ids: (N,), -1 for offered boxes. attribution_ids: (N,), -1 but for culprit regions.
    """

    image_id: int
    key: str
    size: tuple[int, int]
    boxes: Floats
    labels: Ints
    scores: Floats
    views: Mapping[str, NDArray[np.int8]]
    image_views: Mapping[str, NDArray[np.int8]]
    outcome_ids: Ints | None = None
    attribution_ids: Ints | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRows:
    """Boxes of many images: row i of every field describes box i; an image's rows are adjacent.

    Attributes:
        image_ids: (N,). sizes: (N, 2) height and width of the image.
        boxes: (N, 4) stored-image pixels.
        rows: (N,) numbers of the rows in the space's files, which are the ids of FAISS.
        labels: (N, 5) classes, best first, -1 where there is none (windows have none at all).
        scores: (N, 5) probabilities, 0 where there is no class.
        views: view -> (N, D) int8, see `VIEW_SCALE`.
        image_views: view -> (M, D) int8, one per image; `image_places`: (N,) its row there.
        outcome_ids, attribution_ids: (N,), -1 where there is none.
    """

    image_ids: Ints
    sizes: Ints
    boxes: Floats
    rows: Ints
    labels: Ints
    scores: Floats
    views: Mapping[str, NDArray[np.int8]]
    image_views: Mapping[str, NDArray[np.int8]]
    image_places: Ints
    outcome_ids: Ints
    attribution_ids: Ints

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> BoxRows:
        """The rows that a mask or an index array picks; `image_views` stay as they are."""
        return BoxRows(
            image_ids=self.image_ids[index],
            sizes=self.sizes[index],
            boxes=self.boxes[index],
            rows=self.rows[index],
            labels=self.labels[index],
            scores=self.scores[index],
            views={name: values[index] for name, values in self.views.items()},
            image_views=self.image_views,
            image_places=self.image_places[index],
            outcome_ids=self.outcome_ids[index],
            attribution_ids=self.attribution_ids[index],
        )

    def components(self, view: str) -> Floats:
        """Vectors (N, D) float32 of a view; an image's own is repeated for each of its boxes."""
        if view in self.views:
            return np.asarray(self.views[view], np.float32) / VIEW_SCALE
        return np.asarray(self.image_views[view][self.image_places], np.float32) / VIEW_SCALE

    @classmethod
    def of(cls, images: Sequence[ImageBoxes], rows: Ints | None = None) -> BoxRows:
        """Rows of images, in their order; at least one image."""
        counts = np.array([len(image) for image in images], np.int64)
        total = int(counts.sum())
        labels = np.full((total, CLASSES), -1, np.int64)
        scores = np.zeros((total, CLASSES), np.float32)
        starts = np.cumsum(counts) - counts
        for start, image in zip(starts, images, strict=True):
            labels[start : start + len(image.labels)] = image.labels
            scores[start : start + len(image.labels)] = image.scores
        nobody = [np.full(n, -1, np.int64) for n in counts]
        return cls(
            image_ids=np.repeat(np.array([i.image_id for i in images], np.int64), counts),
            sizes=np.repeat(np.array([i.size for i in images], np.int64).reshape(-1, 2), counts, axis=0),
            boxes=np.concatenate([np.asarray(i.boxes, np.float32).reshape(-1, 4) for i in images]),
            rows=np.arange(total, dtype=np.int64) if rows is None else rows,
            labels=labels,
            scores=scores,
            views={name: np.concatenate([i.views[name] for i in images]) for name in images[0].views},
            image_views={
                name: np.stack([i.image_views[name] for i in images]) for name in images[0].image_views
            },
            image_places=np.repeat(np.arange(len(images), dtype=np.int64), counts),
            outcome_ids=np.concatenate(
                [n if i.outcome_ids is None else i.outcome_ids for i, n in zip(images, nobody, strict=True)]
            ),
            attribution_ids=np.concatenate(
                [
                    n if i.attribution_ids is None else i.attribution_ids
                    for i, n in zip(images, nobody, strict=True)
                ]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRows:
    """What the detector says of many candidates, without their boxes and vectors.

    Attributes:
        image_ids: (N,), those of an image adjacent. labels, scores: (N, 5) as in `BoxRows`.
    """

    image_ids: Ints
    labels: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.image_ids)
