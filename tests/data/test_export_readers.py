"""Exports of photographs, read by the libraries that people train with.

Photographs are added as training set, mined images and pool; a query chooses from the pool; every format is
exported and read by pycocotools, torchvision and Ultralytics. They find as many images and objects of each
class as the Store holds and the manifest counts, where the Store has them. Images without objects stay.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curator import pipeline
from curator.data.run_additions import file_stem
from store.store import Store

Objects = list[tuple[str, tuple[float, ...]]]
PLACES = {"bccd": "bccd/BCCD", "voc100": "voc100", "coco_val128": "coco_val128/detection_config.yaml"}
PARTS = {  # of hundred images, by role
    "bccd": {"train": "0-8", "mine": "8-10", "pool": "10-16"},
    "voc100": {"train": "0-40", "mine": "40-50", "pool": "50-80"},
    "coco_val128": {"train": "0-30", "mine": "30-38", "pool": "38-60"},
}
BACKGROUNDS = 6
HALF = 0.5
CORNERS = ("xmin", "ymin", "xmax", "ymax")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Chosen:
    """A workspace to export from: what must be read, by file stem, and the stems of the backgrounds."""

    name: str
    store: Store
    expected: dict[str, Objects]
    backgrounds: set[str]

    def counts(self) -> dict[str, int]:
        return dict(Counter(name for objects in self.expected.values() for name, _ in objects))


@pytest.fixture(scope="module", params=tuple(PLACES))
def chosen(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chosen]:
    folder = tmp_path_factory.mktemp(request.param)
    with Store.create(folder / "workspace") as store:
        path = shared / PLACES[request.param]
        format = "yolo" if path.is_file() else "voc"
        for role, part in PARTS[request.param].items():
            pipeline.add(
                store, pipeline.AddConfig(format=format, path=path, role=role, part=part, dataset=role)
            )
        if format == "yolo":
            _add_backgrounds(store, shared / "bccd/BCCD/JPEGImages", folder / "backgrounds")
        missed = "RBC" if request.param == "bccd" else "person"
        detector = f"python:tests.data.finds_nothing:build?name={missed}"
        pipeline.detect(store, pipeline.DetectConfig(detector=detector, device="cpu"))
        pipeline.diagnose(store, pipeline.DiagnoseConfig())
        pool = store.image_ids(role="pool")
        pipeline.query(store, pipeline.QueryConfig(method="random", budget=len(pool)))
        yield _chosen(request.param, store, pool)


def _add_backgrounds(store: Store, photographs: Path, folder: Path) -> None:
    """Blood cells: photographs without any of COCO's objects; their label files are empty."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for photograph in sorted(photographs.glob("*.jpg"))[:BACKGROUNDS]:
        shutil.copy(photograph, folder / "images")
        (folder / "labels" / f"{photograph.stem}.txt").touch()
    config = pipeline.AddConfig(format="yolo", path=folder, role="pool", classes=("person",))
    assert pipeline.add(store, config).summary["unlabelled"] == 0


def _chosen(name: str, store: Store, pool: list[int]) -> Chosen:
    ids = [*store.image_ids(role="train"), *store.selection("query").image_ids]
    assert len(ids) >= 36
    assert 0.7 * len(pool) < len(store.selection("query").image_ids) <= len(pool)
    labels = store.annotations(ids, reader="export")
    sources = {member.image_id: member.source for member in store.memberships(ids)}
    expected = {
        file_stem(sources[image.id], image.sha256): [
            (annotation.category, annotation.box) for annotation in labels[image.id].annotations
        ]
        for image in store.images(reader="export", ids=ids)
    }
    assert len(expected) == len(ids)
    backgrounds = {stem for stem, objects in expected.items() if not objects}
    return Chosen(name=name, store=store, expected=expected, backgrounds=backgrounds)


def exported(chosen: Chosen, format: str, out: Path) -> Path:
    """The export, whose own counts are those of the Store."""
    config = pipeline.ExportConfig(format=format, out=out, selections=("query",))
    result = pipeline.export(chosen.store, config)
    assert (result.failed, result.done) == (0, len(chosen.expected))
    assert {name: count for name, count in result.summary["objects"].items() if count} == chosen.counts()
    manifest = json.loads((out / "manifest.json").read_text())
    images = [entry for entry in manifest["files"] if "lineage" in entry]
    assert {Path(entry["path"]).stem for entry in images} == set(chosen.expected)
    assert {entry["class"]: entry["objects"] for entry in manifest["objects"]} == result.summary["objects"]
    assert Counter(entry["lineage"]["role"] for entry in images) == {
        role: count for role, count in result.summary["images"].items() if count
    }
    return out


def compare(chosen: Chosen, found: dict[str, Objects]) -> None:
    """Equal images, equal numbers of objects per class, and boxes within half a pixel."""
    assert set(found) == set(chosen.expected)
    assert Counter(name for objects in found.values() for name, _ in objects) == chosen.counts()
    for stem, expected in chosen.expected.items():
        left = list(found[stem])
        for name, box in expected:
            apart = [float(np.abs(np.subtract(there, box)).max()) for _, there in left]
            fits = [place for place, (other, _) in enumerate(left) if other == name and apart[place] <= HALF]
            assert fits, f"{stem}: no {name} at {box} among {left}"
            del left[min(fits, key=apart.__getitem__)]
        assert left == []


