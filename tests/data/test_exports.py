"""`curator export`: what is written, what the manifest says, and the way back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curator.data.run_add import add
from curator.data.run_additions import file_stem
from curator.data.settings import AddConfig, ExportConfig
from curator.errors import InputError, StageError
from curator.jobs.stage import StageResult
from curator.pipeline.exporting import export
from curator.registry import FORMATS
from store.store import Store
from tests.data.exported import fill, pixels, select, tree


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "workspace") as opened:
        fill(opened, tmp_path / "data")
        yield opened


def run(store: Store, out: Path, format: str = "coco", **options: Any) -> StageResult:
    values = {
        "selections": ("query",),
        "samples": ("synthesis",),
        "class_map": {"automobile": "car"},
        **options,
    }
    return export(store, ExportConfig(format=format, out=out, **values))


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_the_training_set_is_augmented(store: Store, tmp_path: Path, format: str) -> None:
    result = run(store, tmp_path / "out", format)
    assert (result.done, result.failed, result.exit_code) == (6, 0, 0)
    assert result.summary["images"] == {"train": 3, "pool": 2, "sample": 1}
    assert (result.summary["pre_annotated"], result.summary["without_detections"]) == (2, 1)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    files = {entry["path"]: entry for entry in manifest["files"]}
    on_disk = tree(tmp_path / "out")
    assert set(files) | {"manifest.json"} == set(on_disk)
    assert all(hashlib.sha256(on_disk[path]).hexdigest() == entry["sha256"] for path, entry in files.items())
    by_role: dict[str, list[str]] = {}
    for path, entry in files.items():
        by_role.setdefault(entry.get("lineage", {}).get("role", "labels"), []).append(path)
    originals = {path.read_bytes() for path in (tmp_path / "data/train").glob("*.jpg")}
    assert {on_disk[path] for path in by_role["train"]} == originals
    (hit,) = files[by_role["pool"][0]]["lineage"]["hits"]
    assert (hit["query"], hit["rank"], hit["group"], hit["score"]) == ("query", 0, "FN:miss:car", 2.5)
    sample = files[by_role["sample"][0]]["lineage"]
    assert (sample["recipe"], sample["scene"], sample["seed"]) == ("culprit", "train/0.jpg", 3)
    assert sample["verdicts"] == [{"check": "seam", "value": 0.1, "bound": 1.0}]
    source = FORMATS.load(format)().open(tmp_path / "out")
    waiting = {item.path.name for item in source.items if item.status == "pre-annotation"}
    assert waiting == {Path(path).name for path in by_role["pool"]}
    version = store.version("out")
    assert version.manifest["key"] == manifest["key"]
    assert len(version.image_ids) == 5
    assert len(version.sample_ids) == 1


@pytest.mark.parametrize(("encoding", "kind"), [("jpeg", "JPEG"), ("png", "PNG")])
def test_added_images_are_encoded_alike(store: Store, tmp_path: Path, encoding: str, kind: str) -> None:
    run(store, tmp_path / "out", encoding=encoding, quality=80)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    seen = set()
    for entry in manifest["files"]:
        if entry.get("lineage", {}).get("role") in ("pool", "sample"):
            with Image.open(tmp_path / "out" / entry["path"]) as image:
                assert image.format == kind
                seen.add(str(getattr(image, "quantization", None)) + image.mode + str(sorted(image.info)))
                if kind == "PNG" and entry["lineage"]["role"] == "sample":
                    assert np.array_equal(np.asarray(image), pixels(20))
    assert len(seen) == 1


def test_pre_annotations_are_the_mapped_detections_above_the_threshold(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "out")
    table = json.loads((tmp_path / "out/annotations.json").read_text())
    names = {category["id"]: category["name"] for category in table["categories"]}
    (image,) = [image for image in table["images"] if image["file_name"].startswith("10-")]
    assert image["status"] == "pre-annotation"
    boxes = [
        (names[a["category_id"]], a["bbox"], round(a["score"], 2))
        for a in table["annotations"]
        if a["image_id"] == image["id"]
    ]
    assert boxes == [("car", [1, 1, 8, 8], 0.9), ("lamp", [2, 2, 46, 6], 0.8)]


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_a_corrected_export_comes_back(store: Store, tmp_path: Path, format: str) -> None:
    """The re-encoded files stand for the pool images; roles stay; only reviewed boxes become labels."""
    run(store, tmp_path / "out", format)
    path = tmp_path / "out/annotations.json" if format == "coco" else tmp_path / "out"
    members, images = store.memberships(), store.counts()["images"]
    pool = store.image_ids(role="pool")
    waiting = add(store, AddConfig(format=format, path=path, role="pool"))
    assert (waiting.summary["still_pre_annotated"], waiting.summary["passed_over"]) == (2, 1)
    assert not store.annotations(pool[:2], reader="export")
    if format == "coco":  # a human moves a box and takes the mark off one image
        table = json.loads(path.read_text())
        (image,) = [image for image in table["images"] if image["file_name"].startswith("10-")]
        del image["status"]
        next(a for a in table["annotations"] if a["image_id"] == image["id"])["bbox"] = [5, 5, 8, 8]
        path.write_text(json.dumps(table))
        corrected = add(store, AddConfig(format=format, path=path, role="pool"))
        assert corrected.summary["new_annotation_versions"] == 1
        labels = store.annotations(pool[:2], reader="export")
        assert list(labels) == [pool[0]]
        assert (labels[pool[0]].status, labels[pool[0]].annotations[0].box) == ("human", (5, 5, 13, 13))
        assert run(store, tmp_path / "next").summary["pre_annotated"] == 1
    else:
        add(store, AddConfig(format=format, path=path, role="pool", reviewed=True))
        assert len(store.annotations(pool[:2], reader="export")) == 2
        assert run(store, tmp_path / "next", format).summary["pre_annotated"] == 0
    assert store.memberships() == members
    assert store.counts()["images"] == images


def test_labelled_selected_images_can_join_the_training_set(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "out", samples=())
    add(store, AddConfig(format="coco", path=tmp_path / "out/annotations.json", role="train", reviewed=True))
    assert set(store.image_ids(role="pool")[:2]) < set(store.image_ids(role="train"))
    again = run(store, tmp_path / "next")
    assert again.summary["images"] == {"train": 5, "pool": 0, "sample": 1}
    assert again.summary["already_in_training"] == 2


def test_the_same_export_is_stored_already_and_another_is_refused(store: Store, tmp_path: Path) -> None:
    first = run(store, tmp_path / "out")
    before = tree(tmp_path / "out")
    again = run(store, tmp_path / "out")
    assert (again.done, again.skipped, again.exit_code) == (0, 6, 0)
    assert again.summary["key"] == first.summary["key"]
    assert len(store.versions()) == 1
    with pytest.raises(InputError, match="holds another export"):
        run(store, tmp_path / "out", quality=50)
    assert tree(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file.txt").write_text("keep")
    with pytest.raises(InputError, match="exists and is no export"):
        run(store, tmp_path / "mine")
    assert (tmp_path / "mine/file.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert run(store, tmp_path / "empty").done == 6


def test_two_exports_are_equal_file_by_file(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "one")
    run(store, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_leaks_changed_files_and_unlabelled_training_images_are_left_out(
    store: Store, tmp_path: Path
) -> None:
    pool = store.image_ids(role="pool")
    (tmp_path / "held").mkdir()
    Image.fromarray(pixels(12)).save(tmp_path / "held/x.png")
    select(store, "leaky", [pool[1], pool[2]])
    add(store, AddConfig(format="images", path=tmp_path / "held", role="holdout"))
    Image.fromarray(pixels(30)).save(tmp_path / "held/y.png")
    (tmp_path / "bare").mkdir()
    Image.fromarray(pixels(31)).save(tmp_path / "bare/z.png")
    add(store, AddConfig(format="images", path=tmp_path / "bare", role="train"))
    Image.fromarray(pixels(99)).save(tmp_path / "data/train/0.jpg")
    result = run(store, tmp_path / "out", selections=("leaky",))
    reasons = dict(result.failures)
    assert result.exit_code == 3
    assert "leak" in reasons["pool/12.png"]
    assert "changed since" in reasons["0.jpg"]
    assert "without labels" in reasons["z.png"]
    assert result.summary["images"] == {"train": 2, "pool": 1, "sample": 1}
    assert run(store, tmp_path / "out", selections=("leaky",)).exit_code == 3


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_images_that_failed_are_tried_again_and_the_export_is_finished(
    store: Store, tmp_path: Path, format: str
) -> None:
    run(store, tmp_path / "fresh", format)
    data, away = tmp_path / "data", tmp_path / "away"
    (data / "train").rename(away)
    (data / "pool/10.png").rename(tmp_path / "10.png")
    first = run(store, tmp_path / "out", format)
    assert (first.done, first.failed, first.exit_code) == (2, 4, 3)
    assert all("No such file" in why and "put the file back, or add" in why for _, why in first.failures)
    before = tree(tmp_path / "out")
    still = run(store, tmp_path / "out", format)  # nothing can be read that could not be read before
    assert (still.done, still.skipped, still.failures) == (0, 2, first.failures)
    assert tree(tmp_path / "out") == before

    away.rename(data / "train")  # one is missing still: what can be read comes in
    some = run(store, tmp_path / "out", format)
    assert (some.done, some.skipped, some.failed, some.exit_code) == (5, 0, 1, 3)
    (data / "moved").mkdir()
    (tmp_path / "10.png").rename(data / "moved/10.png")
    add(store, AddConfig(format="images", path=data / "moved", dataset="pool", role="pool"))
    whole = run(store, tmp_path / "out", format)
    assert (whole.done, whole.failed, whole.exit_code) == (6, 0, 0)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert run(store, tmp_path / "out", format).skipped == 6
    assert not list(tmp_path.glob(".out*"))
    assert len(store.versions()[-1].image_ids) == 5


def test_an_unfinished_export_that_people_changed_stays(store: Store, tmp_path: Path) -> None:
    lost, out = tmp_path / "data/train/0.jpg", tmp_path / "out"
    lost.rename(tmp_path / "0.jpg")
    run(store, out)
    (out / "notes.txt").write_text("mine")
    (tmp_path / "0.jpg").rename(lost)
    with pytest.raises(InputError, match=r"notes\.txt in it was changed or added"):
        run(store, out)
    (out / "notes.txt").unlink()
    (out / "annotations.json").write_text((out / "annotations.json").read_text() + " ")
    with pytest.raises(InputError, match=r"annotations\.json in it was changed"):
        run(store, out)


def test_an_unfinished_export_loses_no_image_that_it_holds(store: Store, tmp_path: Path) -> None:
    train, out = tmp_path / "data/train", tmp_path / "out"
    (train / "0.jpg").rename(tmp_path / "0.jpg")
    run(store, out)
    before = tree(out)
    (tmp_path / "0.jpg").rename(train / "0.jpg")
    (train / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"holds 1\.jpg, now unreadable"):
        run(store, out)
    assert tree(out) == before
    assert not list(tmp_path.glob(".out*"))


def test_nothing_to_export(tmp_path: Path) -> None:
    with Store.create(tmp_path / "workspace") as empty:
        with pytest.raises(InputError, match="nothing to export"):
            export(empty, ExportConfig(format="coco", out=tmp_path / "out"))
        assert not (tmp_path / "out").exists()
        assert [run.status for run in empty.runs(stage="export")] == ["failed"]
        with pytest.raises(InputError, match="none of them accepted"):
            export(empty, ExportConfig(format="coco", out=tmp_path / "out", samples=("x",)))
        (tmp_path / "bare").mkdir()
        Image.fromarray(pixels(31)).save(tmp_path / "bare/z.png")
        add(empty, AddConfig(format="images", path=tmp_path / "bare", role="train"))
        why = r"all 1 images are left out; the first is z\.png: .* without labels"
        with pytest.raises(InputError, match=why):
            export(empty, ExportConfig(format="coco", out=tmp_path / "out"))


def test_a_data_set_that_reads_back_differently_is_not_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curator.data.formats.yolo import YoloFormat

    monkeypatch.setattr(YoloFormat, "carried", lambda self, annotations: tuple(annotations))
    with pytest.raises(StageError, match="read back differently"):
        run(store, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_names_are_safe_and_do_not_grow() -> None:
    sha = hashlib.sha256(b"x").hexdigest()
    name = file_stem("a/b/../größe ?.jpg", sha)
    assert name == f"gr_e-{sha[:12]}"
    assert file_stem(f"{name}.jpg", sha) == name
    assert file_stem(None, sha) == f"image-{sha[:12]}"


CHILD = """
import sys, time
from pathlib import Path
from curator.data.settings import ExportConfig
from curator.data import run_export as exports, run_images
from store.store import Store
encode = run_images._encode
def slow(pixels, config):
    print("writing", flush=True)
    time.sleep(60)
    return encode(pixels, config)
