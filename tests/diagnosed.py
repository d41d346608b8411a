"""A diagnosed workspace that several stages' tests start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curator.detect.load import load_detector
from curator.diagnose.settings import DiagnoseConfig
from curator.tensors import image_tensor
from store.images import encode_png, probe
from store.records import DetectionSet, ItemStatus, NewImage, Outcome, TargetRecord
from store.store import Store

SPEC = "curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5"


def make_diagnosed(root: Path, images: int) -> Path:
    """A workspace with random pictures, detections of an untrained SSD, and four outcomes made from each."""
    detector = load_detector(SPEC, "cpu")
    with Store.create(root / "ws") as store:
        run = store.begin_run("test", config={})
        numbers = np.random.default_rng(0)
        new = []
        for i in range(images):
            coarse = numbers.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            path = root / f"{i}.png"
            path.write_bytes(encode_png(np.kron(coarse, np.ones((20, 20, 1), np.uint8))))
            seen = probe(path)
            new.append(
                NewImage(
                    uri=str(path),
                    sha256=seen.sha256,
                    phash=seen.phash,
                    width=160,
                    height=120,
                    dataset="d",
                    role="mine",
                )
            )
        ids = [added.image_id for added in store.add_images(run, new)]
        model = store.put_model(SPEC, detector.fingerprint, detector.classes)
        diagnose = store.begin_run(
            "diagnose",
            config=DiagnoseConfig().everything(),
            models=[detector.fingerprint],
            config_key="diagnosed",
        )
        for image in store.images(reader="detect", ids=ids):
            pixels = image_tensor(store.pixels(image, reader="detect"))
            found, pin = detector.predict([pixels], score_threshold=0.01)[0]
            store.put_detections(
                run,
                [
                    DetectionSet(
                        image_id=image.id,
                        model_id=model,
                        detections=found,
                        pin=pin,
                        key=f"detections-{image.id}",
                    )
                ],
            )
            kinds = [("TP", None), ("FN", "miss"), ("FP", "background"), ("TP", None)]
            outcomes = []
            for j, (kind, cause) in enumerate(kinds):
                label = int(found.labels[j])
                target = TargetRecord(
                    candidate=int(found.candidates[j]),
                    label=label,
                    rule="detection",
                    score=float(found.scores[j]),
                    iou=1.0,
                )
                x1, y1, x2, y2 = found.boxes[j].tolist()
                outcomes.append(
                    Outcome(
                        image_id=image.id,
                        model_id=model,
                        kind=kind,
                        cause=cause,
                        category="a",
                        box=(x1, y1, x2, y2),
                        score=target.score,
                        iou=1.0,
                        target=target,
                        detection_index=None if kind == "FN" else j,
                        key=f"outcome-{image.sha256}-{j}",
                    )
                )
            store.put_outcomes(diagnose, image.id, outcomes, item_key=f"diagnosed-{image.id}")
        store.record_items(
            diagnose, [ItemStatus(key=f"diagnosed-{i}", status="done", image_id=i) for i in ids]
        )
        store.finish_run(diagnose, status="done", counts={})
    return root / "ws"
