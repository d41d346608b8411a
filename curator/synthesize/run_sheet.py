"""A sheet of samples: what was there and what became of it, accepted and rejected ones apart, in one HTML
file.

In: stored samples and the runs that made them. Out: HTML text; its pictures are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.boxes import clip, expand
from curator.errors import CuratorError
from curator.page import Picture, Pixels, ReportData, Table, render
from curator.synthesize.work import STAGE
from store.images import read_bytes_as_pixels
from store.records import BoxTuple, Sample

if TYPE_CHECKING:
    from store.store import Store

MOST = 60
"""Samples that are shown of either kind."""
_MARGIN = 2.2


def sheet(store: Store, samples: Sequence[Sample]) -> str:
    """The sheet of these samples, at most `MOST` accepted and as many rejected ones."""
    accepted = [s for s in samples if s.accepted]
    rejected = [s for s in samples if not s.accepted]
    facts = [f"{len(samples)} samples, {len(accepted)} accepted, {len(rejected)} rejected"]
    if len(accepted) > MOST or len(rejected) > MOST:
        facts.append(f"the first {MOST} of either kind are shown")
    return render(
        ReportData(
            title="Synthetic samples",
            facts=tuple(facts),
            tables=gate_tables(store, {s.name for s in samples}),
            samples=tuple(pair(store, s) for s in accepted[:MOST]),
            rejected=tuple(pair(store, s) for s in rejected[:MOST]),
        )
    )


def gate_tables(store: Store, names: set[str]) -> tuple[Table, ...]:
    """The newest bounds of each batch: what the gate asked for, and how many untouched looks say so."""
    tables, seen = [], set()
    for run in store.runs(stage=STAGE):
        if run.scope in names and run.scope not in seen and run.facts.get("gate"):
            seen.add(run.scope)
            tables.append(
                Table(
                    title=f"Gate of {run.scope!r}: {run.facts['inpainter']}, "
                    f"strength {run.facts['strength']:g}",
                    columns=("check", "bound", "untouched looks", "of them refused"),
                    rows=tuple(gate_row(name, bound) for name, bound in run.facts["gate"].items()),
                    note="Bounds come from untouched parts of your own pictures.",
                )
            )
    return tuple(tables)


def gate_row(name: str, bound: dict[str, Any]) -> tuple[str, str, str, str]:
    """A check's row; classes with a bound of their own are named."""
    limits = [
        f"{where}{value:.3g}"
        for where, value in (
            ("", bound["bound"]),
            *((f"{c} ", v) for c, v in bound["classes"].items()),
        )
        if value is not None
    ]
    return name, ", ".join(limits) or "none", str(bound["real"]), f"{bound['refused']:.0%}"


def pair(store: Store, sample: Sample) -> Picture:
    """The scene before and the sample, side by side, around what was painted."""
    pixels = read_bytes_as_pixels(store.blob(sample.blob))
    x1, y1, x2, y2 = (
        clip(expand(sample.painted, _MARGIN), sample.width, sample.height).round().astype(int).tolist()
    )
    x2, y2 = max(x2, x1 + 2), max(y2, y1 + 2)
    after = pixels[y1:y2, x1:x2]
    before = np.full_like(after, 255)
    scene = next(iter(store.images(reader="synthesize", ids=[sample.scene_image_id])), None)
    if scene is not None:
        try:
            whole: Pixels = store.pixels(scene, reader="synthesize")
            if whole.shape == pixels.shape:
                before = whole[y1:y2, x1:x2]
        except (CuratorError, OSError):  # the scene's file is gone: the sample is shown alone
            pass
    gap = np.full((after.shape[0], max(2, after.shape[1] // 40), 3), 255, np.uint8)
    offset = before.shape[1] + gap.shape[1] - x1

    def moved(box: BoxTuple) -> BoxTuple:
        return (
            max(box[0], x1) + offset,
            max(box[1], y1) - y1,
            min(box[2], x2) + offset,
            min(box[3], y2) - y1,
        )

    shown = [
        (moved(a.box), "#2ca02c")
        for a in sample.annotations
        if a.box[0] < x2 and a.box[2] > x1 and a.box[1] < y2 and a.box[3] > y1
    ]
    why = "; ".join(str(verdict) for verdict in sample.verdicts if not verdict.accepted)
    return Picture(
        pixels=np.concatenate([before, gap, after], axis=1),
        caption=f"{sample.id}: {sample.recipe}, {sample.group}" + (f" - {why}" if why else ""),
        boxes=((moved(sample.painted), "#1f77b4"), *shown),
    )
