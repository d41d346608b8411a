"""Detections beside ground truth: class maps and COCO's matching.

In: detections of one image in the data set's classes, its labelled objects. Out: which detection found which
object. Matching is COCO's: per class in descending score, ties in stored order, each detection takes the
unclaimed object that it overlaps most (the last of equals). Crowd and difficult boxes neither count nor
punish: a detection that finds no object of its own and lies with at least t_iou of its area in such a box of
its class is left out. A foundation like `curator.boxes`: any stage may import it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curator.boxes import area, intersection, iou
from curator.errors import InputError
from store.records import Annotation

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Detector classes in terms of the data set's.

    Attributes:
        categories: names of the data set's classes; a class is an index into them.
        of_label: (K,) int64, the class of each detector label, -1 where it has none.
        dropped: detector classes without a class of the data set.
        missing: classes of the data set that the detector cannot produce.
    """

    categories: tuple[str, ...]
    of_label: Indices
    dropped: tuple[str, ...]
    missing: tuple[str, ...]

    @classmethod
    def resolve(cls, labels: Sequence[str], categories: Sequence[str], named: Mapping[str, str]) -> ClassMap:
        """Map by `named` first, then by equal names, then by names equal but for case.

        Args:
            labels: the detector's classes. categories: the data set's. named: detector class -> category.
        Raises:
            InputError: `named` speaks of a class that one side does not have.
        """
        folded = {name.casefold(): i for i, name in reversed(list(enumerate(categories)))}
        exact = {name: i for i, name in enumerate(categories)}
        for label, name in named.items():
            if label not in labels:
                raise InputError(
                    f"--map {label}={name}: the detector has no class {label!r}; "
                    f"its classes: {_listed(labels)}"
                )
            if name not in exact:
                raise InputError(
                    f"--map {label}={name}: the data set has no class {name!r}; "
                    f"its classes: {_listed(categories)}"
                )
        of_label = np.array(
            [exact[named[n]] if n in named else exact.get(n, folded.get(n.casefold(), -1)) for n in labels],
            dtype=np.int64,
        ).reshape(-1)
        produced = set(of_label.tolist())
        return cls(
            tuple(categories),
            of_label,
            tuple(n for n, c in zip(labels, of_label, strict=True) if c < 0),
            tuple(name for i, name in enumerate(categories) if i not in produced),
        )

    def reordered(self, labels: Sequence[str], other: Sequence[str]) -> ClassMap:
        """The same map for a detector of the same classes in another order.

        Args:
            labels: the classes that this map speaks of. other: those of the other detector.
        """
        of_name = dict(zip(labels, self.of_label.tolist(), strict=True))
        return replace(self, of_label=np.array([of_name[name] for name in other], dtype=np.int64))

    def within(self, labelled: Collection[str] | None) -> ClassMap:
        """The same map where only objects of some classes are labelled: whether a detection of another class
        is right there, nobody knows.

        Args:
            labelled: names of the classes; None for all.
        """
        if labelled is None:
            return self
        known = np.array([name in labelled for name in self.categories] + [False])  # -1 stays
        return replace(self, of_label=np.where(known[self.of_label], self.of_label, -1))

    def unlabelled(self, labelled: Collection[str] | None) -> tuple[str, ...]:
        """Classes that the detector can produce and that are not among those labelled (None: all are)."""
        if labelled is None:
            return ()
        produced = np.unique(self.of_label[self.of_label >= 0]).tolist()
        return tuple(n for n in (self.categories[c] for c in produced) if n not in labelled)

    def pairs(self) -> list[tuple[int, str]]:
        """(detector label, class) of all that are mapped, for content keys."""
        return [(label, self.categories[c]) for label, c in enumerate(self.of_label) if c >= 0]

    def labels_of(self, category: int) -> Indices:
        """Detector labels (n,) that mean `category`."""
        return np.flatnonzero(self.of_label == category)


def not_judged(classes: ClassMap, images: Iterable[Collection[str] | None]) -> list[str]:
    """A line for every set of classes that some images' data sets do not list.

    Args:
        images: per image the classes that its labels speak of; None for all.
    """
    counts = Counter(classes.unlabelled(labelled) for labelled in images)
    return [
        f"the data sets of {count} images do not list {_listed(names)}: detections of "
        f"{'it' if len(names) == 1 else 'these'} there are not judged"
        for names, count in sorted(counts.items())
        if names
    ]


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Labelled objects of one image.

    Attributes:
        boxes: (G, 4). classes: (G,). ignored: (G,) crowd or difficult. ids: (G,) annotation ids.
    """

    boxes: Floats
    classes: Indices
    ignored: Bools
    ids: Indices

    @classmethod
    def of(cls, annotations: Sequence[Annotation], categories: Sequence[str]) -> GroundTruth:
        """From annotations, whose categories are found in `categories`."""
        index = {name: i for i, name in enumerate(categories)}
        return cls(
            np.array([a.box for a in annotations], dtype=np.float64).reshape(-1, 4),
            np.array([index[a.category] for a in annotations], dtype=np.int64),
            np.array([a.crowd or a.difficult for a in annotations], dtype=bool),
            np.array([a.id for a in annotations], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Matching:
    """Which detection found which object.

    Attributes:
        truth: (N,) the object that each detection found, -1 for none.
        left_out: (N,) detections that a crowd or difficult box excuses.
        found_by: (G,) the detection that found each object, -1 for none.
        overlaps: (N, G) IoU with objects; with ignored boxes the intersection over the detection's area.
    """

    truth: Indices
    left_out: Bools
    found_by: Indices
    overlaps: Floats

    @property
    def false_positive(self) -> Bools:
        """(N,) detections that are wrong."""
        return (self.truth < 0) & ~self.left_out


def match(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    classes: Indices,
    truth: GroundTruth,
    *,
    iou_threshold: float,
) -> Matching:
    """Match the detections of one image to its objects, as COCO does (maxDets unlimited).

    Args:
        boxes: (N, 4). scores: (N,). classes: (N,) data-set classes; the caller has applied the threshold.
    """
    overlaps = iou(boxes, truth.boxes)
    if truth.ignored.any():
        own = area(boxes)[:, None]
        inside = intersection(boxes, truth.boxes[truth.ignored])
        overlaps[:, truth.ignored] = np.divide(inside, own, out=np.zeros_like(inside), where=own > 0)
    matched = np.full(len(scores), -1, dtype=np.int64)
    found_by = np.full(len(truth.boxes), -1, dtype=np.int64)
    left_out = np.zeros(len(scores), dtype=bool)
    same = classes[:, None] == truth.classes[None, :]
    threshold = min(iou_threshold, 1 - 1e-10)
    reach = same & (overlaps >= threshold)
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        free = np.flatnonzero(reach[i] & ~truth.ignored & (found_by < 0))
        if len(free):
            best = free[
                len(free) - 1 - int(np.argmax(overlaps[i, free][::-1]))
            ]  # the last of equals, as COCO
            matched[i], found_by[best] = best, i
        else:
            left_out[i] = bool((reach[i] & truth.ignored).any())
    return Matching(matched, left_out, found_by, overlaps)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image's ground truth and detections: boxes (N, 4), scores (N,), data-set classes (N,)."""

    truth: GroundTruth
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    classes: NDArray[np.int64]

    def above(self, threshold: float) -> ImageResult:
        """The detections whose score is at least `threshold`."""
        keep = self.scores >= threshold
        return ImageResult(self.truth, self.boxes[keep], self.scores[keep], self.classes[keep])
