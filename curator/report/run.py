"""`report`: gather what the workspace holds into one self-contained HTML file.

In: the current diagnosis, explanations, selections, samples and trials. Out: the file, written beside and
renamed. Of holdout images only what `verify` made of them appears: its figures and its gallery.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.config import ReportConfig
from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.run_suspects import listed_suspects
from curator.errors import InputError
from curator.jobs.outputs import require_file
from curator.jobs.stage import StageResult, recorded_run
from curator.page import FailureCard, Picture, ReportData, Table, render
from curator.report.run_proof import TRUTH, curves_of, galleries, plots_of, proven_in, rounds, verifications
from curator.report.words import NO_EVIDENCE, RULES
from curator.represent.heatmap import overlay_density
from curator.represent.pixel_maps import map_pixels
from store.errors import StoreError
from store.images import read_bytes_as_pixels
from store.records import LOG_ODDS, Attribution, Hit, ImageRecord, Outcome, Sample

if TYPE_CHECKING:
    from store.store import Store

LEGEND = (
    "F(1) is the explained score on the image as it is, F(0) the one with everything removed; "
    "gap = F(1) - F(0) - the sum of the map's values: the part of the change that the map leaves unexplained."
)
FOUND, PAINTED = "#d62728", "#ff7f0e"
REGIONS = {"support": ("#ffffff", "white"), "culprit": ("#000000", "black")}


def report(store: Store, config: ReportConfig) -> StageResult:
    """Write the report.

    Raises:
        InputError: nothing was diagnosed yet, or the file cannot be written there.
    """
    require_file(config.out)
    current = read_current(store, "report")
    outcomes = current.outcomes
    proven = proven_in(store)
    with recorded_run(store, "report", config) as (run_id, counts):
        data = ReportData(
            title="What the detector misses, why, and what mends it",
            facts=_facts(store, current),
            tables=(_causes(outcomes), *rounds(store), *verifications(store, proven)),
            plots=plots_of(proven),
            curves=curves_of(proven),
            failures=_failures(store, config, outcomes),
            galleries=(*_suspects(store, current), *galleries(store)),
            samples=_samples(store, accepted=True),
            rejected=_samples(store, accepted=False),
            legend=LEGEND,
        )
        text = render(data)
        temporary = config.out.with_name(config.out.name + ".part")
        try:
            config.out.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, config.out)
        except OSError as error:
            raise InputError(f"--out {config.out}: expected a writable file ({error.strerror})") from error
        counts.update(done=1, skipped=0, failed=0)
    return StageResult(
        stage="report", run_id=run_id, done=1, summary={"path": str(config.out), "bytes": len(text.encode())}
    )


def _facts(store: Store, current: Current) -> tuple[str, ...]:
    model = current.model
    counts = store.counts()
    kinds = Counter(outcome.kind for outcome in current.outcomes)
    return (
        f"detector {model.spec} (fingerprint {model.fingerprint[:12]}), {len(model.classes)} classes",
        "images: "
        + ", ".join(
            f"{name.removeprefix('images_')} {number}"
            for name, number in counts.items()
            if name.startswith("images_")
        ),
        f"on the mined images: {kinds['TP']} found, {kinds['FN']} missed, {kinds['FP']} false alarms",
        f"explained by {current.explained_by or 'nothing yet: `curator explain` draws the maps'}",
        *(
            f"selection {selection.name!r} was asked for by another diagnosis or other explanations: "
            "`curator query` asks anew"
            for selection in store.selections()
            if selection.config.get("current", current.digest) != current.digest
        ),
    )


def _causes(outcomes: Sequence[Outcome]) -> Table:
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    categories = sorted({outcome.category for outcome in outcomes})
    for outcome in outcomes:
        if outcome.kind != "TP":
            table[outcome.kind, outcome.cause or ""][outcome.category] += 1
    rows = [
        (f"{kind} {cause}", *(str(count[category]) for category in categories), str(count.total()))
        for (kind, cause), count in sorted(table.items(), key=lambda row: (-row[1].total(), row[0]))
    ]
    found = Counter(outcome.category for outcome in outcomes if outcome.kind == "TP")
    rows.append(("found (TP)", *(str(found[category]) for category in categories), str(found.total())))
    return Table(title="Failures by cause", columns=("cause", *categories, "all"), rows=tuple(rows))


def _failures(
    store: Store, config: ReportConfig, outcomes: Sequence[Outcome]
) -> tuple[tuple[str, tuple[FailureCard, ...]], ...]:
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.kind != "TP":
            groups[outcome.kind, outcome.cause or ""].append(outcome)
    asked: dict[int, list[tuple[str, Hit]]] = defaultdict(list)
    for selection in store.selections():
        if selection.arm not in ("random", "oracle"):
            for hit in selection.hits:
                if hit.outcome_id is not None:
                    asked[hit.outcome_id].append((selection.name, hit))
    sections = []
    for (kind, cause), members in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        # What asked for hits and has a score to explain tells most.
        members.sort(
            key=lambda o: (-(bool(asked[o.id or 0]) + (o.target.score > 0.01)), -o.target.score, o.id or 0)
        )
        shown = members[: config.failures_per_cause]
        cards = tuple(_failure(store, config, outcome, asked[outcome.id or 0]) for outcome in shown)
        sections.append((f"{kind} {cause}: {len(shown)} of {len(members)}", cards))
    return tuple(sections)


def _failure(
    store: Store, config: ReportConfig, outcome: Outcome, asked: Sequence[tuple[str, Hit]]
) -> FailureCard:
    assert outcome.id is not None
    image = store.images(reader="report", ids=[outcome.image_id])[0]
    facts = [f"image {os.path.basename(image.uri)}; {_explained(outcome)}"]
    boxes = ((outcome.box, TRUTH if outcome.kind == "FN" else FOUND),)
    pixels = _pixels(store, image)
    if pixels is None:
        return FailureCard(
            title=_title(outcome), facts=(*facts, "the image can no longer be read"), pictures=()
        )
    pictures = [Picture(pixels=pixels, caption=_title(outcome), boxes=boxes)]
    attributions = store.attributions(outcome_ids=[outcome.id])
    missing = "not explained: `curator explain` draws the map"
    if attributions:
        facts.append(_figures(attributions[0]))
        heat_map = _heat_map(store, pixels, outcome, attributions[0], boxes)
        missing = heat_map if isinstance(heat_map, str) else ""
        if isinstance(heat_map, Picture):
            pictures.append(heat_map)
    hits = []
    for name, hit in asked[: config.hits_per_failure]:
        hit_image = store.images(reader="report", ids=[hit.image_id])[0]
        hit_pixels = _pixels(store, hit_image)
        if hit_pixels is not None:
            hits.append(
                Picture(
                    pixels=hit_pixels,
                    boxes=((hit.box, PAINTED),),
                    caption=f"{name} no. {hit.rank}, {os.path.basename(hit_image.uri)}: "
                    f"{hit.reason or f'score {hit.score:.2f}'}",
                )
            )
    return FailureCard(
        title=_title(outcome),
        facts=tuple(facts),
        pictures=tuple(pictures),
        hits=tuple(hits),
        missing=missing,
    )


def _explained(outcome: Outcome) -> str:
    """Which candidate stands for a failure, and how near the detections or the labels come to it."""
    target = outcome.target
    text = f"candidate {target.candidate} ({RULES.get(target.rule, target.rule)}), score {target.score:.3f}"
    if outcome.kind == "FP":
        return text + (
            f"; IoU {outcome.iou:.2f} with the nearest label" if outcome.iou else "; it touches no label"
        )
    return f"{text}, IoU {target.iou:.2f} with the object; " + (
        f"the nearest reported detection has IoU {outcome.iou:.2f}"
        if outcome.iou
        else "no reported detection touches the object"
    )


def _figures(attribution: Attribution) -> str:
    explained = attribution.map
    gap = "no gap claimed" if math.isnan(explained.gap) else f"gap = {explained.gap:.3f}"
    unit = "in log-odds, " if LOG_ODDS in explained.extra else "as a probability, "
    return (
        f"{attribution.method}: {unit}F(1) = {explained.full:.3f}, F(0) = {explained.empty:.3f}, {gap}, "
        f"{explained.passes} passes"
    )


def _heat_map(
    store: Store,
    pixels: NDArray[np.uint8],
    outcome: Outcome,
    attribution: Attribution,
    boxes: tuple[Any, ...],
) -> Picture | str:
    """The map over the image, or why there is none."""
    explained = attribution.map
    if not explained.evidence:
        return NO_EVIDENCE
    pin = store.detections(outcome.model_id, [outcome.image_id])[outcome.image_id].pin
    labels = (
        None
        if attribution.segmentation_id is None
        else store.segmentation(attribution.segmentation_id).labels
    )
    values = map_pixels(explained, labels, pin.input_size)
    caption = f"{attribution.method}: red raises the score of {outcome.category}, blue lowers it"
    regions = [own for own in store.regions(attribution_ids=[attribution.id or 0]) if own.kind in REGIONS]
    framed = tuple((own.box, REGIONS[own.kind][0]) for own in regions)
    for kind in dict.fromkeys(own.kind for own in regions):
        caption += f"; {kind} in a {REGIONS[kind][1]} frame"
    return Picture(pixels=overlay_density(pixels, values, pin), caption=caption, boxes=(*framed, *boxes))


def _title(outcome: Outcome) -> str:
    what = "missed" if outcome.kind == "FN" else "false alarm"
    return f"{what}: {outcome.category} ({outcome.cause})"


def _suspects(store: Store, current: Current, most: int = 24) -> tuple[tuple[str, tuple[Picture, ...]], ...]:
    """Labels that look wrong and that nobody judged yet, the likeliest first."""
    try:
        found = [own for own in listed_suspects(store, current) if own["verdict"] is None]
    except StoreError:
        return ()  # its list can no longer be read; `curator suspects` makes it anew
    ids = sorted({own["image"] for own in found[:most]})
    images = {image.id: image for image in store.images(reader="report", ids=ids)} if ids else {}
    pictures = []
    for own in found[:most]:
        pixels = _pixels(store, images[own["image"]])
        if pixels is not None:
            where = f"no. {own['id']}, {os.path.basename(own['uri'])}"
            caption = f"{where}: {own['kind']} ({own['probability']:.2f}): {own['why']}"
            boxes = ((tuple(own["box"]), FOUND),)
            pictures.append(Picture(pixels=pixels, boxes=boxes, caption=caption))
    told = "judge them by curator suspects --confirm NO,NO --clear NO"
    title = f"Labels that look wrong, {len(pictures)} of {len(found)}; {told}"
    return ((title, tuple(pictures)),) if pictures else ()


def _pixels(store: Store, image: ImageRecord) -> NDArray[np.uint8] | None:
    try:
        return store.pixels(image, reader="report")
    except StoreError:
        return None


def _samples(store: Store, *, accepted: bool, most: int = 24) -> tuple[Picture, ...]:
    return tuple(_sample(store, sample) for sample in store.samples(accepted=accepted)[:most])


def _sample(store: Store, sample: Sample) -> Picture:
    reasons = "; ".join(verdict.reason for verdict in sample.verdicts if not verdict.accepted)
    boxes = ((sample.painted, PAINTED), *((annotation.box, TRUTH) for annotation in sample.annotations))
    caption = f"{sample.recipe} for {sample.group}" + (f": {reasons}" if reasons else "")
    return Picture(pixels=read_bytes_as_pixels(store.blob(sample.blob)), boxes=tuple(boxes), caption=caption)