def corners(box: list[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def test_the_sets_are_what_they_are_said_to_be(chosen: Chosen) -> None:
    """Several classes, many objects; and the backgrounds that are looked for below."""
    assert len(chosen.counts()) >= 3
    assert sum(chosen.counts().values()) > 80
    assert len(chosen.backgrounds) >= (BACKGROUNDS - 2 if chosen.name == "coco_val128" else 0)


def test_pycocotools_and_torchvision_read_coco(chosen: Chosen, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pip install pycocotools")
    datasets = pytest.importorskip("torchvision.datasets")
    out = exported(chosen, "coco", tmp_path / "out")
    read = coco.COCO(str(out / "annotations.json"))
    names = {number: category["name"] for number, category in read.cats.items()}
    assert list(names.values()) == [category.name for category in chosen.store.categories()]
    assert len(read.getImgIds()) == len(chosen.expected)
    for number, name in names.items():
        assert len(read.getAnnIds(catIds=[number])) == chosen.counts().get(name, 0)

    def objects(annotations: list[dict[str, Any]]) -> Objects:
        return [(names[a["category_id"]], corners(a["bbox"])) for a in annotations]

    found = {
        Path(image["file_name"]).stem: objects(read.loadAnns(read.getAnnIds(imgIds=[number])))
        for number, image in read.imgs.items()
    }
    compare(chosen, found)
    assert {stem for stem, boxes in found.items() if not boxes} == chosen.backgrounds
    evaluated(read)
    dataset = datasets.CocoDetection(str(out / "images"), str(out / "annotations.json"))
    assert len(dataset) == len(chosen.expected)
    targets = {}
    for number, (picture, target) in zip(dataset.ids, dataset, strict=True):
        image = dataset.coco.imgs[number]
        assert picture.size == (image["width"], image["height"])
        targets[Path(image["file_name"]).stem] = objects(target)
    compare(chosen, targets)


def evaluated(read: Any) -> None:
    """COCOeval takes the labels, and finds them all where they are given as detections."""
    from pycocotools.cocoeval import COCOeval

    found = [
        {**{name: a[name] for name in ("image_id", "category_id", "bbox")}, "score": 1.0}
        for a in read.anns.values()
    ]
    evaluation = COCOeval(read, read.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_ultralytics_reads_yolo(chosen: Chosen, tmp_path: Path) -> None:
    """As `yolo train data=data.yaml` does, without a word changed in data.yaml."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(tmp_path))
    pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    out = exported(chosen, "yolo", tmp_path / "out")
    data = check_det_dataset(str(out / "data.yaml"), autodownload=False)
    assert data["train"] == data["val"] == str((out / "images/train").resolve())
    assert list(data["names"].values()) == [category.name for category in chosen.store.categories()]
    dataset = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False)
    assert len(dataset) == len(chosen.expected)
    found = {}
    for label in dataset.labels:
        height, width = label["shape"]
        scale = np.array([width, height, width, height])
        x, y, w, h = (label["bboxes"].reshape(-1, 4) * scale).T
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1).tolist()
        classes = [data["names"][int(number)] for number in label["cls"].reshape(-1)]
        found[Path(label["im_file"]).stem] = list(zip(classes, map(tuple, boxes), strict=True))
    compare(chosen, found)
    labels = {path.stem: path for path in (out / "labels/train").glob("*.txt")}
    assert set(labels) == set(chosen.expected)  # no image without a label file
    assert {stem for stem, path in labels.items() if not path.read_bytes()} == chosen.backgrounds
    assert dataset[0]["img"].shape[0] == 3  # what a training step takes
    text = (out / "data.yaml").read_text()
    assert text.index("# No validation images are exported") < text.index("val:")
    assert text.count("val:") == 1


def test_torchvision_reads_voc(chosen: Chosen, tmp_path: Path) -> None:
    """Exported to ROOT/VOCdevkit/VOC2012, where torchvision looks for it under ROOT."""
    datasets = pytest.importorskip("torchvision.datasets")
    exported(chosen, "voc", tmp_path / "VOCdevkit" / "VOC2012")
    dataset = datasets.VOCDetection(str(tmp_path), year="2012", image_set="train")
    assert len(dataset) == len(chosen.expected)
    found: dict[str, Objects] = {}
    for picture, target in dataset:
        said = target["annotation"]
        assert picture.size == (int(said["size"]["width"]), int(said["size"]["height"]))
        found[Path(said["filename"]).stem] = [
            (node["name"], tuple(float(node["bndbox"][corner]) for corner in CORNERS))
            for node in said["object"]
        ]
    compare(chosen, found)
    assert {stem for stem, boxes in found.items() if not boxes} == chosen.backgrounds
