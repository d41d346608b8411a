"""`curator add`: what reaches the workspace, what is named, and that adding again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from curator.cli import app
from curator.cli.data import add_lines
from curator.data.formats.base import Broken
from curator.data.run_add import _part, add, dataset_name
from curator.data.run_equals import is_leak
from curator.data.settings import AddConfig
from curator.errors import ConfigError, FormatError
from curator.jobs.stage import StageResult
from store.records import Role
from store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "workspace") as opened:
        yield opened


def picture(path: Path, seed: int, size: tuple[int, int] = (48, 32), orientation: int = 1) -> Path:
    """A picture of smooth random blobs: another seed gives another perceptual hash."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, exif=exif)
    return path


def coco(folder: Path, boxes: dict[str, list[list[float]]], size: tuple[int, int] = (48, 32)) -> Path:
    images = [
        {"id": i, "file_name": name, "width": size[0], "height": size[1]} for i, name in enumerate(boxes)
    ]
    objects = [
        {"image_id": i, "category_id": 1, "bbox": box} for i, name in enumerate(boxes) for box in boxes[name]
    ]
    path = folder / "labels.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": objects,
                "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
            }
        )
    )
    return path


def run(store: Store, path: Path, role: Role = "train", format: str = "coco", **options: Any) -> StageResult:
    return add(store, AddConfig(format=format, path=path, role=role, **options))


def test_images_labels_and_categories_reach_the_workspace(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"set/{number}.png", number)
    result = run(
        store,
        coco(
            tmp_path / "set", {"0.png": [[1, 2, 10, 20]], "1.png": [[0, 0, 5, 5], [3, 3, 9, 9]], "2.png": []}
        ),
        batch_size=2,
    )
    assert (result.done, result.skipped, result.failed, result.exit_code) == (3, 0, 0, 0)
    assert (result.summary["new_images"], result.summary["objects"], result.summary["dataset"]) == (
        3,
        3,
        "set",
    )
    assert [category.name for category in store.categories()] == ["car", "bus"]
    images = store.images(reader="train", role="train")
    labels = store.annotations([image.id for image in images], reader="train")
    assert [len(labels[image.id].annotations) for image in images] == [1, 2, 0]
    assert labels[images[0].id].annotations[0].box == (1, 2, 11, 22)
    assert [m.source for m in store.memberships()] == ["0.png", "1.png", "2.png"]


def test_adding_again_changes_nothing_and_a_correction_makes_a_version(store: Store, tmp_path: Path) -> None:
    picture(tmp_path / "set/a.png", 1)
    path = coco(tmp_path / "set", {"a.png": [[1, 2, 10, 20]]})
    run(store, path)
    before = store.counts()
    again = run(store, path)
    assert (again.done, again.skipped) == (0, 1)
    assert {**store.counts(), "runs": 0} == {**before, "runs": 0}
    coco(tmp_path / "set", {"a.png": [[1, 2, 11, 20]]})
    corrected = run(store, path)
    assert (
        corrected.done,
        corrected.summary["new_annotation_versions"],
        corrected.summary["new_images"],
    ) == (1, 1, 0)
    coco(tmp_path / "set", {"a.png": [[1, 2, 10, 20]]})
    back = run(store, path)
    assert (back.done, back.skipped) == (1, 0)
    (image_id,) = store.image_ids(role="train")
    newest = store.annotations([image_id], reader="train")[image_id]
    assert (newest.version, newest.annotations[0].box) == (3, (1, 2, 11, 22))


@pytest.mark.parametrize("orientation", [3, 5, 6, 7, 8])
def test_the_orientation_turns_image_and_boxes(store: Store, tmp_path: Path, orientation: int) -> None:
    picture(tmp_path / "set/a.jpg", 1, orientation=orientation)
    result = run(store, coco(tmp_path / "set", {"a.jpg": [[2, 4, 10, 6]]}, size=(48, 32)))
    assert result.failed == 0
    (image,) = store.images(reader="train", role="train")
    assert (image.width, image.height) == ((48, 32) if orientation < 5 else (32, 48))
    assert store.pixels(image, reader="train").shape == (image.height, image.width, 3)
    expected = {
        3: (2, 4, 12, 10),
        5: (4, 2, 10, 12),
        6: (22, 2, 28, 12),
        7: (22, 36, 28, 46),
        8: (4, 36, 10, 46),
    }
    assert store.annotations([image.id], reader="train")[image.id].annotations[0].box == expected[orientation]


