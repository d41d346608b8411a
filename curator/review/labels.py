"""Labels of training and mined images: what they are, who made them, and edits of them.

Every edit is a new version, so that undoing is going back to an earlier one, which is a new version again.
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from curator.errors import InputError
from curator.review.desk import READER, Desk, name_of
from curator.review.overview import LABEL
from store.records import Annotation, ImageRecord, NewAnnotation

MOST = 5000
SMALLEST = 1.0


class Edited(BaseModel):
    """A box of the edited labels.

    `of` is the id of the stored object that it was, None for a new one: what is not drawn (crowd, difficult,
    attributes, a polygon) comes from it.
    """

    category: str = Field(alias="class", min_length=1, max_length=200)
    box: tuple[float, float, float, float]
    of: int | None = None


class Edit(BaseModel):
    """The labels of an image, made from version `base`."""

    base: int
    boxes: list[Edited] = Field(max_length=MOST)


class Back(BaseModel):
    """Go back to an earlier version."""

    base: int
    version: int


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["labels"])
    store = desk.store

    @own.get("/labels/{image}")
    def labels(image: int) -> dict[str, Any]:
        """An image's labels, their versions, and the classes that a box may have."""
        found = desk.image(image)
        versions = store.label_versions(image)
        stored = store.annotations([image], reader=READER).get(image)
        current = desk.current()
        names = {a.category for a in (stored.annotations if stored is not None else ())}
        names |= {category for _, _, category, _ in store.outcome_counts()}
        names |= set(current.class_map.values()) if current is not None else set()
        return {
            "image": image,
            "name": name_of(found.uri),
            "width": found.width,
            "height": found.height,
            "version": stored.version if stored is not None else 0,
            "status": stored.status if stored is not None else "",
            "boxes": [_plain(a) for a in (stored.annotations if stored is not None else ())],
            "classes": sorted(names),
            "versions": [
                {
                    "version": v.version,
                    "objects": v.objects,
                    "stage": v.stage,
                    "author": v.author,
                    "made": v.made_at.isoformat(),
                }
                for v in versions
            ],
        }

    @own.post("/labels/{image}")
    def edit(image: int, asked: Edit) -> dict[str, Any]:
        """Store edited labels as a new version."""
        found = desk.image(image)
        before = {a.id: a for a in (store.labels_of_version(image, asked.base) if asked.base else ())}
        objects = [as_stored(box, before, found) for box in asked.boxes]
        return put(desk, found, objects, asked.base)

    @own.post("/labels/{image}/back")
    def back(image: int, asked: Back) -> dict[str, Any]:
        """Store the labels of an earlier version again."""
        found = desk.image(image)
        earlier = store.labels_of_version(image, asked.version) if asked.version else ()
        objects = [_new(a) for a in earlier]
        return put(desk, found, objects, asked.base)

    return own


def put(desk: Desk, image: ImageRecord, objects: list[NewAnnotation], base: int) -> dict[str, Any]:
    """Store labels as a new version.

    Returns:
        what was done in words, the version, and how it is undone (None where nothing changed).
    """
    store = desk.store
    with desk.writing():
        config = {"author": desk.author, "image": image.id}
        with store.transaction():
            run = store.begin_run(LABEL, config=config)
            version = store.put_labels(run, image.id, objects, base)
            store.finish_run(run, status="done", counts={"done": int(version != base)})
    changed = version != base
    undo = {"path": f"/labels/{image.id}/back", "body": {"base": version, "version": base}}
    return {
        "said": f"Labels saved as version {version}" if changed else "Nothing had changed",
        "version": version,
        "undo": undo if changed else None,
    }


def _plain(a: Annotation) -> dict[str, Any]:
    return {
        "of": a.id,
        "class": a.category,
        "box": list(a.box),
        "crowd": a.crowd,
        "difficult": a.difficult,
        "polygon": a.polygon is not None,
    }


def _new(a: Annotation) -> NewAnnotation:
    return NewAnnotation(
        category=a.category,
        box=a.box,
        crowd=a.crowd,
        difficult=a.difficult,
        polygon=a.polygon,
        attributes=a.attributes,
    )


def as_stored(edited: Edited, before: dict[int, Annotation], image: ImageRecord) -> NewAnnotation:
    """A box as it is stored, with what its object had; its polygon moves and grows with it.

    Raises:
        InputError: a box outside the image or without area, a class that is no line of text, or an object
            that the version does not have.
    """
    x1, y1, x2, y2 = edited.box
    fits = all(map(math.isfinite, edited.box))
    fits = fits and x1 >= -0.5 and y1 >= -0.5 and x2 <= image.width + 0.5 and y2 <= image.height + 0.5
    if not (fits and x2 - x1 >= SMALLEST and y2 - y1 >= SMALLEST):
        raise InputError(f"expected a box of a pixel or more inside the image, got {list(edited.box)}")
    if not edited.category.isprintable() or not edited.category.strip():
        raise InputError(f"expected the name of a class, got {edited.category!r}")
    if edited.of is None:
        return NewAnnotation(category=edited.category, box=edited.box)
    if edited.of not in before:
        raise InputError(f"the edited version has no object {edited.of}; load the labels again")
    old = before[edited.of]
    return NewAnnotation(
        category=edited.category,
        box=edited.box,
        crowd=old.crowd,
        difficult=old.difficult,
        polygon=_moved(old, edited.box),
        attributes=old.attributes,
    )


def _moved(old: Annotation, box: tuple[float, float, float, float]) -> tuple[tuple[float, ...], ...] | None:
    """The polygon after its box was moved and resized."""
    if old.polygon is None or box == tuple(old.box):
        return old.polygon
    x1, y1, x2, y2 = old.box
    sx, sy = (box[2] - box[0]) / (x2 - x1), (box[3] - box[1]) / (y2 - y1)
    return tuple(
        tuple(box[1] + (v - y1) * sy if i % 2 else box[0] + (v - x1) * sx for i, v in enumerate(ring))
        for ring in old.polygon
    )
