"""What the rounds of `curator loop` gained: counts of failures, and their difference.

In: the outcomes of diagnoses of the same mined images. Out: plain facts, kept with the run, and rows for
people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.bootstrap import Interval, bootstrap_interval
from store.records import Outcome

if TYPE_CHECKING:
    from store.store import Store

STAGE = "loop"
COLUMNS = ("round", "added", "missed", "false alarms", "failures an image", "change")


@dataclass(frozen=True, slots=True)
class Failures:
    """What a detector fails on: per mined image its missed objects and false alarms together."""

    missed: int
    false: int
    by_image: Mapping[int, int]


def count_failures(outcomes: Sequence[Outcome]) -> Failures:
    """Count what a diagnosis says."""
    return Failures(
        missed=sum(o.kind == "FN" for o in outcomes),
        false=sum(o.kind == "FP" for o in outcomes),
        by_image=Counter(o.image_id for o in outcomes if o.kind != "TP"),
    )


def difference(
    before: Failures, after: Failures, images: Collection[int], groups: Mapping[int, str]
) -> Interval:
    """Failures an image, after minus before, with its interval over images (videos).

    Args:
        images: labelled ones that both detectors looked at. groups: image -> its video, where it has one.
    """
    every = sorted(images)
    return bootstrap_interval(
        [after.by_image.get(i, 0) - before.by_image.get(i, 0) for i in every],
        clusters=[groups.get(i, i) for i in every],
    )


def facts_of(
    number: int, detector: str, added: int, found: Failures, images: int, change: Interval | None
) -> dict[str, Any]:
    """A round as plain JSON; `images`: labelled ones that its detector looked at."""
    return {
        "round": number,
        "detector": detector,
        "added": added,
        "missed": found.missed,
        "false": found.false,
        "failures_per_image": (found.missed + found.false) / max(1, images),
        "change": None if change is None else change.plain(),
    }


def round_rows(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row per round for people; columns are `COLUMNS`."""
    rows = []
    for facts in history:
        change, said = facts["change"], ""
        if change is not None:
            bounds = "" if change["low"] is None else f" [{change['low']:+.3f}, {change['high']:+.3f}]"
            said = f"{change['mean']:+.3f}{bounds}"
        counts = (str(facts[name]) for name in ("round", "added", "missed", "false"))
        rows.append((*counts, f"{facts['failures_per_image']:.3f}", said))
    return rows


def loops(store: Store) -> dict[str, list[dict[str, Any]]]:
    """The newest history of every loop, by its name: of one that was done, where there is one."""
    found: dict[str, list[dict[str, Any]]] = {}
    runs = [run for run in store.runs(stage=STAGE) if "rounds" in run.facts]
    for run in sorted(runs, key=lambda run: run.status not in ("done", "partial")):  # stable: newest first
        found.setdefault(str(run.config.get("name", STAGE)), list(run.facts["rounds"]))
    return found