def test_broken_items_are_listed_and_the_rest_is_stored(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    picture(folder / "good.png", 1)
    picture(folder / "outside.png", 3)
    picture(folder / "wrong.png", 2, size=(20, 20))
    (folder / "text.png").write_text("no image")
    path = coco(
        folder,
        {
            "good.png": [[1, 2, 3, 4], [1, 2, 0, 4], [40, 20, 20, 20]],
            "outside.png": [[1, 2, 3, 4], [90, 90, 3, 4]],
            "wrong.png": [],
            "text.png": [],
            "missing.png": [],
        },
    )
    result = run(store, path)
    assert (result.done, result.failed, result.exit_code) == (2, 5, 3)
    reasons = dict(result.failures)
    assert set(reasons) == {"good.png", "outside.png", "wrong.png", "text.png", "missing.png"}
    assert "missing image" in reasons["missing.png"]
    assert "48 x 32 pixels, the image has 20 x 20" in reasons["wrong.png"]
    assert "no known format" in reasons["text.png"]
    assert "degenerate" in reasons["good.png"]
    assert "lies outside" in reasons["outside.png"]
    assert result.summary["objects"] == 3
    assert (result.summary["dropped_objects"], result.summary["changed_objects"]) == (2, 1)
    assert "leaves the 48 x 32 image; clipped" in result.summary["notes"][0]
    assert len(store.failed_items(result.run_id)) == 3
    assert len(store.image_ids(role="train")) == 2
    assert run(store, path).exit_code == 3


@pytest.mark.parametrize("role", ["train", "mine", "holdout", "pool"])
@pytest.mark.parametrize(
    ("broken", "labelled"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, False),
        ({"bbox": [9, 9, -3, 4]}, False),
        ({"bbox": None}, False),
        ({"category_id": 7}, False),
        ({"bbox": [90, 90, 3, 4]}, True),
        ({"bbox": [-9, 3, 9, 4]}, True),
        ({"bbox": [-1, -1, 0, 0]}, True),
        ({"bbox": [1, 2, 0, 4]}, True),
        ({"bbox": [48, 32, 0, 0]}, True),
    ],
)
def test_an_object_that_may_be_missing_takes_the_image_its_labels(
    store: Store, tmp_path: Path, role: Role, broken: dict[str, Any], labelled: bool
) -> None:
    picture(tmp_path / "set/a.png", 1)
    path = coco(tmp_path / "set", {"a.png": [[1, 2, 3, 4], [5, 5, 9, 9]]})
    table = json.loads(path.read_text())
    table["annotations"][1].update(broken)
    path.write_text(json.dumps(table))
    result = run(store, path, role)
    assert (result.done, result.exit_code) == (1, 3)
    assert {name for name, _ in result.failures} == {"a.png"}
    assert (result.summary["incomplete_images"], result.summary["unlabelled"]) == (
        (0, 0) if labelled else (1, 1)
    )
    versions = store.counts()["annotation_versions"]
    assert versions == labelled
    table["annotations"][1].update({"bbox": [5, 5, 9, 9], "category_id": 1})
    path.write_text(json.dumps(table))
    assert run(store, path, role).summary["new_annotation_versions"] == 1