run_images._encode = slow
with Store.open(sys.argv[1]) as store:
    exports.export(store, ExportConfig(format="coco", out=Path(sys.argv[2]), selections=("query",),
                                       samples=("synthesis",), class_map={"automobile": "car"}))
"""


def test_a_killed_export_leaves_nothing_and_runs_again(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "undisturbed")
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store.path), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CURATOR_QUIET": "1"},
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not out.exists()
    assert len(list(tmp_path.glob(".out*"))) == 1
    result = run(store, out)
    assert result.done == 6
    assert not list(tmp_path.glob(".out*"))
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_a_kill_before_the_version_is_stored_is_mended(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")  # a whole folder that the Store knows nothing of
    result = run(store, tmp_path / "two")
    assert (result.done, result.skipped) == (0, 6)
    assert store.version("two").manifest["added"] == store.version("one").manifest["added"]


def test_jpeg_of_an_addition_is_close_to_its_pixels(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "out")
    (path,) = (tmp_path / "out/images").glob("10-*.jpg")
    decoded = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
    assert np.abs(decoded.astype(int) - pixels(10)).mean() < 4


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_crowd_regions_that_a_format_cannot_hold_are_said(tmp_path: Path, format: str) -> None:
    """Twice, as a second export of the same reads what the first one said."""
    for number in range(3):
        Image.fromarray(pixels(number)).save(tmp_path / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 32} for n in range(3)]
    boxes = [
        {"image_id": n, "category_id": 1, "bbox": [1 + k, 2, 10, 20], "iscrowd": int(k < n)}
        for n in range(3)
        for k in range(3)
    ]
    table = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "labels.json").write_text(json.dumps(table))
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="coco", path=tmp_path / "labels.json", role="train"))
        for _ in range(2):
            result = export(store, ExportConfig(format=format, out=tmp_path / "out"))
            assert result.exit_code == 0
            notes = result.summary["notes"]
            if format == "yolo":
                assert len(notes) == 1
                assert notes[0].startswith("3 crowd regions in 2 images are left out: yolo files hold none")
            else:
                assert notes == []


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_class_names_with_edge_blanks_of_an_older_workspace_are_one_class(
    tmp_path: Path, format: str
) -> None:
    """Case 92: 'crate' and 'crate ' were two classes; they cannot be told apart in every format."""
    Image.fromarray(pixels(0)).save(tmp_path / "0.png")
    table = {
        "images": [{"id": 0, "file_name": "0.png", "width": 48, "height": 32}],
        "annotations": [
            {"image_id": 0, "category_id": k, "bbox": [k, 2, 10, 20]} for k in (1, 2)
        ],
        "categories": [{"id": 1, "name": "crate"}, {"id": 2, "name": "pallet"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(table))
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="coco", path=tmp_path / "labels.json", role="train"))
    with sqlite3.connect(tmp_path / "workspace/curator.db") as database:
        database.execute("UPDATE categories SET name = 'crate ' WHERE name = 'pallet'")
    database.close()
    with Store.open(tmp_path / "workspace") as store:
        result = export(store, ExportConfig(format=format, out=tmp_path / "out"))
        assert result.exit_code == 0
        assert "class 'crate ' is read as 'crate'" in result.summary["notes"]
    source = FORMATS.load(format)().open(tmp_path / "out")
    assert source.categories == ("crate",)
    (item,) = source.items
    assert [a.category for a in item.annotations] == ["crate", "crate"]
