"""Labelled images with a good detector's answers and planted label errors; a workspace of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.suspect_evidence import Looked
from curator.matching import GroundTruth, ImageResult
from curator.tensors import image_tensor
from store.images import encode_png, probe
from store.records import Detections, DetectionSet, NewAnnotation, NewImage
from store.store import Store

CLASSES = ("a", "b", "c")
SPEC = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,8,16,16,16&seed=5"
SIZE = (240, 320)
KINDS = ("missing label", "wrong class", "shifted box", "duplicate box", "spurious label")


@dataclass(frozen=True)
class Planted:
    """An image and what is wrong with its labels: kind and box of each error."""

    image: Looked
    errors: tuple[tuple[str, tuple[float, ...]], ...]


def mislabelled(
    count: int, *, rate: float = 0.05, seed: int = 0, kinds: Sequence[str] = KINDS
) -> list[Planted]:
    """Six objects an image on a grid, found nine times in ten, with some false detections of low score."""
    draw = np.random.default_rng(seed)
    result = []
    turn = 0
    for number in range(count):
        boxes, labels, errors = [], [], []
        found: list[tuple[np.ndarray, float, int]] = []
        for cell in range(6):
            k = int(draw.integers(3))
            side = (40, 60, 80)[k] * draw.uniform(0.85, 1.15)
            corner = np.array([cell % 3 * 105 + 5, cell // 3 * 118 + 5]) + draw.uniform(0, 20, 2)
            box = np.concatenate([corner, corner + side])
            if draw.random() < 0.93:
                jitter = draw.normal(size=4) * 0.03 * side
                found.append((box + jitter, float(draw.beta(9, 2)), k))
            kind = ""
            if draw.random() < rate:
                kind, turn = kinds[turn % len(kinds)], turn + 1
            own, label = box, k
            if kind == "missing label":
                errors.append((kind, tuple(box)))
                continue
            if kind == "wrong class":
                label = (k + int(draw.integers(1, 3))) % 3
            elif kind == "shifted box":
                own = box + np.tile(draw.choice([-1, 1], 2) * draw.uniform(0.1, 0.35, 2), 2) * side
            elif kind == "duplicate box":
                boxes.append(box + draw.normal(size=4) * 0.08 * side)
                labels.append(k)
                errors.append((kind, tuple(boxes[-1])))
            elif kind == "spurious label":
                boxes.append(np.array([box[0] + 0.5 * side, box[1] + 0.6 * side, *(box[2:] + 20)]))
                labels.append(int(draw.integers(3)))
                errors.append((kind, tuple(boxes[-1])))
            if kind in ("wrong class", "shifted box"):
                errors.append((kind, tuple(own)))
            boxes.append(own)
            labels.append(label)
        for _ in range(int(draw.poisson(0.5))):
            corner = draw.uniform(0, 150, 2)
            found.append(
                (np.concatenate([corner, corner + 70]), float(draw.uniform(0.05, 0.6)), int(draw.integers(3)))
            )
        found.sort(key=lambda one: -one[1])
        truth = GroundTruth(
            np.array(boxes).reshape(-1, 4),
            np.array(labels, np.int64),
            np.zeros(len(boxes), bool),
            np.arange(len(boxes)),
        )
        result.append(
            Planted(
                Looked(
                    ImageResult(
                        truth,
                        np.clip(np.array([box for box, _, _ in found]), 0, (320, 240) * 2).reshape(-1, 4),
                        np.array([score for _, score, _ in found]),
                        np.array([k for _, _, k in found], np.int64),
                    ),
                    SIZE,
                    f"image {number}",
                ),
                tuple(errors),
            )
        )
    return result


def make_mislabelled(root: Path, planted: list[Planted], *, pool: int = 0) -> Path:
    """A workspace with these labels and detections; its pictures are random, nothing is diagnosed yet."""
    detector = load_detector(SPEC, "cpu")
    draw = np.random.default_rng(0)
    with Store.create(root / "ws") as store:
        run = store.begin_run("test", config={})
        store.put_categories(CLASSES)
        new = []
        for number in range(len(planted) + pool):
            path = root / f"{number}.png"
            coarse = draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            path.write_bytes(encode_png(np.kron(coarse, np.ones((40, 40, 1), np.uint8))))
            seen = probe(path)
            mined = number < len(planted)
            truth = planted[number].image.result.truth if mined else None
            new.append(
                NewImage(
                    uri=str(path),
                    sha256=seen.sha256,
                    phash=seen.phash,
                    width=320,
                    height=240,
                    dataset="d",
                    role="mine" if mined else "pool",
                    annotations=None
                    if truth is None
                    else tuple(
                        NewAnnotation(category=CLASSES[k], box=tuple(box.tolist()))
                        for box, k in zip(truth.boxes, truth.classes, strict=True)
                    ),
                )
            )
        ids = [added.image_id for added in store.add_images(run, new)]
        model = store.put_model(SPEC, detector.fingerprint, detector.classes)
        config = DetectConfig(detector=SPEC)
        detect = store.begin_run(
            "detect", config=config.everything(), models=[detector.fingerprint], config_key="detected"
        )
        for image in store.images(reader="detect", ids=ids[: len(planted)]):
            own = planted[ids.index(image.id)].image.result
            pixels = image_tensor(store.pixels(image, reader="detect"))
            _, pin = detector.predict([pixels], score_threshold=0.9)[0]
            found = Detections(
                boxes=own.boxes,
                scores=own.scores,
                labels=own.classes,
                candidates=np.arange(len(own.scores)),
            )
            store.put_detections(
                detect,
                [
                    DetectionSet(
                        image_id=image.id, model_id=model, detections=found, pin=pin, key=f"found-{image.id}"
                    )
                ],
            )
        store.finish_run(detect, status="done", counts={})
    return root / "ws"