def test_leaks_and_duplicates_are_named(store: Store, tmp_path: Path) -> None:
    for role, seeds in (("holdout", (1, 2)), ("pool", (2, 3, 4)), ("train", (4, 5))):
        for seed in seeds:
            picture(tmp_path / role / f"{seed}.png", seed)
    assert run(store, tmp_path / "holdout", "holdout", "images").summary["leak_count"] == 0
    pool = run(store, tmp_path / "pool", "pool", "images")
    assert pool.summary["leaks"] == ["2.png (pool) equals holdout/2.png (holdout)"]
    assert (pool.done, pool.exit_code) == (3, 0)
    train = run(store, tmp_path / "train", "train", "images")
    assert train.summary["leaks"] == []
    assert train.summary["duplicates"] == ["4.png (train) equals pool/4.png (pool)"]
    assert len(store.leaks(store.image_ids(role="pool"))) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_equal_images_are_counted_as_images_and_their_pairs_apart(
    store: Store, tmp_path: Path, batch_size: int
) -> None:
    """Four files that are all alike make six pairs; a fifth is another's file; a sixth equals none."""
    original = picture(tmp_path / "pool/0.png", 1, size=(200, 160))
    for number, size in enumerate(((160, 128), (150, 120), (140, 112)), start=1):
        Image.open(original).resize(size).save(tmp_path / f"pool/{number}.png")
    picture(tmp_path / "pool/other.png", 2, size=(200, 160))
    alone = tmp_path / "pool/own.png"
    (tmp_path / "pool/twin.png").write_bytes(picture(alone, 3, size=(200, 160)).read_bytes())
    for _ in range(2):  # added again, both of a pair report it
        told = run(store, tmp_path / "pool", "pool", "images", batch_size=batch_size).summary
        assert (told["duplicate_count"], told["duplicate_pairs"], told["near_count"]) == (6, 7, 6)
        assert len(set(told["duplicates"])) == 7
    (tmp_path / "held").mkdir()
    Image.open(original).resize((130, 104)).save(tmp_path / "held/a.png")
    (tmp_path / "held/b.png").write_bytes(original.read_bytes())
    held = run(store, tmp_path / "held", "holdout", "images", batch_size=batch_size).summary
    assert (held["leak_count"], held["leak_pairs"]) == (2, 8)
    assert (held["duplicate_count"], held["duplicate_pairs"]) == (2, 1)
    assert "2 images equal or nearly equal to others (1 pair)" in add_lines(held)


def test_a_re_encoded_image_is_found_too(store: Store, tmp_path: Path) -> None:
    original = picture(tmp_path / "holdout/a.png", 1, size=(200, 160))
    run(store, tmp_path / "holdout", "holdout", "images")
    (tmp_path / "pool").mkdir()
    Image.open(original).resize((150, 120)).save(tmp_path / "pool/b.jpg", quality=80)
    assert run(store, tmp_path / "pool", "pool", "images").summary["leaks"] == [
        "b.jpg (pool) nearly equals holdout/a.png (holdout)"
    ]


@pytest.mark.parametrize(
    ("one", "other", "leak"),
    [
        ("pool", "holdout", True),
        ("train", "holdout", True),
        ("mine", "holdout", True),
        ("pool", "mine", True),
        ("train", "pool", False),
        ("train", "mine", False),
        ("holdout", "holdout", False),
        ("pool", "pool", False),
    ],
)
def test_which_pairs_are_leaks(one: Role, other: Role, leak: bool) -> None:
    assert is_leak(one, other) is is_leak(other, one) is leak


