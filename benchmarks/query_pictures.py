"""The picture of docs/query.md: failures on photographs, why, and what three methods find in the pool.

    python benchmarks/query_pictures.py [--failures "FN,class=Car"] [--shared FOLDER] [--out FILE.png]

Vehicles (Open Images, CC BY 4.0) with NanoDet as published. Mined: half of the published train and valid
images, by name; the pool is the other half. First row: failures with their E2X maps. Then the first eight
hits of each method, green where the image holds such a failure by its labels, which no method reads, else
red; the yellow box is the one that answered.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from papers_scenes import sheet
from PIL import Image, ImageDraw
from query_sets import SHARED, detector_spec

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.causes import Criteria
from curator.diagnose.selectors import FailureSelector
from curator.diagnose.settings import DiagnoseConfig
from curator.diagnose.work import diagnose_predicted
from curator.explain.settings import ExplainConfig
from curator.matching import ClassMap
from curator.prove.trials import predict
from curator.query.settings import IndexConfig, QueryConfig
from curator.represent.heatmap import overlay_density
from curator.represent.pixel_maps import map_pixels
from store.records import BoxTuple, Outcome
from store.store import Store

METHODS = {"predictor": "curator", "class-uncertainty": "class-wise uncertainty", "similarity": "cosine"}
SHOWN, FAILURES = 8, 4
CLASSES = {"car": "Car", "bus": "Bus", "truck": "Truck", "motorcycle": "Motorcycle"}
Pixels = NDArray[np.uint8]


def framed(pixels: Pixels, box: BoxTuple, colour: tuple[int, int, int] | None = None) -> Pixels:
    """The picture with a yellow box, and a coloured frame."""
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    draw.rectangle(box, outline=(255, 220, 0), width=4)
    if colour is not None:
        draw.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=colour, width=12)
    return np.asarray(picture)


Kinds = frozenset[tuple[str, str, str | None]]


def kinds_of(outcomes: Iterable[Outcome]) -> Kinds:
    """(kind, class, cause) of outcomes."""
    return frozenset((o.kind, o.category, o.cause) for o in outcomes)


def failing(store: Store, spec: str, asked: Kinds) -> set[int]:
    """Pool images that hold such a failure, by their hidden labels."""
    images = store.images(reader="oracle", role="pool")
    labels = store.annotations([image.id for image in images], reader="oracle")
    detector = load_detector(spec, "cpu")
    classes = ClassMap.resolve(detector.classes, [c.name for c in store.categories()], CLASSES)
    labelled = [(image, labels[image.id].annotations, labels[image.id].classes) for image in images]
    found = list(predict(detector, images, 16, label="pool"))
    criteria = Criteria(score=DiagnoseConfig.score_threshold, low_score=0.0)
    judged, _ = diagnose_predicted(detector, labelled, found, classes, criteria)
    return {image.id for image, own in zip(images, judged, strict=True) if kinds_of(own) & asked}


def failures(store: Store, asked: Kinds) -> dict[str, Pixels]:
    """Asked failures and their maps, side by side."""
    current = {outcome.id: outcome for outcome in store.outcomes()}
    row: dict[str, Pixels] = {}
    for attribution in store.attributions():
        outcome = current.get(attribution.outcome_id)
        if outcome is None or not kinds_of([outcome]) & asked or not attribution.map.evidence:
            continue
        (image,) = store.images(reader="report", ids=[outcome.image_id])
        pixels = store.pixels(image, reader="report")
        pin = store.detections(outcome.model_id, [outcome.image_id])[outcome.image_id].pin
        labels = None
        if attribution.segmentation_id is not None:
            labels = store.segmentation(attribution.segmentation_id).labels
        values = map_pixels(attribution.map, labels, pin.input_size)
        place = len(row) // 2 + 1
        row[f"failure {place}: {outcome.cause}"] = framed(pixels, outcome.box)
        row[f"failure {place}: E2X"] = framed(overlay_density(pixels, values, pin), outcome.box)
        if len(row) == 2 * FAILURES:
            break
    return row


def hits(store: Store, method: str, asked: str, true: set[int]) -> dict[str, Pixels]:
    """The first hits of a method."""
    config = QueryConfig(name=method, failures=asked, method=method, budget=40, diversity=0.0)
    pipeline.query(store, config)
    found = store.selection(method).hits
    share = np.mean([hit.image_id in true for hit in found])
    print(f"{METHODS[method]}: {share:.2f} of 40 hits hold such a failure")
    for hit in found[:SHOWN]:
        print(f"  {'yes' if hit.image_id in true else 'no '} {hit.reason}")
    row: dict[str, Pixels] = {}
    for hit in found[:SHOWN]:
        (image,) = store.images(reader="report", ids=[hit.image_id])
        colour = (30, 180, 60) if hit.image_id in true else (220, 40, 40)
        pixels = store.pixels(image, reader="report")
        row[f"{METHODS[method]} {hit.rank}"] = framed(pixels, hit.box, colour)
    return row


def main() -> None:
    """Run the loop as far as the query; draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--failures", default="FN,class=Car")
    parser.add_argument("--work", type=Path, help="workspace to keep; killed runs continue there")
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=Path("docs/query.png"))
    options = parser.parse_args()
    spec = detector_spec("nanodet", "vehicles")
    data = options.shared / "data" / "vehicles_openimages"
    work = options.work or Path(tempfile.mkdtemp(prefix="query-pictures-")) / "ws"
    with Store.open(work) if work.exists() else Store.create(work) as store:
        for role, part in (("mine", "0-50"), ("pool", "50-100")):
            for split in ("train", "valid"):
                pipeline.add(store, AddConfig(format="yolo", path=data, split=split, role=role, part=part))
        pipeline.detect(store, DetectConfig(detector=spec, score_floor=0.01))
        pipeline.diagnose(store, DiagnoseConfig(class_map=CLASSES))
        pipeline.explain(store, ExplainConfig(failures=options.failures, samples=16, successes=0))
        pipeline.index(store, IndexConfig())
        asked = kinds_of(FailureSelector.parse(options.failures).among(store.outcomes()))
        true = failing(store, spec, asked)
        print(f"{len(true)} of {len(store.image_ids(role='pool'))} pool images hold such a failure")
        rows = [failures(store, asked), *(hits(store, m, options.failures, true) for m in METHODS)]
        sheet(options.out.parent, options.out.name, rows)


if __name__ == "__main__":
    main()
