"""Every case of ../shared/cases: its `make.py` makes the input, the library reads it, the right value comes.

`case.json` of each folder says where a case comes from and what is right. A case without a checker fails:
add one to `CHECKERS`. Relatives of the cases are tested beside the code (test_cases_*.py), with inputs of
their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curator import pipeline
from curator.data.settings import AddConfig, ExportConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import FormatError, InputError
from curator.jobs.stage import StageResult
from curator.query.settings import QueryConfig
from store.records import Annotation, Role
from store.store import Store

FOLDER = Path(os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "cases"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/make.py"))

Box = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class Case:
    """The input of one case, and workspaces to read it into.

    Attributes:
        folder: the case's own folder (a detector may lie there). data: what its make.py made.
        work: an empty folder for what the test makes.
    """

    folder: Path
    data: Path
    work: Path

    def workspace(self, name: str = "ws") -> Store:
        """Open the workspace of this name; made on first use."""
        path = self.work / name
        return pipeline.open_workspace(path) if path.exists() else pipeline.init_workspace(path)

    def add(
        self,
        format: str,
        path: Path | None = None,
        *,
        role: Role = "train",
        workspace: str = "ws",
        **options: Any,
    ) -> StageResult:
        """Run `curator add FORMAT PATH`; `path` defaults to the whole input."""
        config = AddConfig(format=format, path=path or self.data, role=role, **options)
        with self.workspace(workspace) as store:
            return pipeline.add(store, config)

    def labels(self, role: Role = "train", workspace: str = "ws") -> dict[str, list[Box] | None]:
        """File name -> (class, x1, y1, x2, y2) of each object, rounded to .01; None where unlabelled."""
        with self.workspace(workspace) as store:
            images = store.images(reader="train", role=role)
            sets = store.annotations([image.id for image in images], reader="train")
            return {
                Path(image.uri).name: [
                    _object(annotation) for annotation in sets[image.id].annotations
                ]
                if image.id in sets
                else None
                for image in images
            }

    def categories(self, workspace: str = "ws") -> list[str]:
        with self.workspace(workspace) as store:
            return [category.name for category in store.categories()]


def _object(annotation: Annotation) -> Box:
    x1, y1, x2, y2 = (round(value, 2) for value in annotation.box)
    return annotation.category, x1, y1, x2, y2


CRATE: Box = ("crate", 20, 30, 60, 80)


# ---------------------------------------------------------------- COCO, VOC, what all formats share


def mask_without_box(case: Case) -> None:
    result = case.add("coco")
    assert (result.exit_code, result.failures) == (0, ())
    assert case.labels() == {"a.png": [CRATE], "b.png": [CRATE]}


def names_of_another_machine(case: Case) -> None:
    for workspace, images in (("ws", None), ("ws.2", case.data / "images")):
        result = case.add("coco", workspace=workspace, images=images)
        assert (result.exit_code, result.failures) == (0, ())
        assert case.labels(workspace=workspace) == {
            "a.png": [CRATE],
            "b.png": [("crate", 10, 10, 50, 40)],
            "c.png": [],
        }


def boxes_outside(case: Case) -> None:
    result = case.add("coco")
    assert result.exit_code == 3
    ((name, reason),) = result.failures
    assert name == "a.png"
    assert "(200, 200, 220, 220) lies outside" in reason
    assert case.labels() == {
        "a.png": [("crate", 0, 10, 30, 40), ("crate", 140, 100, 160, 120), ("crate", 60, 60, 160, 80)]
    }
    assert len([note for note in result.summary["notes"] if note.endswith("clipped")]) == 2


def lists_of_splits(case: Case) -> None:
    splits: list[tuple[Role, str, set[str]]] = [
        ("train", "train", {"a.jpg", "c.jpg"}),
        ("mine", "val", {"b.jpg"}),
    ]
    for role, split, names in splits:
        result = case.add("voc", role=role, split=split)
        assert (result.exit_code, result.failures) == (0, ())
        assert case.labels(role=role) == {name: [CRATE] for name in names}


def blanks_round_class_names(case: Case) -> None:
    result = case.add("coco")
    assert result.exit_code == 0
    assert "class 'crate ' is read as 'crate'" in result.summary["notes"]
    objects = [CRATE, ("crate", 21, 31, 61, 81)]
    assert (case.categories(), case.labels()) == (["crate"], {"a.png": objects})
    for form in ("coco", "voc", "yolo"):
        out = case.work / f"{form}-export"
        with case.workspace() as store:
            assert pipeline.export(store, ExportConfig(format=form, out=out)).exit_code == 0
        assert case.add(form, out, workspace=form).exit_code == 0
        assert case.categories(form) == ["crate"]
        assert list(case.labels(workspace=form).values()) == [objects]


def glued_files(case: Case) -> None:
    result = case.add("coco")
    assert result.exit_code == 3
    assert case.labels() == dict.fromkeys(("a.png", "b.png", "c.png", "d.png"))
    assert {name for name, _ in result.failures} == {"a.png", "b.png", "c.png", "d.png"}
    assert any(name == "a.png" and "id 1 is given to c.png too" in reason for name, reason in result.failures)


def numbers_as_text(case: Case) -> None:
    result = case.add("coco")
    assert (result.exit_code, result.failures) == (0, ())
    assert case.labels() == {"a.png": [CRATE]}


# ---------------------------------------------------------------- YOLO, folders of images


def lists_and_folders_of_a_path(case: Case) -> None:
    result = case.add("yolo")
    assert (result.exit_code, result.failures) == (0, ())
    assert result.summary["splits"] == {"train": 2, "val": 1}
    assert case.labels() == {"a.png": [CRATE], "b.png": [CRATE], "c.png": [CRATE]}


def class_names_as_written(case: Case) -> None:
    for name in ("d", "l"):
        assert case.add("yolo", case.data / name).exit_code == 0
    assert case.labels() == {
        "a.png": [("1", 20, 30, 60, 80), ("no", 80, 30, 100, 80)],
        "b.png": [("yes", 20, 30, 60, 80), ("off", 80, 30, 100, 80), ("1", 10, 10, 20, 20)],
    }
    assert case.categories() == ["no", "1", "spare", "yes", "off"]


def pose_rows(case: Case) -> None:
    for name in ("p3", "p2"):
        assert case.add("yolo", case.data / name).exit_code == 0
    assert case.labels() == {"a.png": [CRATE], "b.png": [CRATE]}


def labels_beside_pictures(case: Case) -> None:
    for name, image in (("x", "a.png"), ("images/y", "b.png"), ("cat_images", "images.png")):
        result = case.add("yolo", case.data / name, workspace=image)
        assert (result.exit_code, result.failures) == (0, ())
        assert case.labels(workspace=image) == {image: [CRATE]}


def no_label_is_borrowed(case: Case) -> None:
    result = case.add("yolo")
    assert (result.exit_code, result.summary["unlabelled"]) == (0, 1)
    assert "1 of 2 images have no label file" in result.summary["notes"][0]
    with case.workspace() as store:
        stored = store.images(reader="train", role="train")
        images = {Path(image.uri).parent.name: image.id for image in stored}
        sets = store.annotations(list(images.values()), reader="train")
    assert list(sets) == [images["dogs"]]
    assert [a.category for a in sets[images["dogs"]].annotations] == ["dog"]


def a_row_twice(case: Case) -> None:
    result = case.add("yolo", role="train")
    assert (result.exit_code, result.summary["objects"]) == (0, 1)
    assert "is listed 2 times; one object is kept" in result.summary["notes"][0]
    assert case.labels() == {"a.png": [CRATE]}


def pictures_of_every_kind(case: Case) -> None:
    mixed = case.add("images", case.data / "mixed", role="pool", workspace="mixed")
    assert (mixed.done, mixed.failed) == (7, 0)
    assert mixed.summary["notes"][0].startswith("passed over: 1 .heic; read are .jpg, ")
    only = case.add("images", case.data / "only", role="pool", workspace="only")
    assert (only.done, only.failed) == (1, 0)  # the .gif
    assert only.summary["notes"][0].startswith("passed over: 1 .heic; ")
    (case.data / "only/j.gif").unlink()
    with pytest.raises(FormatError, match=r"expected images, found 1 \.heic; read are \.jpg, ") as raised:
        case.add("images", case.data / "only", role="pool", workspace="only")
    assert raised.value.exit_code == 2


def pixels_for_fractions(case: Case) -> None:
    result = case.add("yolo")
    assert (result.exit_code, result.summary["objects"], result.summary["dropped_objects"]) == (3, 0, 2)
    named = [reason for _, reason in result.failures if "expected fractions of the image" in reason]
    assert len(named) == 2
    assert case.labels() == {"a.png": None, "b.png": None}


def odd_answers_of_a_detector(case: Case) -> None:
    """The broken answers fail by image and box, nothing of them is stored; empty lists are nothing found."""
    assert case.add("yolo", role="mine").exit_code == 0
    with pytest.MonkeyPatch.context() as patch, case.workspace() as store:
        patch.syspath_prepend(str(case.folder))
        odd = pipeline.detect(store, DetectConfig(detector="python:silent:odd", device="cpu"))
        assert (odd.exit_code, odd.done, odd.failed) == (1, 0, 2)
        assert sorted(Path(item).name for item, _ in odd.failures) == ["a0.png", "a1.png"]
        for _, reason in odd.failures:
            assert "box 1 [60, 80, 20, 30]" in reason  # reversed
            assert "box 3 [nan, nan, nan, nan]" in reason
            assert "box 0" not in reason  # beyond the image: clipped
            assert "box 2" not in reason  # of no area: dropped
        mined = store.image_ids(role="mine")
        assert store.detections(odd.summary["model"], mined) == {}
        with pytest.raises(InputError, match=r"2 of 2 mined images have no detections.*box 1 \["):
            pipeline.diagnose(store, DiagnoseConfig(detector="python:silent:odd", device="cpu"))
        lists = pipeline.detect(store, DetectConfig(detector="python:silent:lists", device="cpu"))
        assert (lists.exit_code, lists.done, lists.summary["detections"]) == (0, 2, 0)
        missed = pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        assert (missed.exit_code, [row["fn"] for row in missed.summary["classes"]]) == (0, [2])


def frames_of_a_fixed_camera(case: Case) -> None:
    """Other objects on one background are other pictures: nothing leaks, all training images are there."""
    assert case.add("yolo", case.data / "train").summary["duplicates"] == []
    held = case.add("yolo", case.data / "test", role="holdout")
    assert (held.summary["leaks"], held.summary["near_count"]) == ([], 0)
    with case.workspace() as store:
        assert store.leaks(store.image_ids(role="train")) == {}
        out = case.work / "out"
        exported = pipeline.export(store, ExportConfig(format="coco", out=out, encoding="png"))
    assert (exported.exit_code, exported.summary["left_out"]) == (0, 0)
    assert exported.summary["images"]["train"] == 6


def pool_of_a_fixed_camera(case: Case) -> None:
    """A query still offers the pool's frames."""
    for role, format in (("mine", "yolo"), ("pool", "images"), ("test", "yolo")):
        case.add(format, case.data / role, role="holdout" if role == "test" else role)  # type: ignore[arg-type]
    silent = FOLDER / "61-detector-odd-boxes"
    with pytest.MonkeyPatch.context() as patch, case.workspace() as store:
        patch.syspath_prepend(str(silent))
        assert store.leaks(store.image_ids(role="pool")) == {}
        pipeline.detect(store, DetectConfig(detector="python:silent:one", device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        found = pipeline.query(store, QueryConfig(method="random", budget=30))
    assert len(found.summary["hits"]) == 30
    assert not [line for line in found.summary["warnings"] if "refused" in line or "passed over" in line]


CHECKERS: dict[str, Callable[[Case], None]] = {
    # COCO, VOC and what all formats share
    "05-coco-rle-without-bbox": mask_without_box,
    "07-coco-windows-paths": names_of_another_machine,
    "15-coco-outside-and-negative-boxes": boxes_outside,
    "63-voc-imagesets-split": lists_of_splits,
    "92-class-names-with-edge-blanks-round-trip": blanks_round_class_names,
    "97-coco-two-files-glued": glued_files,
    "100-coco-numbers-as-text": numbers_as_text,
    # YOLO, folders of images
    "21-yolo-path-and-lists": lists_and_folders_of_a_path,
    "23-yolo-names-dict-and-list": class_names_as_written,
    "27-yolo-pose-rows": pose_rows,
    "30-yolo-labels-beside-pictures": labels_beside_pictures,
    "32-yolo-same-names-in-class-folders": no_label_is_borrowed,
    "34-yolo-duplicate-rows": a_row_twice,
    "75-img-formats-passed-over": pictures_of_every_kind,
    "102-yolo-pixel-rows-near-the-corner": pixels_for_fractions,
    # detectors
    "61-detector-odd-boxes": odd_answers_of_a_detector,
    # near-duplicates
    "73-fixed-camera": frames_of_a_fixed_camera,
    "84-fixed-camera-pool": pool_of_a_fixed_camera,
}


absent = pytest.mark.skipif(not NAMES, reason=f"no cases at {FOLDER} (set CURATOR_SHARED)")


@absent
@pytest.mark.parametrize("name", NAMES or ["none"])
def test_case(name: str, tmp_path: Path) -> None:
    assert name in CHECKERS, f"no checker for {name}: add one to CHECKERS; case.json there says what is right"
    data = tmp_path / "data"
    subprocess.run([sys.executable, str(FOLDER / name / "make.py"), str(data)], check=True)
    (tmp_path / "work").mkdir()
    CHECKERS[name](Case(folder=FOLDER / name, data=data, work=tmp_path / "work"))


@absent
def test_every_checker_has_its_case() -> None:
    assert set(CHECKERS) <= set(NAMES)
