"""A small workspace to export from: training images, a pool, a model, a selection, a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curator.data.run_add import add
from curator.data.settings import AddConfig
from store.images import encode_png
from store.records import Detections, DetectionSet, Hit, NewAnnotation, Pin, Sample, Selection, Verdict
from store.store import Store

BOX = (4.0, 4.0, 20.0, 20.0)


def pixels(seed: int, size: tuple[int, int] = (48, 32)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def fill(store: Store, folder: Path) -> None:
    """Three training images (one stored turned by EXIF), a pool of three, a model, a selection, a sample."""
    (folder / "train").mkdir(parents=True)
    (folder / "pool").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    images = []
    for number in range(3):
        Image.fromarray(pixels(number)).save(
            folder / f"train/{number}.jpg", exif=exif if number == 2 else Image.Exif()
        )
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 48, "height": 32})
    boxes = [
        {"image_id": n, "category_id": 1, "bbox": [1, 2, 10 + n / 3, 20], "attributes": {"n": n}}
        for n in range(3)
    ]
    (folder / "train/labels.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": boxes,
                "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "lamp"}],
            }
        )
    )
    for number in range(10, 13):
        Image.fromarray(pixels(number)).save(folder / f"pool/{number}.png")
    add(store, AddConfig(format="coco", path=folder / "train/labels.json", role="train"))
    add(store, AddConfig(format="images", path=folder / "pool", role="pool"))
    pool = store.image_ids(role="pool")
    run = store.begin_run("test", config={})
    model = store.put_model("python:x", "f" * 64, ["automobile", "lamp", "dog"])
    found = Detections(
        boxes=np.array([[1, 1, 9, 9], [2, 2, 60, 8], [3, 3, 9, 9], [4, 4, 9, 9]]),
        candidates=np.arange(4),
        scores=np.array([0.9, 0.8, 0.7, 0.2]),
        labels=np.array([0, 1, 2, 0]),
    )
    pin = Pin(image_size=(32, 48), input_size=(32, 48), scale=(1.0, 1.0))
    store.put_detections(
        run, [DetectionSet(image_id=pool[0], model_id=model, detections=found, pin=pin, key="d" * 64)]
    )
    select(store, "query", pool[:2])
    sample = Sample(
        name="synthesis",
        blob=store.put_blob(encode_png(pixels(20))),
        width=48,
        height=32,
        recipe="culprit",
        group="FN:miss:car",
        scene_image_id=store.image_ids(role="train")[0],
        exemplar_image_id=None,
        outcome_id=None,
        painted=BOX,
        annotations=(NewAnnotation(category="car", box=BOX),),
        seed=3,
        key="s" * 64,
    )
    store.put_sample(run, sample)
    store.put_verdicts(
        run, sample.key, [Verdict(check="seam", accepted=True, value=0.1, bound=1.0, reason="smooth")]
    )
    store.finish_run(run, status="done", counts={})


def select(store: Store, name: str, image_ids: list[int]) -> None:
    hits = tuple(
        Hit(
            rank=rank,
            image_id=image_id,
            outcome_id=None,
            group="FN:miss:car",
            box=BOX,
            score=2.5,
        )
        for rank, image_id in enumerate(image_ids)
    )
    run = store.begin_run("test", config={})
    store.put_selection(
        run, Selection(name=name, arm="query", hits=hits, config={}, key=f"{name}{image_ids}")
    )
    store.finish_run(run, status="done", counts={})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
