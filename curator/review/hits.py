"""Queries: hits with their reasons, what people say of them, and the refined query.

Labels of pool images are never read here: a hit shows the box that answered. What is said of hits is the
`feedback` stage's, and refining is `query --refine`, with the settings that made the selection.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from curator.errors import InputError, one_line
from curator.query.feedback import unmarked
from curator.query.run_feedback import feedback
from curator.query.settings import FeedbackConfig, QueryConfig
from curator.review.desk import READER, Desk, name_of
from store.errors import ConflictError
from store.records import Selection

Word = Literal["accepted", "rejected", "open"]
WORDS: dict[bool, Word] = {True: "accepted", False: "rejected"}


class Say(BaseModel):
    """What is said of hits: image id (as text) -> word."""

    selection: str
    said: dict[int, Word] = Field(min_length=1, max_length=10_000)


class Refine(BaseModel):
    """Ask anew, with what people said."""

    selection: str
    budget: int = Field(ge=1, le=100_000)


class Restore(BaseModel):
    """Take a refined query back."""

    selection: str
    key: str


class Refining:
    """The refined query that goes on, one at a time."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"state": "idle"}
        self.before: dict[tuple[str, str], Selection] = {}
        """(name, key of the refined selection) -> the selection that it replaced."""
        self.lock = threading.Lock()


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["queries"])
    store = desk.store
    refining = Refining()

    @own.get("/queries")
    def queries() -> dict[str, Any]:
        """All selections."""
        current = desk.current()
        found = []
        for selection in store.selections():
            said = {own.image_id: own.accepted for own in store.feedback(selection.name)}
            of_hits = [said[i] for i in selection.image_ids if i in said]
            found.append(
                {
                    "name": selection.name,
                    "arm": selection.arm,
                    "hits": len(selection.hits),
                    "accepted": sum(of_hits),
                    "rejected": len(of_hits) - sum(of_hits),
                    "stale": current is not None
                    and selection.config.get("current", current.digest) != current.digest,
                }
            )
        return {"queries": found, "refining": refining.state}

    @own.get("/queries/one")
    def one(name: str) -> dict[str, Any]:
        """A selection: how it was asked, its groups and its hits."""
        selection = store.selection(name)
        said = {own.image_id: own.accepted for own in store.feedback(name)}
        images = {i.id: i for i in store.images(reader=READER, ids=sorted(set(selection.image_ids)))}
        ids = sorted({hit.outcome_id for hit in selection.hits if hit.outcome_id is not None})
        asking = {outcome.id: outcome for outcome in store.outcomes(ids=ids)} if ids else {}
        config = selection.config
        hits = []
        for hit in selection.hits:
            image = images.get(hit.image_id)
            failure = asking.get(hit.outcome_id)
            hits.append(
                {
                    "rank": hit.rank,
                    "image": hit.image_id,
                    "name": name_of(image.uri) if image is not None else "",
                    "width": image.width if image is not None else 0,
                    "height": image.height if image is not None else 0,
                    "group": hit.group,
                    "box": list(hit.box),
                    "score": hit.score,
                    "reason": unmarked(hit.reason),
                    "verdict": WORDS[said[hit.image_id]] if hit.image_id in said else "open",
                    "failure": None
                    if failure is None
                    else {
                        "id": failure.id,
                        "image": failure.image_id,
                        "kind": failure.kind,
                        "cause": failure.cause,
                        "class": failure.category,
                        "box": list(failure.box),
                    },
                }
            )
        learns = selection.arm not in ("random", "oracle") and not (config.get("like") or config.get("text"))
        return {
            "name": name,
            "arm": selection.arm,
            "key": selection.key,
            "failures": config.get("failures", ""),
            "budget": config.get("budget", len(selection.hits)),
            "method": config.get("method", selection.arm),
            "refined": config.get("refined"),
            "warnings": config.get("warnings", []),
            "groups": [
                {
                    "name": g["name"],
                    "failures": g["failures"],
                    "hits": g["hits"],
                    "coverage": g.get("coverage"),
                }
                for g in config.get("groups", [])
            ],
            "may_refine": learns and "budget" in config,
            "hits": hits,
        }

    @own.post("/feedback")
    def say(asked: Say) -> dict[str, Any]:
        """Accept or reject hits, or take that back."""
        with desk.writing():
            before = {own.image_id: own.accepted for own in store.feedback(asked.selection)}
            of: dict[Word, list[int]] = {"accepted": [], "rejected": [], "open": []}
            for image, word in asked.said.items():
                of[word].append(image)
            feedback(
                store,
                FeedbackConfig(
                    selection=asked.selection,
                    accept=tuple(of["accepted"]),
                    reject=tuple(of["rejected"]),
                    clear=tuple(of["open"]),
                ),
            )
        was = {image: WORDS[before[image]] if image in before else "open" for image in asked.said}
        return {
            "said": _told(of),
            "undo": {"path": "/feedback", "body": {"selection": asked.selection, "said": was}},
        }

    @own.post("/queries/refine")
    def refine(asked: Refine) -> dict[str, Any]:
        """Start the refined query; `refining` of /queries says how it goes."""
        selection = store.selection(asked.selection)
        config = refined_config(selection, asked.budget)
        with refining.lock:
            if refining.state["state"] == "running":
                raise ConflictError(f"{refining.state['name']!r} is being refined; wait until that has ended")
            refining.state = {"state": "running", "name": asked.selection}

        def work() -> None:
            try:
                from curator.query.run import query  # loads torch: the page itself needs none

                old = store.selection(asked.selection)
                summary = query(store, config).summary  # may take a while: others go on judging
                new = store.selection(asked.selection)
                refining.before[asked.selection, new.key] = old
                body = {"selection": asked.selection, "key": new.key}
                refining.state = {
                    "state": "done",
                    "name": asked.selection,
                    "said": summary.get("refined") or "the query was asked anew",
                    "undo": {"path": "/queries/restore", "body": body} if new.key != old.key else None,
                }
            except Exception as error:  # told on the page, whatever it is
                refining.state = {"state": "failed", "name": asked.selection, "said": one_line(error)}

        threading.Thread(target=work, daemon=True, name="refine").start()
        return {"refining": refining.state}

    @own.post("/queries/restore")
    def restore(asked: Restore) -> dict[str, Any]:
        """Bring back the selection that a refined query replaced."""
        with desk.writing():
            old = refining.before.get((asked.selection, asked.key))
            if old is None:
                raise InputError(f"{asked.selection!r}: there is no earlier selection to bring back")
            if store.selection(asked.selection).key != asked.key:
                raise ConflictError(f"{asked.selection!r} was asked anew meanwhile; it stays as it is")
            run = store.begin_run("query", config={"restored": asked.selection}, aside=True)
            store.put_selection(run, dataclasses.replace(old, id=None))
            store.finish_run(run, status="done", counts={"done": 1})
        return {"said": f"the earlier selection of {asked.selection!r} is back"}

    return own


def refined_config(selection: Selection, budget: int) -> QueryConfig:
    """The settings that made a selection, refined.

    Raises:
        ConfigError: a selection that learns nothing.
    """
    known = {field.name for field in dataclasses.fields(QueryConfig)}
    kept = {name: value for name, value in selection.config.items() if name in known}
    kept.update(name=selection.name, refine=True, preview=False, budget=budget)
    return QueryConfig.from_table(kept, where="query")


def _told(of: dict[Word, list[int]]) -> str:
    parts: Sequence[str] = [
        f"{len(images)} {word if word != 'open' else 'left open'}" for word, images in of.items() if images
    ]
    text = ", ".join(parts)
    return text[0].upper() + text[1:]