def test_the_command_says_failed_images_and_objects_apart(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And progress counts no more images than there are: a row that names no image is none."""
    monkeypatch.setattr("curator.progress._quiet", False)
    monkeypatch.delenv("CURATOR_QUIET", raising=False)
    original = picture(tmp_path / "set/a.png", 1)
    (tmp_path / "set/b.png").write_bytes(original.read_bytes())
    boxes: dict[str, list[list[float]]] = {"a.png": [[1, 2, 3, 4], [1, 2, 0, 0], [99, 99, 3, 4]]}
    path = coco(tmp_path / "set", {**boxes, "b.png": [], "gone.png": []})
    table = json.loads(path.read_text())
    table["annotations"].append({"image_id": 77, "category_id": 1, "bbox": [1, 2, 3, 4]})
    path.write_text(json.dumps(table))
    words = ["-w", str(store.path), "add", "coco", str(path), "--role", "train"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 3
    first = "add: 1 done, 0 already stored, 2 images failed, 2 objects left out, 1 copy with other labels"
    assert told.stdout.splitlines()[0] == first
    assert "add set: 3 in" in told.stderr


def test_a_copy_in_one_data_set_does_not_fight_over_the_labels(store: Store, tmp_path: Path) -> None:
    original = picture(tmp_path / "set/a.png", 1)
    (tmp_path / "set/b.png").write_bytes(original.read_bytes())
    path = coco(tmp_path / "set", {"a.png": [[1, 2, 3, 4]], "b.png": [[5, 5, 3, 4]]})
    for _ in range(2):
        result = run(store, path, batch_size=1)
        assert result.summary["duplicates"] == ["b.png (same file as a.png)"]
        assert [name for name, _ in result.failures] == ["b.png"]
    (image_id,) = store.image_ids(role="train")
    labels = store.annotations([image_id], reader="train")[image_id]
    assert (labels.version, labels.annotations[0].box) == (1, (1, 2, 4, 6))


def test_groups_times_and_splits(store: Store, tmp_path: Path) -> None:
    picture(tmp_path / "set/video07_frame3.png", 1)
    path = coco(tmp_path / "set", {"video07_frame3.png": []})
    table = json.loads(path.read_text())
    table["images"][0]["date_captured"] = "2013:11:14 17:02:52"
    path.write_text(json.dumps(table))
    run(store, path, group_pattern=r"(video\d+)_", split="day", dataset="traffic")
    (membership,) = store.memberships()
    assert (membership.group_key, membership.split, membership.dataset) == ("video07", "day", "traffic")
    assert str(membership.captured_at) == "2013-11-14 17:02:52"


def test_wrong_input_is_one_clear_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a COCO JSON file"):
        run(store, tmp_path / "none.json")
    with pytest.raises(ConfigError, match="group_pattern"):
        AddConfig(format="coco", path=tmp_path, role="train", group_pattern="(")
    with pytest.raises(ConfigError, match="role"):
        AddConfig.from_table({"format": "coco", "path": "x", "role": "test"})


def test_names_of_data_sets(tmp_path: Path) -> None:
    (tmp_path / "cars/annotations").mkdir(parents=True)
    assert dataset_name(tmp_path / "cars/annotations/a.json") == "cars"
    assert dataset_name(tmp_path / "cars") == "cars"


def test_bccd(store: Store, shared: Path) -> None:
    """The published data set has two degenerate boxes: 4,886 of 4,888 are stored, both others are named."""
    result = run(store, shared / "bccd/BCCD", "train", "voc", split="val")
    assert (result.done, result.failed, result.exit_code) == (87, 1, 3)
    assert result.failures[0][0] == "BloodImage_00338.jpg"
    assert result.summary["objects"] == 1137
    assert run(store, shared / "bccd/BCCD", "train", "voc", split="val").skipped == 87


def test_parts_split_a_data_set_without_overlap(tmp_path: Path) -> None:
    items = [Broken(name=f"folder/{number}.jpg", reason="") for number in range(400)]
    low, high = (
        {
            item.name
            for item in _part(
                items, *AddConfig(format="voc", path=tmp_path, role="pool", part=part).part_bounds
            )
        }
        for part in ("0-35", "35-100")
    )
    assert not low & high
    assert len(low | high) == 400
    assert 100 < len(low) < 180
    with pytest.raises(ConfigError, match="FROM-TO in percent"):
        AddConfig(format="voc", path=tmp_path, role="pool", part="35")


def test_classes_that_differ_by_case_alone_are_named(store: Store, tmp_path: Path) -> None:
    picture(tmp_path / "one/a.png", 1)
    picture(tmp_path / "two/b.png", 2)
    first = run(store, coco(tmp_path / "one", {"a.png": [[1, 1, 8, 8]]}))
    assert first.summary["notes"] == []
    labels = coco(tmp_path / "two", {"b.png": [[1, 1, 8, 8]]})
    labels.write_text(labels.read_text().replace('"car"', '"Car"'))
    notes = run(store, labels).summary["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("the class 'Car' differs from 'car' by case")
    assert run(store, labels).summary["notes"] == []  # said once
