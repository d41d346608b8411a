"""`curator versions`: what was exported, what changed, and the same data set again."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curator.cli.versions import compared_lines
from curator.data import export_folder, record, run_images, run_versions
from curator.data.run_add import add
from curator.data.run_versions import compare_versions, export_version, find, versions
from curator.data.settings import AddConfig, ExportConfig, VersionExportConfig
from curator.errors import InputError
from curator.jobs.stage import StageResult
from curator.pipeline.exporting import export
from store.images import encode_png
from store.records import NewAnnotation, Verdict
from store.store import Store
from tests.data.exported import BOX, fill, pixels, select, tree

FORMATS = ["coco", "yolo", "voc"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With a training image that has a crowd region, a polygon, and a class of its own."""
    with Store.create(tmp_path / "workspace") as opened:
        fill(opened, tmp_path / "data")
        ring = [2, 2, 20, 2, 20, 12]
        train(
            opened,
            tmp_path / "data",
            "masked",
            [
                {"bbox": [2, 2, 18, 10], "segmentation": [ring]},
                {"bbox": [20, 10, 20, 20], "iscrowd": 1},
            ],
        )
        yield opened


def train(store: Store, folder: Path, name: str, boxes: list[dict[str, Any]], category: str = "bus") -> None:
    """Add a training image, or one that is there with other labels."""
    path = folder / name
    path.mkdir(exist_ok=True)
    if not (path / f"{name}.jpg").exists():
        Image.fromarray(pixels(sum(name.encode()))).save(path / f"{name}.jpg")
    table = {
        "images": [{"id": 1, "file_name": f"{name}.jpg", "width": 48, "height": 32}],
        "annotations": [{"image_id": 1, "category_id": 1, **box} for box in boxes],
        "categories": [{"id": 1, "name": category}],
    }
    (path / "labels.json").write_text(json.dumps(table))
    add(store, AddConfig(format="coco", path=path / "labels.json", role="train"))


def write(store: Store, out: Path, format: str = "coco", **options: Any) -> StageResult:
    values = {"selections": ("query",), "samples": ("synthesis",), "class_map": {"automobile": "car"}}
    return export(store, ExportConfig(format=format, out=out, **(values | options)))


def again(store: Store, version: str, out: Path) -> StageResult:
    return export_version(store, VersionExportConfig(version=version, out=out))


def grow(store: Store, folder: Path) -> None:
    """More images, classes and labels; another selection and other samples under the old names."""
    train(store, folder / "data", "new", [{"bbox": [1, 1, 9, 9]}], category="lorry")
    train(store, folder / "data", "masked", [{"bbox": [3, 3, 18, 10]}])
    select(store, "query", store.image_ids(role="pool")[1:])
    write(store, folder / "to-label", "voc", samples=())
    add(store, AddConfig(format="voc", path=folder / "to-label", role="pool", reviewed=True))
    (sample,) = store.samples()
    run = store.begin_run("test", config={})
    other = replace(
        sample,
        blob=store.put_blob(encode_png(pixels(21))),
        annotations=(NewAnnotation(category="lamp", box=BOX),),
        key="t" * 64,
        id=None,
    )
    store.put_sample(run, other)
    bad = Verdict(check="seam", accepted=False, value=2.0, bound=1.0, reason="a seam")
    store.put_verdicts(run, sample.key, [bad])
    store.finish_run(run, status="done", counts={})


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_version_is_written_again_byte_by_byte(
    store: Store, tmp_path: Path, format: str, encoding: str
) -> None:
    first = write(store, tmp_path / "first", format, encoding=encoding)
    before = tree(tmp_path / "first")
    assert f'"encoding": "{encoding}"' in before["manifest.json"].decode()
    grow(store, tmp_path)
    changed = write(store, tmp_path / "changed", format, encoding=encoding)
    shutil.rmtree(tmp_path / "first")
    result = again(store, str(first.summary["version_number"]), tmp_path / "again")
    assert (result.done, result.skipped, result.failed, result.summary["warnings"]) == (7, 0, 0, [])
    after = tree(tmp_path / "again")
    assert {name for name in before if before[name] != after.get(name)} == set()
    assert after.keys() == before.keys()
    assert tree(tmp_path / "changed") != before
    assert again(store, "changed", tmp_path / "third").summary["key"] == changed.summary["key"]
    assert tree(tmp_path / "third") == tree(tmp_path / "changed")
    twice = again(store, "first", tmp_path / "again")
    assert (twice.done, twice.skipped) == (0, 7)
    assert len(store.versions()) == 3  # with to-label: what is written again is no other version


