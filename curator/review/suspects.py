"""Suspect labels: confirm them, clear them, or mend them on the spot.

What is said is the `suspects` stage's. Mending is an edit of the labels: a wrong label that was mended is no
longer wrong, and `curator suspects`, run after the next diagnosis, no longer lists it.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from curator.boxes import iou
from curator.diagnose.settings import SuspectsConfig
from curator.errors import InputError
from curator.review.desk import READER, Desk, name_of
from curator.review.labels import Edited, as_stored, put
from store.errors import NotFoundError
from store.records import Annotation

Word = Literal["confirmed", "cleared", "open"]


class Say(BaseModel):
    """What is said of suspects: id (as text) -> word."""

    said: dict[int, Word] = Field(min_length=1, max_length=10_000)


class Mend(BaseModel):
    """Mend the label of a suspect."""

    suspect: int


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["suspects"])
    store = desk.store

    @own.get("/suspects")
    def listed() -> dict[str, Any]:
        """The list, the likeliest first, with what would mend each."""
        found = _listed(desk)
        ids = sorted({one["image"] for one in found})
        images = {i.id: i for i in store.images(reader=READER, ids=ids)} if ids else {}
        labels = store.annotations(ids, reader=READER) if ids else {}
        rows = []
        for one in found:
            image = images[one["image"]]
            stored = labels.get(image.id)
            own_labels = list(stored.annotations) if stored is not None else []
            mended = _mended(one, own_labels, desk)
            rows.append(
                {
                    **{name: one[name] for name in ("id", "image", "box", "kind", "category", "instead")},
                    "probability": one["probability"],
                    "why": one["why"],
                    "verdict": one["verdict"] or "open",
                    "failures": one["failures"],
                    "name": name_of(image.uri),
                    "width": image.width,
                    "height": image.height,
                    "mend": None if mended is None else mended[1],
                    "gone": _gone(one, own_labels),
                }
            )
        return {"suspects": rows, "listed": any(r.stage == "suspects" for r in store.runs(stage="suspects"))}

    @own.post("/suspects/say")
    def say(asked: Say) -> dict[str, Any]:
        """Confirm suspects (the label is wrong), clear them (it is right), or take that back."""
        from curator.diagnose.run_suspects import suspects

        with desk.writing():
            known = {one["id"]: one["verdict"] or "open" for one in _listed(desk)}
            of: dict[str, list[int]] = {"confirmed": [], "cleared": [], "open": []}
            for number, word in asked.said.items():
                of[word].append(number)
            suspects(
                store,
                SuspectsConfig(
                    confirm=tuple(of["confirmed"]), clear=tuple(of["cleared"]), forget=tuple(of["open"])
                ),
            )
        was = {number: known.get(number, "open") for number in asked.said}
        words = {"confirmed": "confirmed: wrong", "cleared": "cleared: right", "open": "left open"}
        told = ", ".join(f"{len(ids)} {words[word]}" for word, ids in of.items() if ids)
        return {"said": told, "undo": {"path": "/suspects/say", "body": {"said": was}}}

    @own.post("/suspects/mend")
    def mend(asked: Mend) -> dict[str, Any]:
        """Store the mended labels of the suspect's image as a new version."""
        one = next((s for s in _listed(desk) if s["id"] == asked.suspect), None)
        if one is None:
            raise NotFoundError(f"no suspect {asked.suspect} is listed; run curator suspects")
        image = desk.image(one["image"])
        stored = store.annotations([image.id], reader=READER).get(image.id)
        found = _mended(one, list(stored.annotations) if stored is not None else [], desk)
        if stored is None or found is None:
            raise InputError(f"suspect {asked.suspect}: its label is no longer there; open its boxes")
        known = {a.id: a for a in stored.annotations}
        objects = [as_stored(box, known, image) for box in found[0]]
        return put(desk, image, objects, stored.version)

    return own


def _listed(desk: Desk) -> list[dict[str, Any]]:
    from curator.diagnose.run_suspects import listed_suspects  # loads torch: no other page needs it

    current = desk.current()
    return [] if current is None else listed_suspects(desk.store, current)


def _mended(one: dict[str, Any], labels: list[Annotation], desk: Desk) -> tuple[list[Edited], str] | None:
    """The labels of the image with the suspect one mended, and in words what that does; None where the label
    is no longer there, or nothing tells what would be right."""

    def edited(a: Annotation) -> Edited:
        return Edited.model_validate({"class": a.category, "box": a.box, "of": a.id})

    at = _at(one, labels)
    others = [edited(a) for a in labels if not at or a.id != at[0].id]
    if one["kind"] == "missing label":
        if _gone(one, labels):
            return None
        new = Edited.model_validate({"class": one["category"], "box": tuple(one["box"])})
        return [*others, new], f"add the label {one['category']}"
    if not at:
        return None
    label = at[0]
    if one["kind"] == "wrong class":
        if not one["instead"]:
            return None
        changed = Edited.model_validate({"class": one["instead"], "box": label.box, "of": label.id})
        return [*others, changed], f"call it {one['instead']}"
    if one["kind"] == "shifted box":
        alarms = desk.store.outcomes(ids=one["failures"]) if one["failures"] else []
        seen = [o for o in alarms if o.kind == "FP" and o.category == label.category]
        if not seen:
            return None
        changed = Edited.model_validate({"class": label.category, "box": seen[0].box, "of": label.id})
        return [*others, changed], "move it to what the detector sees"
    return others, "delete the label"


def _at(one: dict[str, Any], labels: list[Annotation]) -> list[Annotation]:
    return [a for a in labels if a.category == one["category"] and _same(a.box, one["box"])]


def _gone(one: dict[str, Any], labels: list[Annotation]) -> bool:
    """True where the labels were edited since, so that the suspicion is settled."""
    return _overlapped(one, labels) if one["kind"] == "missing label" else not _at(one, labels)


def _overlapped(one: dict[str, Any], labels: list[Annotation]) -> bool:
    """True where a label of the class was drawn there since."""
    own = [a.box for a in labels if a.category == one["category"]]
    return bool(own) and bool(iou(own, [one["box"]]).max() >= 0.5)


def _same(a: Any, b: Any) -> bool:
    return all(abs(x - y) < 0.5 for x, y in zip(a, b, strict=True))
