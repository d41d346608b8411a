"""Overview: what the workspace holds along the loop, what is out of date, and what to do next.

Out of date is what a later run no longer answers: a query of another diagnosis (by its digest), and stages
whose input was made anew since (by their runs' order).
"""

from __future__ import annotations

import shlex
from typing import Any

from fastapi import APIRouter

from curator.pipeline.workspace import status
from curator.review.desk import Desk
from store.records import RunRecord

LABEL = "label"  # the stage of edits of boxes on the page

STAGES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    # stage, title, what makes it out of date when run later, command
    ("detect", "Detect", (), "detect --detector SPEC"),
    ("diagnose", "Diagnose", ("detect", LABEL), "diagnose"),
    ("explain", "Explain", ("diagnose",), "explain"),
    ("index", "Index", ("diagnose", "explain"), "index"),
    ("query", "Query", ("index",), 'query --failures "FN" --budget 100'),
    ("synthesize", "Synthesize", ("diagnose",), "synthesize --selection query --budget 50"),
    ("verify", "Verify", ("query", "synthesize"), "verify --selection query --seeds 0,1,2"),
)
NEEDED = ("detect", "diagnose", "explain", "index", "query", "verify")
PAST = {
    "detect": "detected",
    "diagnose": "diagnosed",
    "explain": "explained",
    "index": "indexed",
    "query": "asked",
    "synthesize": "synthesised",
    LABEL: "labels edited",
}


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["overview"])

    @own.get("/about")
    def about() -> dict[str, Any]:
        """What the frame of every page needs."""
        path = desk.store.path
        return {"workspace": str(path), "name": path.name, "author": desk.author, "stamp": desk.stamp}

    @own.get("/overview")
    def overview() -> dict[str, Any]:
        """Counts, stages with their state, what to do next, and the last runs."""
        found = status(desk.store)
        counts: dict[str, int] = found["counts"]
        runs = desk.store.runs()
        stages = _stages(desk, counts, runs)
        current = desk.current()
        return {
            "workspace": found["workspace"],
            "counts": counts,
            "detector": None if current is None else current.model.spec,
            "explained_by": None if current is None else current.explained_by,
            "threshold": None if current is None else current.criteria.score,
            "stages": stages,
            "next": _next(desk, counts, stages),
            "runs": [_run(run) for run in runs[:12]],
        }

    return own


def _stages(desk: Desk, counts: dict[str, int], runs: list[RunRecord]) -> list[dict[str, Any]]:
    newest: dict[str, RunRecord] = {}
    for run in runs:
        if not run.aside and run.status != "failed":
            newest.setdefault(run.stage, run)
    failures = counts["failures_FN"] + counts["failures_FP"]
    said = {
        "detect": f"{counts['detections']:,} images seen",
        "diagnose": f"{counts['failures_FN']:,} missed, {counts['failures_FP']:,} false alarms",
        "explain": f"{_explained(desk):,} of {failures:,} failures",
        "index": f"{counts['indexed_images']:,} images, {counts['boxes']:,} boxes",
        "query": f"{counts['hits']:,} hits in {counts['selections']} selections",
        "synthesize": f"{counts['samples']:,} samples",
        "verify": f"{counts['trials']:,} trials",
    }
    prefix = f"curator -w {shlex.quote(str(desk.store.path))}"
    stages = []
    for stage, title, after, command in STAGES:
        last = newest.get(stage)
        why = "" if last is None else _stale(desk, stage, last, after, newest)
        state = "missing" if last is None else "running" if last.status == "running" else "done"
        stages.append(
            {
                "stage": stage,
                "title": title,
                "state": "stale" if state == "done" and why else state,
                "said": said[stage] if last is not None else "not yet",
                "why": why,
                "run": None if last is None else last.id,
                "command": f"{prefix} {command}",
            }
        )
    return stages


def _stale(
    desk: Desk, stage: str, run: RunRecord, after: tuple[str, ...], newest: dict[str, RunRecord]
) -> str:
    """Why a stage's results no longer answer; "" where they do."""
    if stage == "query":
        current = desk.current()
        old = [
            s.name
            for s in desk.store.selections()
            if current is not None and s.config.get("current", current.digest) != current.digest
        ]
        if old:
            return f"asked by another diagnosis or other explanations: {', '.join(old)}"
    later = [name for name in after if name in newest and newest[name].id > run.id]
    return f"{PAST[later[0]]} since, run {newest[later[0]].id}" if later else ""


def _explained(desk: Desk) -> int:
    current = desk.current()
    if current is None:
        return 0
    failures = {outcome.id for outcome in current.outcomes if outcome.kind != "TP"}
    return len(failures & set(current.attributions))


def _next(desk: Desk, counts: dict[str, int], stages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What to do, the most urgent first, three at most."""
    prefix = f"curator -w {shlex.quote(str(desk.store.path))}"
    wanted: list[dict[str, str]] = []
    if not counts["images_mine"]:
        wanted.append(
            {
                "why": "No labelled images to mine for failures yet.",
                "command": f"{prefix} add coco PATH --role mine",
                "page": "",
            }
        )
    of = {stage["stage"]: stage for stage in stages}
    for name in ("detect", "diagnose", "explain", "index", "query", "synthesize", "verify"):
        stage = of[name]
        own = {"command": str(stage["command"])}
        if stage["state"] == "stale":
            wanted.append({"why": f"{stage['title']}: {stage['why']}.", **own, "page": ""})
        elif stage["state"] == "missing" and name in NEEDED:
            wanted.append({"why": f"{stage['title']} was not run yet.", **own, "page": ""})
    if not wanted or of["query"]["state"] == "done":
        wanted += _to_judge(desk)
    if not wanted:
        wanted.append({"why": "Everything is up to date.", "command": f"{prefix} report", "page": ""})
    return wanted[:3]


def _to_judge(desk: Desk) -> list[dict[str, str]]:
    """Hits of which nobody said anything."""
    found = []
    for selection in desk.store.selections():
        said = {own.image_id for own in desk.store.feedback(selection.name)}
        unsaid = len(set(selection.image_ids) - said)
        if unsaid and selection.arm not in ("random", "oracle"):
            found.append(
                {
                    "why": f"{unsaid} hits of {selection.name!r} wait for a yes or no.",
                    "command": "",
                    "page": f"/queries?name={selection.name}",
                }
            )
    return found[:1]


def _run(run: RunRecord) -> dict[str, Any]:
    seconds = None if run.finished_at is None else (run.finished_at - run.started_at).total_seconds()
    return {
        "id": run.id,
        "stage": run.stage,
        "status": run.status,
        "started": run.started_at.isoformat(),
        "seconds": seconds,
        "counts": {name: number for name, number in run.counts.items() if number},
        "config": {k: v for k, v in run.config.items() if v not in (None, "", [], {}, ())},
    }
