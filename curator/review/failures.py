"""Failures: counts, pages of them in an order, and everything that is known of one.

A filter is kind, cause and class, each perhaps several values joined by commas: the address of the page. A
cause or class that holds a comma is given by repeating the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from curator.diagnose.current import Current
from curator.errors import InputError
from curator.report.words import NO_EVIDENCE, RULES
from curator.represent.heatmap import heat_layer
from curator.represent.pixel_maps import map_pixels
from curator.review.desk import READER, Desk, name_of
from curator.review.images import picture
from curator.review.pictures import png
from store.errors import NotFoundError
from store.outcome_pages import Place, outcome_place
from store.records import (
    LOG_ODDS,
    Attribution,
    DetectionSet,
    ImageRecord,
    Outcome,
    OutcomeFilter,
    OutcomeSort,
)

PAGE = 60
Values = Annotated[list[str] | None, Query()]
Limit = Annotated[int, Query(ge=1, le=200)]


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["failures"])
    store = desk.store

    @own.get("/failures/counts")
    def counts() -> dict[str, Any]:
        """How many there are of each kind, cause and class; successes are of kind TP."""
        return {
            "counts": [
                {"kind": kind, "cause": cause, "class": name, "number": number}
                for kind, cause, name, number in store.outcome_counts()
            ]
        }

    @own.get("/failures/places")
    def places(
        kind: Values = None,
        cause: Values = None,
        category: Annotated[list[str] | None, Query(alias="class")] = None,
        sort: OutcomeSort = "score",
        step: Limit = PAGE,
    ) -> dict[str, Any]:
        """How many match, and the place at which each page begins."""
        total, found = store.outcome_places(chosen(kind, cause, category), sort, step)
        return {"total": total, "step": step, "places": found}

    @own.get("/failures")
    def page(
        kind: Values = None,
        cause: Values = None,
        category: Annotated[list[str] | None, Query(alias="class")] = None,
        sort: OutcomeSort = "score",
        at: str | None = None,
        limit: Limit = PAGE,
    ) -> dict[str, Any]:
        """One page, from a place ("value,id") on; the first without one."""
        found = store.outcome_page(
            chosen(kind, cause, category), sort, at=None if at is None else parse_place(at), limit=limit
        )
        return {"failures": [plain(outcome) for outcome in found]}

    @own.get("/failures/{number}")
    def one(
        number: int,
        kind: Values = None,
        cause: Values = None,
        category: Annotated[list[str] | None, Query(alias="class")] = None,
        sort: OutcomeSort = "score",
    ) -> dict[str, Any]:
        """Everything that is known of one; `before` and `after` are its neighbours under the filter."""
        outcome = find(desk, number)
        image = desk.image(outcome.image_id)
        current = desk.current()
        neighbours = {}
        for name, backwards in (("before", True), ("after", False)):
            near = store.outcome_page(
                chosen(kind, cause, category),
                sort,
                at=outcome_place(outcome, sort),
                limit=1,
                past=True,
                backwards=backwards,
            )
            neighbours[name] = near[0].id if near else None
        return {
            **plain(outcome),
            **neighbours,
            "image_name": name_of(image.uri),
            "width": image.width,
            "height": image.height,
            "rule": RULES.get(outcome.target.rule, outcome.target.rule),
            "target_score": outcome.target.score,
            "target_iou": outcome.target.iou,
            "truth": _truth(desk, image),
            **_detections(desk, image, outcome, current),
            "explanations": _explanations(desk, outcome, current),
            "hits": _hits(desk, number),
            "samples": [
                {"id": s.id, "name": s.name, "recipe": s.recipe, "accepted": s.accepted}
                for s in store.samples()
                if s.outcome_id == number
            ],
        }

    @own.get("/failures/{number}/heat", response_class=Response)
    def heat(number: int, run: int | None = None) -> Response:
        """The map as a PNG to lie over the image: red raises the score, blue lowers it."""
        outcome = find(desk, number)
        attribution = _attribution(desk, outcome, run)
        pin = store.detections(outcome.model_id, [outcome.image_id])[outcome.image_id].pin
        labels = (
            None
            if attribution.segmentation_id is None
            else store.segmentation(attribution.segmentation_id).labels
        )
        return picture(
            desk.made(
                ("heat", attribution.key),
                lambda: png(heat_layer(map_pixels(attribution.map, labels, pin.input_size), pin)),
            ),
            "image/png",
        )

    return own


def chosen(
    kind: Sequence[str] | None, cause: Sequence[str] | None, category: Sequence[str] | None
) -> OutcomeFilter:
    """A filter; without a kind the failures of both kinds."""
    return OutcomeFilter(
        kinds=tuple(kind or ("FN", "FP")), causes=tuple(cause or ()), categories=tuple(category or ())
    )


def parse_place(text: str) -> Place:
    """ "value,id".

    Raises:
        InputError: something else.
    """
    value, _, number = text.partition(",")
    try:
        place = float(value), int(number)
    except ValueError as error:
        raise InputError(f"at: expected value,id, got {text[:80]!r}") from error
    if not (math.isfinite(place[0]) and abs(place[1]) < 2**63):
        raise InputError(f"at: expected value,id, got {text[:80]!r}")
    return place


def find(desk: Desk, number: int) -> Outcome:
    """An outcome by id.

    Raises:
        NotFoundError: there is none.
    """
    found = desk.store.outcomes(ids=[number]) if abs(number) < 2**63 else []
    if not found:
        raise NotFoundError(f"no failure {number} in this workspace; it may have been diagnosed anew")
    return found[0]


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the grid shows it."""
    return {
        "id": outcome.id,
        "image": outcome.image_id,
        "kind": outcome.kind,
        "cause": outcome.cause,
        "class": outcome.category,
        "box": [round(v, 2) for v in outcome.box],
        "score": outcome.score,
        "iou": outcome.iou,
    }