def test_versions_are_listed(store: Store, tmp_path: Path) -> None:
    assert versions(store) == []
    write(store, tmp_path / "first", "yolo")
    write(store, tmp_path / "bare", selections=(), samples=(), version="only what was there")
    one, two = versions(store)
    assert (one["number"], one["name"], one["format"]) == (1, "first", "yolo")
    assert one["images"] == {"train": 4, "pool": 2, "sample": 1}
    assert one["objects"] == {"car": 5, "lamp": 1, "bus": 1}  # three labelled, two detected, one painted
    assert (one["selections"], one["samples"], one["recorded"]) == (["query"], ["synthesis"], True)
    assert one["made"] == store.runs(stage="export")[1].started_at.isoformat()
    assert one["out"] == str(tmp_path / "first")
    assert (two["name"], two["selections"], two["samples"]) == ("only what was there", [], [])
    assert two["objects"] == {"car": 3, "lamp": 0, "bus": 1}


@pytest.mark.parametrize("chunk", [1, 3, 500])
def test_versions_are_compared(
    store: Store, tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "CHUNK", chunk)
    write(store, tmp_path / "first")
    grow(store, tmp_path)
    add(store, AddConfig(format="voc", path=tmp_path / "to-label", role="train", reviewed=True))
    write(store, tmp_path / "second", "voc")
    found = compare_versions(store, "first", "second")
    assert [version["format"] for version in found["versions"]] == ["coco", "voc"]
    assert [sum(v["images"].values()) for v in found["versions"]] == [7, 8]

    def names(kind: str) -> dict[str, tuple[list[Any], list[Any]]]:
        assert found[kind]["count"] == len(found[kind]["images"])
        return {
            image["name"].rpartition("-")[0]: (image["objects"], image["roles"])
            for image in found[kind]["images"]
        }

    assert names("added") == {
        "new": ([None, 1], [None, "train"]),
        "12": ([None, 0], [None, "train"]),
        "sample-culprit": ([None, 1], [None, "sample"]),
    }
    assert names("removed") == {
        "10": ([2, None], ["pool", None]),
        "sample-culprit": ([1, None], ["sample", None]),
    }
    assert names("labels") == {"masked": ([2, 1], ["train", "train"]), "11": ([0, 0], ["pool", "train"])}
    assert names("roles") == {"11": ([0, 0], ["pool", "train"])}
    back = compare_versions(store, "second", "first")
    assert back["added"]["count"] == 2
    assert back["removed"]["count"] == 3
    same = compare_versions(store, "first", "1")
    assert [same[kind]["count"] for kind in ("added", "removed", "labels", "roles")] == [0, 0, 0, 0]


def test_a_comparison_reads_only_what_differs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "CHUNK", 2)
    write(store, tmp_path / "first")
    train(store, tmp_path / "data", "masked", [])
    write(store, tmp_path / "second")
    read: list[str] = []
    blob = store.blob
    monkeypatch.setattr(store, "blob", lambda sha256: read.append(sha256) or blob(sha256))
    found = compare_versions(store, "first", "second")
    assert [image["objects"] for image in found["labels"]["images"]] == [[2, 0]]
    assert found["labels"]["images"][0]["name"].startswith("masked-")
    assert len(read) == 4  # two records, and of all blobs of lines those of the image that changed


def test_a_comparison_reads_only_what_differs_where_an_image_comes_before_the_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "CHUNK", 2)
    (tmp_path / "data/train/0.jpg").rename(tmp_path / "0.jpg")
    write(store, tmp_path / "first")
    (tmp_path / "0.jpg").rename(tmp_path / "data/train/0.jpg")
    write(store, tmp_path / "second")
    read: list[str] = []
    blob = store.blob
    monkeypatch.setattr(store, "blob", lambda sha256: read.append(sha256) or blob(sha256))
    found = compare_versions(store, "first", "second")
    assert [image["name"][:2] for image in found["added"]["images"]] == ["0-"]
    assert len(read) <= 4  # two records, and the first blob of lines of each


