"""Data sets list other classes than others of the same workspace: what no one labelled is not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from curator import pipeline
from curator.cli.mine import diagnose_lines
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.causes import Criteria
from curator.diagnose.run_current import class_map
from curator.diagnose.settings import DiagnoseConfig
from curator.matching import ClassMap, not_judged
from curator.prove.run_verify import read_holdout
from curator.prove.trials import evaluate_base
from curator.query.asked import Asked, Mined
from store.records import BoxRows, Role
from store.store import Store
from tests.data.finds_each import CLASSES, box_of

SPEC = "python:tests.data.finds_each:build"


def coco(folder: Path, seed: int, listed: tuple[str, ...], shown: tuple[str, ...], images: int = 2) -> Path:
    """A COCO data set of noise whose file lists `listed` and labels the objects of `shown`."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    table: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    table["categories"] = [{"id": i, "name": name} for i, name in enumerate(listed, start=1)]
    for i in range(images):
        Image.fromarray(numbers.integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        table["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 40})
        for name in shown:
            x1, y1, x2, y2 = box_of(name)
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            number = len(table["annotations"])
            kind = listed.index(name) + 1
            table["annotations"].append({"id": number, "image_id": i, "category_id": kind, **box})
    (folder / "annotations.json").write_text(json.dumps(table))
    return folder


def add(store: Store, folder: Path, role: Role, **more: Any) -> None:
    result = pipeline.add(store, AddConfig(format="coco", path=folder, role=role, **more))
    assert not result.failed


def base_of_holdout(store: Store) -> dict[str, Any]:
    detector = load_detector(SPEC, "cpu")
    classes = class_map(store, CLASSES, {})
    holdout = read_holdout(store, {})
    return evaluate_base(detector, holdout, classes, Criteria(score=0.5, low_score=0.0), 2)[1]


def test_the_base_is_not_judged_by_what_other_data_sets_list(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        add(store, coco(tmp_path / "holdout", 0, ("car",), ("car",)), "holdout")
        alone = base_of_holdout(store)
        assert (alone["false"], alone["found"], alone["ap50"]) == (0, 2, 1.0)
        add(store, coco(tmp_path / "pool", 1, CLASSES, ("car", "dog")), "pool")
        assert base_of_holdout(store) == alone
        [line] = not_judged(class_map(store, CLASSES, {}), (h.labelled for h in read_holdout(store, {})))
        assert line.startswith("the data sets of 2 images do not list person, dog: detections of these")


def test_a_class_that_is_listed_and_not_shown_counts(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        add(store, coco(tmp_path / "holdout", 0, ("car", "dog"), ("car",)), "holdout")
        assert base_of_holdout(store)["false"] == 2  # a dog in each of two pictures; a person nobody knows


def test_a_mined_image_is_judged_by_its_own_list_alone(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        add(store, coco(tmp_path / "first", 0, ("car",), ("car",)), "mine")
        pipeline.detect(store, DetectConfig(detector=SPEC, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        before = {(o.key, o.kind, o.category) for o in store.outcomes()}
        assert {kind for _, kind, _ in before} == {"TP"}
        add(store, coco(tmp_path / "second", 1, CLASSES, ()), "mine")
        pipeline.detect(store, DetectConfig(detector=SPEC, device="cpu"))
        found = pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        false = {o.category for o in store.outcomes() if o.kind == "FP"}
        assert false == set(CLASSES)
        first = store.image_ids(role="mine")[:2]
        assert {o.kind for o in store.outcomes() if o.image_id in first} == {"TP"}
        assert "the data sets of 2 images do not list person, dog" in "\n".join(diagnose_lines(found.summary))
        listed = found.summary["classes"]
        assert {row["class"]: row["fp"] for row in listed} == {"car": 2, "person": 2, "dog": 2}


def test_the_last_word_on_an_image_counts(tmp_path: Path) -> None:
    """The same labels in a file that lists more: judged anew, without a new version of the labels."""
    with Store.create(tmp_path / "ws") as store:
        folder = coco(tmp_path / "a", 0, ("car",), ("car",))
        add(store, folder, "mine")
        pipeline.detect(store, DetectConfig(detector=SPEC, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        table = json.loads((folder / "annotations.json").read_text())
        table["categories"].append({"id": 7, "name": "dog"})
        (folder / "annotations.json").write_text(json.dumps(table))
        added = pipeline.add(store, AddConfig(format="coco", path=folder, role="mine"))
        assert added.summary["new_annotation_versions"] == 0
        again = pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        assert (again.done, again.skipped) == (2, 0)
        assert [o.category for o in store.outcomes() if o.kind == "FP"] == ["dog", "dog"]


def test_data_sets_of_one_name_stay_apart(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        add(store, coco(tmp_path / "a" / "valid", 0, ("car",), ("car",)), "holdout")
        before = base_of_holdout(store)
        add(store, coco(tmp_path / "b" / "valid", 1, CLASSES, ("dog",)), "pool")
        assert base_of_holdout(store) == before
        labels = store.annotations(store.image_ids(role="pool"), reader="oracle")
        assert {own.classes for own in labels.values()} == {frozenset(CLASSES)}


def test_what_nobody_labelled_teaches_a_query_nothing() -> None:
    asked = Asked(kind="FP", categories=("dog",), labels=(2,), threshold=0.5)
    nothing = cast(BoxRows, None)  # no box is looked at
    mined = Mined(
        offered=nothing,
        image_ids=np.array([1, 2, 3]),
        outcomes=nothing,
        culprits=None,
        known={},
        units={},
        listed={1: frozenset({"car"}), 2: frozenset({"car", "dog"})},
    )
    assert mined.unlisted(asked) == [1]
    assert mined.silent(asked, np.array([1, 1, 2, 3])).tolist() == [True, True, False, False]


def test_voc_lists_nothing(tmp_path: Path) -> None:
    """Its classes are those of the objects found; --classes lists them."""
    folder = tmp_path / "voc"
    (folder / "Annotations").mkdir(parents=True)
    Image.new("RGB", (64, 40)).save(folder / "Annotations" / "0.png")
    (folder / "Annotations" / "0.xml").write_text(
        "<annotation><filename>0.png</filename><size><width>64</width><height>40</height></size>"
        "<object><name>car</name><bndbox><xmin>1</xmin><ymin>5</ymin><xmax>15</xmax><ymax>20</ymax></bndbox>"
        "</object></annotation>"
    )
    for name, classes, expected in (("found", None, None), ("told", ("car",), frozenset({"car"}))):
        with Store.create(tmp_path / name) as store:
            pipeline.add(store, AddConfig(format="voc", path=folder, role="mine", classes=classes))
            [own] = store.annotations(store.image_ids(role="mine"), reader="diagnose").values()
            assert own.classes == expected


@pytest.mark.parametrize(
    ("labelled", "left"), [(None, [0, 1, 2]), (frozenset({"dog"}), [2]), (frozenset(), [])]
)
def test_a_map_within_what_is_labelled(labelled: frozenset[str] | None, left: list[int]) -> None:
    classes = ClassMap.resolve((*CLASSES, "cow"), CLASSES, {})
    assert [label for label, _ in classes.within(labelled).pairs()] == left
    assert classes.within(labelled).missing == ()
    assert set(classes.unlabelled(labelled)) == set(CLASSES) - {CLASSES[i] for i in left}
