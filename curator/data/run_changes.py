"""What a labelling tool changed between `curator export` and `curator add`, counted.

In: the images of an export as they come back, one by one, then the export's record. Out: plain counts, for a
summary: objects that moved by rounding, what the tool lost (attributes, classes, images), what people
corrected. Nothing here changes what is stored.

Objects of an image are paired: equal ones first, then those whose corners all lie within `ROUNDING` pixels,
then the rest of one class by overlap. What is left over was added or removed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.boxes import iou
from curator.data.formats.base import LabelledImage
from curator.data.formats.placement import place
from curator.data.record import PlannedImage, VersionRecord, recorded
from curator.data.run_returned import Recognised
from curator.registry import FORMATS
from store.records import NewAnnotation

if TYPE_CHECKING:
    from store.store import Store

ROUNDING = 1.5
"""Pixels by which a corner may move where a tool rounds: whole pixels, and counting them from 1."""
_OVERLAP = 0.3
"""IoU from which two objects of one class are one that was moved."""
Pair = tuple[NewAnnotation, NewAnnotation]


class Returned:
    """Images of exports that come back, in a private SQLite file: memory stays flat."""

    def __enter__(self) -> Returned:
        self.database = sqlite3.connect("")
        self.database.execute("CREATE TABLE returned (image INTEGER PRIMARY KEY, sha256 TEXT, labels TEXT)")
        return self

    def __exit__(self, *exc: object) -> None:
        self.database.close()

    def note(self, image_id: int, sha256: str, annotations: Sequence[NewAnnotation] | None) -> None:
        """One image. annotations: None where its labels do not count."""
        labels = None if annotations is None else json.dumps([_plain(a) for a in annotations])
        self.database.execute("INSERT OR IGNORE INTO returned VALUES (?, ?, ?)", (image_id, sha256, labels))

    def summary(
        self, store: Store, recognised: Recognised, categories: Sequence[str], listed: bool
    ) -> dict[str, Any] | None:
        """What was changed since the newest export that holds most of the images; None where none came back.

        Args:
            categories: classes of what came back. listed: the data set lists them.
        """
        ids = {row[0] for row in self.database.execute("SELECT image FROM returned")}
        if not ids:
            return asdict(recognised) if recognised.unlike else None
        version = max(store.versions(), key=lambda v: (len(ids.intersection(v.image_ids)), v.id or 0))
        changes = _Changes(frozenset(categories) if listed else None)
        if "record" in version.manifest:
            record = VersionRecord.of(store.blob(version.manifest["record"]))
            form = FORMATS.load(record.head["format"])()
            for images in recorded(store.blob, record.images):
                for image in images:
                    if image.role != "sample":
                        sent = form.carried(_named(image, record.names)) or ()
                        changes.image(sent, self._labels(image.source))
        return {"version": version.name, "version_number": version.id, **asdict(recognised), **changes.told()}

    def _labels(self, sha256: str) -> tuple[bool, list[NewAnnotation] | None]:
        """(did it come back, its labels)."""
        query = "SELECT labels FROM returned WHERE sha256 = ?"
        row = self.database.execute(query, (sha256,)).fetchone()
        if row is None or row[0] is None:
            return row is not None, None
        return True, [_annotation(raw) for raw in json.loads(row[0])]


class _Changes:
    """Counts over the images of an export."""

    def __init__(self, classes: frozenset[str] | None) -> None:
        self.classes = classes
        self.counts = Counter[str]()
        self.attributes, self.renamed = Counter[str](), Counter[tuple[str, str]]()
        self.before, self.after = Counter[str](), Counter[str]()
        self.farthest = 0.0

    def image(
        self, sent: Sequence[NewAnnotation], back: tuple[bool, Sequence[NewAnnotation] | None]
    ) -> None:
        came, labels = back
        if not came:
            self.counts["not_returned"] += 1
            self.counts["not_returned_empty"] += not sent
            return
        self.counts["images"] += 1
        if labels is None:
            self.counts["without_labels"] += 1
            return
        self.before.update(a.category for a in sent)
        self.after.update(a.category for a in labels)
        before = sum(self.counts[name] for name in ("moved", "added", "removed", "relabelled"))
        left, rest = list(sent), list(labels)
        for one, other in _close(left, rest):
            distance = _distance(one, other)
            if distance > 1e-6:
                self.counts["rounded"] += 1
                self.farthest = max(self.farthest, distance)
            self._pair(one, other)
        for one, other in _overlapping(left, rest):
            self.counts["moved"] += 1
            self._pair(one, other)
        self.counts["removed"] += len(left)
        self.counts["added"] += len(rest)
        after = sum(self.counts[name] for name in ("moved", "added", "removed", "relabelled"))
        self.counts["corrected_images"] += after > before

    def _pair(self, one: NewAnnotation, other: NewAnnotation) -> None:
        lost = [name for name in one.attributes if name not in other.attributes]
        lost += [name for name in ("difficult", "crowd") if getattr(one, name) and not getattr(other, name)]
        self.attributes.update(lost)
        if one.category != other.category:
            if self._is_gone(one.category):
                self.renamed[one.category, other.category] += 1
            else:
                self.counts["relabelled"] += 1

    def _is_gone(self, name: str) -> bool:
        return self.classes is not None and name not in self.classes

    def told(self) -> dict[str, Any]:
        """Plain JSON."""
        names = ["images", "without_labels", "not_returned", "not_returned_empty", "rounded", "moved"]
        names += ["added", "removed", "relabelled", "corrected_images"]
        renamed = {f"{one} -> {other}": count for (one, other), count in sorted(self.renamed.items())}
        changed = {one for one, _ in self.renamed}, {other for _, other in self.renamed}
        return {
            **{name: self.counts[name] for name in names},
            "rounded_by": round(self.farthest, 3),
            "attributes_lost": dict(sorted(self.attributes.items())),
            "classes_renamed": renamed,
            "classes_missing": sorted(c for c in self.before if self._is_gone(c) and c not in changed[0]),
            "classes_new": sorted(c for c in self.after if c not in self.before and c not in changed[1]),
        }


def _named(image: PlannedImage, names: Mapping[str, str]) -> tuple[NewAnnotation, ...]:
    """An image's labels as its file held them."""
    given = tuple(replace(a, category=names.get(a.category, a.category)) for a in image.annotations)
    item = LabelledImage(path=Path(image.name), name=image.name, annotations=given)
    return place(item, (image.width, image.height)).annotations or ()