def planned(number: int, boxes: int = 1) -> record.PlannedImage:
    return record.PlannedImage(
        source=hashlib.sha256(str(number).encode()).hexdigest(),
        name=str(number),
        suffix=".jpg",
        width=48,
        height=32,
        annotations=(NewAnnotation(category="car", box=BOX),) * boxes,
        lineage={"role": "train", "source": f"{number}.jpg"},
        pre_annotated=False,
    )


def test_an_image_more_changes_one_blob_of_a_record_however_far_in_front() -> None:
    kept: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        kept[name] = data
        return name

    def chunks(numbers: Iterable[int]) -> list[str]:
        recorder = record.Recorder(put)
        for number in numbers:
            recorder.add(planned(number))
        return recorder.chunks()

    before, after = chunks(range(6000)), chunks([-1, *range(6000)])
    assert len(before) > 5
    assert len(set(after) - set(before)) <= 2
    assert len(set(before) - set(after)) == 1
    read = [image for images in record.recorded(kept.__getitem__, after) for image in images]
    assert read == [planned(number) for number in [-1, *range(6000)]]
    longest = max(len(images) for images in record.recorded(kept.__getitem__, chunks([5] * 5000)))
    assert longest == 2048  # whatever the hashes say
    lines = [[json.dumps(planned(n).line()) for n in part] for part in (range(500), range(500, 700))]
    old = [put(gzip.compress("\n".join(part).encode(), mtime=0)) for part in lines]  # cut at every 500
    assert [len(images) for images in record.recorded(kept.__getitem__, old)] == [500, 200]


def test_labels_are_hashed_only_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (NewAnnotation(category=name, box=BOX, attributes={"n": 1}) for name in ("a", "b"))
    image = replace(planned(1), annotations=(one, two))
    assert not run_versions._relabelled(image, replace(image, annotations=(two, one)))
    assert run_versions._relabelled(image, replace(image, annotations=(one, one)))
    assert run_versions._relabelled(image, replace(image, pre_annotated=True))
    monkeypatch.setattr(run_versions, "content_key", None)
    assert not run_versions._relabelled(image, replace(image))


def renamed(store: Store, folder: Path, name: str) -> None:
    """A training image's file gets another name, and is added again under it."""
    (folder / "train/0.jpg").rename(folder / "train" / name)
    labels = folder / "train/labels.json"
    labels.write_text(labels.read_text().replace('"0.jpg"', json.dumps(name)))
    assert add(store, AddConfig(format="coco", path=labels, role="train")).failed == 0


@pytest.mark.parametrize("name", ["c.jpg", "_0.jpg"])  # the second makes the same file in an export
def test_an_exported_image_may_be_renamed(store: Store, tmp_path: Path, name: str) -> None:
    write(store, tmp_path / "first")
    renamed(store, tmp_path / "data", name)
    with pytest.raises(InputError, match="holds another export; choose another folder"):
        write(store, tmp_path / "first")
    second = write(store, tmp_path / "second")
    assert (second.done, second.failed) == (7, 0)
    assert json.dumps({"role": "train", "source": name}) in (tmp_path / "second/manifest.json").read_text()
    for version in ("first", "second"):
        again(store, version, tmp_path / f"{version}-again")
        assert tree(tmp_path / f"{version}-again") == tree(tmp_path / version)


def test_a_training_image_that_comes_back_in_an_export_keeps_its_place(store: Store, tmp_path: Path) -> None:
    """The copy is the same file, but the user's own is still there."""
    places = [image.uri for image in store.images(reader="export")]
    write(store, tmp_path / "first", selections=(), samples=())
    add(store, AddConfig(format="coco", path=tmp_path / "first/annotations.json", role="train"))
    assert [image.uri for image in store.images(reader="export")] == places
    for uri in places:
        Path(uri).unlink()
    add(store, AddConfig(format="coco", path=tmp_path / "first/annotations.json", role="train"))
    train_images = store.images(reader="export", ids=store.image_ids(role="train"))
    assert all(Path(image.uri).is_relative_to(tmp_path / "first") for image in train_images)


