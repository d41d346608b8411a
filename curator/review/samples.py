"""Samples: before and after, the gate's verdicts, what a person says of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from curator.review.desk import Desk
from curator.review.images import Side, picture
from curator.review.pictures import Pixels, crop, whole
from store.errors import NotFoundError
from store.images import read_bytes_as_pixels
from store.records import PERSON, Sample

Word = Literal["accepted", "rejected", "open"]
VALUES: dict[Word, bool | None] = {"accepted": True, "rejected": False, "open": None}
WORDS: dict[bool | None, Word] = {value: word for word, value in VALUES.items()}


class Judge(BaseModel):
    """What a person says of samples: id (as text) -> word; open leaves it to the gate."""

    said: dict[int, Word] = Field(min_length=1, max_length=10_000)


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["samples"])
    known: OrderedDict[int, Sample] = OrderedDict()  # their pictures never change

    def sample(number: int) -> Sample:
        if number not in known:
            known.update((s.id or 0, s) for s in desk.store.samples())
        if number not in known:
            raise NotFoundError(f"no sample {number} in this workspace; `curator samples` lists them")
        return known[number]

    def painted(one: Sample) -> Pixels:
        return read_bytes_as_pixels(desk.store.blob(one.blob))

    @own.get("/samples")
    def samples(batch: str | None = None) -> dict[str, Any]:
        """The samples of one batch, and the batches."""
        found = desk.store.samples()
        known.update((s.id or 0, s) for s in found)
        names = list(dict.fromkeys(s.name for s in found))
        chosen = batch if batch in names else (names[0] if names else None)
        return {
            "batches": names,
            "batch": chosen,
            "samples": [_plain(s) for s in found if s.name == chosen],
        }

    @own.get("/samples/{number}/picture", response_class=Response)
    def after(number: int, most: Annotated[int, Query(ge=64, le=4096)] = 2048) -> Response:
        """The sample as JPEG."""
        one = sample(number)
        return picture(desk.made(("sample", one.blob, most), lambda: whole(painted(one), most)))

    @own.get("/samples/{number}/before", response_class=Response)
    def before(number: int, most: Annotated[int, Query(ge=64, le=4096)] = 2048) -> Response:
        """The scene as it was."""
        return picture(desk.picture(sample(number).scene_image_id, most))

    @own.get("/samples/{number}/crop", response_class=Response)
    def part(number: int, side: Side = 192, was: bool = False) -> Response:
        """What was painted, or what had been there (`was`)."""
        one = sample(number)
        if was:
            return picture(desk.crop(one.scene_image_id, one.painted, "", side))
        key = ("sample crop", one.blob, [round(v, 2) for v in one.painted], side)
        return picture(desk.made(key, lambda: crop(painted(one), one.painted, side=side)))

    @own.post("/samples/judge")
    def judge(asked: Judge) -> dict[str, Any]:
        """Accept or reject samples whatever the gate said, or leave them to it."""
        store = desk.store
        with desk.writing():
            run = store.begin_run("judge", config={"author": desk.author}, aside=True)
            was: dict[int, Word] = {}
            try:
                with store.transaction():
                    for number, word in asked.said.items():
                        reason = f"{word} by {desk.author}"
                        was[number] = WORDS[store.put_word(run, number, VALUES[word], reason)]
            except BaseException:
                store.finish_run(run, status="failed", counts={"done": 0})
                raise
            store.finish_run(run, status="done", counts={"done": len(was)})
        words = sorted(set(asked.said.values()))
        told = f"{len(was)} sample{'s' * (len(was) > 1)} {' and '.join(words)}"
        return {"said": told.replace("open", "left to the gate"), "undo": _undo(was)}

    return own


def _plain(one: Sample) -> dict[str, Any]:
    return {
        "id": one.id,
        "recipe": one.recipe,
        "group": one.group,
        "width": one.width,
        "height": one.height,
        "failure": one.outcome_id,
        "scene": one.scene_image_id,
        "exemplar": one.exemplar_image_id,
        "seed": one.seed,
        "painted": list(one.painted),
        "labels": [{"class": a.category, "box": list(a.box)} for a in one.annotations],
        "passed": one.passed,
        "accepted": one.accepted,
        "said": WORDS[None if one.person is None else one.person.accepted],
        "said_by": "" if one.person is None else one.person.reason,
        "verdicts": [
            {
                "check": v.check,
                "accepted": v.accepted,
                "value": v.value if math.isfinite(v.value) else None,
                "bound": v.bound if math.isfinite(v.bound) else None,
                "reason": v.reason,
            }
            for v in one.verdicts
            if v.check != PERSON
        ],
    }


def _undo(was: dict[int, Word]) -> dict[str, Any]:
    return {"path": "/samples/judge", "body": {"said": was}}