def _close(left: list[NewAnnotation], rest: list[NewAnnotation]) -> Iterator[Pair]:
    """Pairs of equal objects, then of those within `ROUNDING`, those of one class first; takes them out."""
    where: dict[object, list[NewAnnotation]] = {}
    for other in rest:
        where.setdefault((other.category, other.box), []).append(other)
    for one in list(left):
        if found := where.get((one.category, one.box)):
            other = found.pop()
            _take(left, one)
            _take(rest, other)
            yield one, other
    for same in (True, False):
        for one in list(left):
            near = [
                (distance, place)
                for place, other in enumerate(rest)
                if (one.category == other.category) is same
                and (distance := _distance(one, other)) <= ROUNDING
            ]
            if near:
                other = rest[min(near)[1]]
                _take(left, one)
                _take(rest, other)
                yield one, other


def _overlapping(left: list[NewAnnotation], rest: list[NewAnnotation]) -> Iterator[Pair]:
    """Pairs of one class by falling overlap; takes them out."""
    if not left or not rest:
        return
    overlap = iou([a.box for a in left], [a.box for a in rest])
    pairs = [
        (-float(overlap[i, j]), i, j)
        for i, j in np.argwhere(overlap >= _OVERLAP).tolist()
        if left[i].category == rest[j].category
    ]
    ones, others = list(left), list(rest)
    taken: set[tuple[bool, int]] = set()
    for _, i, j in sorted(pairs):
        if (False, i) not in taken and (True, j) not in taken:
            taken.update(((False, i), (True, j)))
            _take(left, ones[i])
            _take(rest, others[j])
            yield ones[i], others[j]


def _take(objects: list[NewAnnotation], one: NewAnnotation) -> None:
    del objects[next(place for place, other in enumerate(objects) if other is one)]


def _distance(one: NewAnnotation, other: NewAnnotation) -> float:
    """Pixels that the farthest coordinate moved by."""
    return max(abs(a - b) for a, b in zip(one.box, other.box, strict=True))


def _plain(annotation: NewAnnotation) -> dict[str, Any]:
    return {
        "category": annotation.category,
        "box": annotation.box,
        "difficult": annotation.difficult,
        "crowd": annotation.crowd,
        "attributes": dict.fromkeys(annotation.attributes, 1),
    }


def _annotation(raw: Mapping[str, Any]) -> NewAnnotation:
    x1, y1, x2, y2 = raw["box"]
    return NewAnnotation(**{**raw, "box": (x1, y1, x2, y2)})