@pytest.mark.parametrize("format", FORMATS)
def test_a_version_whose_files_were_changed_is_not_called_stored(
    store: Store, tmp_path: Path, format: str
) -> None:
    write(store, tmp_path / "first", format)
    (tmp_path / "first/labels.cache").write_text("what a trainer leaves beside the files")
    assert again(store, "first", tmp_path / "first").skipped == 7
    files = [name for name in tree(tmp_path / "first") if name not in ("manifest.json", "labels.cache")]
    (tmp_path / "first" / files[0]).write_bytes(b"other")
    with pytest.raises(InputError, match=rf"its files were changed since: {re.escape(files[0])}; choose"):
        again(store, "first", tmp_path / "first")
    for name in files:
        (tmp_path / "first" / name).unlink()
    with pytest.raises(InputError, match=r"changed since: [^,]+, [^,]+, [^,]+ and more; choose") as told:
        again(store, "first", tmp_path / "first")
    assert "\n" not in str(told.value)
    assert write(store, tmp_path / "first", format).skipped == 7  # labels are corrected in the folder


def test_a_number_that_is_another_versions_name(store: Store, tmp_path: Path) -> None:
    for name in ("2", "3", "third", "#1"):
        write(store, tmp_path / name)
    with pytest.raises(InputError, match=r"^'2' is the number of one .*\(3\).* \(number 1\); say #2 or #1$"):
        find(store, "2")
    with pytest.raises(InputError, match="say #3 or #2"):
        find(store, "3")
    said = ("1", "#1", "#2", "#3", "third", "4")
    assert [find(store, text).id for text in said] == [1, 1, 2, 3, 3, 4]
    write(store, tmp_path / "5")
    assert find(store, "5").id == 5  # number and name of the same one
    with pytest.raises(InputError, match="no data set version '#9'"):
        find(store, "#9")


def test_a_comparison_says_how_added_images_are_encoded(store: Store, tmp_path: Path) -> None:
    write(store, tmp_path / "first")
    write(store, tmp_path / "second", quality=60)
    write(store, tmp_path / "third", encoding="png")
    found = compare_versions(store, "first", "second")
    assert [(v["encoding"], v["quality"]) for v in found["versions"]] == [("jpeg", 95), ("jpeg", 60)]
    assert compared_lines(found)[0].startswith("version 1 (first, coco, added as jpeg 95): 7 images")
    lines = compared_lines(compare_versions(store, "2", "3"))
    assert lines[1].startswith("version 3 (third, coco, added as png): 7 images")


def test_two_exports_to_one_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is there first; neither touches the other's unfinished folder."""
    out, host = tmp_path / "out[1]", socket.gethostname()
    living = tmp_path / f".out[1].curator-export-{host}-{os.getppid()}"
    dead = tmp_path / f".out[1].curator-export-{host}-999999999"
    elsewhere = tmp_path / ".out[1].curator-export-elsewhere-1"
    for folder in (living, dead, elsewhere):
        folder.mkdir()
        (folder / "manifest.json").write_text("{")
        os.utime(folder, (0, 0))
    read_back = export_folder.read_back

    def late(*arguments: Any) -> None:
        read_back(*arguments)
        out.mkdir()
        (out / "file").write_text("of the other")

    monkeypatch.setattr(export_folder, "read_back", late)
    with pytest.raises(InputError, match="something else was written there meanwhile"):
        write(store, out)
    assert (out / "file").read_text() == "of the other"
    assert sorted(tmp_path.glob(".out*")) == sorted([living, elsewhere])