def _truth(desk: Desk, image: ImageRecord) -> list[dict[str, Any]]:
    labels = desk.store.annotations([image.id], reader=READER).get(image.id)
    return [
        {"class": a.category, "box": list(a.box), "crowd": a.crowd, "difficult": a.difficult}
        for a in (labels.annotations if labels is not None else ())
    ]


def _detections(desk: Desk, image: ImageRecord, outcome: Outcome, current: Current | None) -> dict[str, Any]:
    """What the detector sees, down to the score that was stored."""
    mine = current is not None and current.model.id == outcome.model_id
    key = current.detections_key if current is not None and mine else None
    found = desk.store.detections(outcome.model_id, [image.id], config_key=key).get(image.id)
    if found is None:
        return {"detections": [], "threshold": 0.5, "floor": 0.5}
    model = desk.store.model(outcome.model_id)
    names = current.class_map if current is not None and mine else {}
    seen = found.detections
    return {
        "threshold": current.criteria.score if current is not None and mine else 0.5,
        "floor": _floor(desk, found),
        "detections": [
            {
                "class": names.get(model.classes[label], model.classes[label]),
                "score": float(score),
                "box": [round(float(v), 2) for v in box],
            }
            for box, score, label in zip(seen.boxes, seen.scores, seen.labels.tolist(), strict=True)
        ],
    }


def _floor(desk: Desk, found: DetectionSet) -> float:
    """Down to which score the detections of an image were stored."""
    for run in desk.store.runs(stage="detect"):
        if run.id == found.run_id and "score_floor" in run.config:
            return float(run.config["score_floor"])
    return float(found.detections.scores.min()) if len(found.detections) else 0.0


def _explanations(desk: Desk, outcome: Outcome, current: Current | None) -> list[dict[str, Any]]:
    """What explains it, the current configuration first, then others that were run."""
    store = desk.store
    first = None if current is None or current.explanation is None else current.explanation.run_id
    runs = sorted(
        (run for run in store.runs(stage="explain") if run.status != "failed"), key=lambda r: r.id != first
    )
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.config_key in found:
            continue
        for own in store.attributions(outcome_ids=[outcome.id or 0], config_key=run.config_key):
            regions = store.regions(attribution_ids=[own.id or 0])
            found[run.config_key] = {
                "run": run.id,
                "current": run.id == first,
                "method": own.method,
                "full": _number(own.map.full),
                "empty": _number(own.map.empty),
                "gap": _number(own.map.gap),
                "unit": "log-odds" if LOG_ODDS in own.map.extra else "probability",
                "passes": own.map.passes,
                "evidence": own.map.evidence,
                "said": "" if own.map.evidence else NO_EVIDENCE,
                "regions": [
                    {"kind": r.kind, "box": [round(v, 2) for v in r.box], "weight": _number(r.weight)}
                    for r in regions
                ],
            }
    return list(found.values())


def _attribution(desk: Desk, outcome: Outcome, run: int | None) -> Attribution:
    key = next((r.config_key for r in desk.store.runs(stage="explain") if r.id == run), None)
    found = desk.store.attributions(outcome_ids=[outcome.id or 0], config_key=key)
    if not found or (run is not None and key is None):
        raise NotFoundError(f"failure {outcome.id} is not explained; run curator explain")
    return found[0]


def _hits(desk: Desk, number: int) -> list[dict[str, Any]]:
    return [
        {
            "selection": selection.name,
            "rank": hit.rank,
            "image": hit.image_id,
            "box": list(hit.box),
            "reason": hit.reason,
        }
        for selection in desk.store.selections()
        if selection.arm not in ("random", "oracle")
        for hit in selection.hits
        if hit.outcome_id == number
    ]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