def test_an_export_that_was_there_can_be_written_again(store: Store, tmp_path: Path) -> None:
    """The folder of a killed export, of whose version the Store knows nothing; an image is gone since."""
    (tmp_path / "data/train/0.jpg").rename(tmp_path / "0.jpg")
    write(store, tmp_path / "one", "yolo")
    (tmp_path / "one").rename(tmp_path / "two")
    write(store, tmp_path / "two", "yolo")
    assert [version["name"] for version in versions(store)] == ["one", "two"]
    grow(store, tmp_path)
    again(store, "two", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(tmp_path / "two")
    (tmp_path / "0.jpg").rename(tmp_path / "data/train/0.jpg")
    again(store, "one", tmp_path / "third")
    assert tree(tmp_path / "third") == tree(tmp_path / "two")


def test_the_same_export_with_an_image_more_is_another_version(store: Store, tmp_path: Path) -> None:
    """An image that could not be read is there again; nothing else of what is asked for has changed."""
    (tmp_path / "data/train/0.jpg").rename(tmp_path / "0.jpg")
    first = write(store, tmp_path / "one")
    assert first.failed == 1
    (tmp_path / "one").rename(tmp_path / "kept")
    (tmp_path / "0.jpg").rename(tmp_path / "data/train/0.jpg")
    second = write(store, tmp_path / "one")
    assert (second.failed, second.summary["key"]) == (0, first.summary["key"])
    assert [(v["number"], sum(v["images"].values())) for v in versions(store)] == [(1, 6), (2, 7)]
    assert compare_versions(store, "1", "one")["added"]["count"] == 1
    for version, folder in (("1", "kept"), ("2", "one")):
        again(store, version, tmp_path / version)
        assert tree(tmp_path / version) == tree(tmp_path / folder)
    with pytest.raises(InputError, match=r"holds another export than version 2 \(one\)"):
        again(store, "2", tmp_path / "kept")


def test_what_cannot_be_written_again_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, tmp_path / "first")
    write(store, tmp_path / "other", quality=60)

    def refused(match: str, version: str = "first", out: str = "again") -> None:
        with pytest.raises(InputError, match=match) as told:
            again(store, version, tmp_path / out)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "again").exists()
        assert not list(tmp_path.glob(".again*"))

    refused(r"no data set version 'third'; there are: 1 \(first\), 2 \(other\)", version="third")
    refused("other holds another export", out="other")
    refused("exists and is no export", out="data")
    picture = tmp_path / "data/train/1.jpg"
    kept = picture.read_bytes()
    picture.write_bytes(kept + b"x")
    refused(r"version 1 \(first\) cannot be written again: .*1\.jpg: the file changed since it was added")
    picture.unlink()
    refused("cannot be written again: .*1.jpg: expected a readable image file")
    picture.write_bytes(kept)
    blob = store.path / "blobs" / store.samples()[0].blob[:2] / store.samples()[0].blob
    kept_blob = blob.read_bytes()
    blob.unlink()
    refused("cannot be written again: no blob")
    blob.write_bytes(kept_blob)
    with monkeypatch.context() as patch:
        encode = run_images._encode
        patch.setattr(run_images, "_encode", lambda p, e: encode(p, replace(e, quality=40)))
        refused("cannot be written again: its files would differ from those that it had$")
        patch.setattr("curator.data.run_versions.PIL.__version__", "0.1")
        refused(r"had; it was made with pillow [\d.]+, here is 0\.1$")
        patch.undo()
        patch.setattr(run_images, "_encode", lambda p, e: encode(p, replace(e, quality=40)))
        patch.setattr("curator.data.run_versions.EXPORT_VERSION", 99)
        refused(r"had; it was made with export stage \d+, here is 99$")
    again(store, "first", tmp_path / "last")
    assert tree(tmp_path / "last") == tree(tmp_path / "first")


def test_a_version_without_a_record_is_listed_and_refused(store: Store, tmp_path: Path) -> None:
    """As versions were stored before they kept one."""
    write(store, tmp_path / "first")
    version = store.version("first")
    manifest = {k: v for k, v in version.manifest.items() if k not in ("record", "objects")}
    run = store.begin_run("test", config={})
    store.put_version(run, replace(version, name="older", manifest=manifest))
    store.finish_run(run, status="done", counts={})
    older = versions(store)[1]
    assert (older["name"], older["objects"], older["recorded"], older["made"]) == ("older", None, False, None)
    told = r"version 2 \(older\) was exported before versions kept a record"
    with pytest.raises(InputError, match=told):
        again(store, "older", tmp_path / "again")
    with pytest.raises(InputError, match=told):
        compare_versions(store, "first", "older")


def test_images_that_are_in_the_holdout_by_now_are_told(store: Store, tmp_path: Path) -> None:
    write(store, tmp_path / "first")
    (tmp_path / "held").mkdir()
    shutil.copy(tmp_path / "data/train/1.jpg", tmp_path / "held/1.jpg")
    add(store, AddConfig(format="images", path=tmp_path / "held", role="holdout"))
    result = again(store, "first", tmp_path / "again")
    assert result.summary["warnings"][0].startswith("1 of its images leak to the holdout by now")
    assert tree(tmp_path / "again") == tree(tmp_path / "first")
