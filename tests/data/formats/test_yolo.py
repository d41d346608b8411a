"""YOLO labels: layouts, lines, broken input, real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.yolo import YoloFormat
from curator.errors import FormatError


def read(path: Path, **options: Any) -> list[LabelledImage | Broken]:
    return list(YoloFormat().open(path, **options).items)


def labelled(tmp_path: Path, picture: Callable[..., Path], text: str) -> LabelledImage:
    picture("images/a.png")
    (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "labels/a.txt").write_text(text)
    (item,) = read(tmp_path, classes=["car", "bus"])
    assert isinstance(item, LabelledImage)
    return item


def test_boxes_and_polygons(tmp_path: Path, picture: Callable[..., Path]) -> None:
    item = labelled(tmp_path, picture, "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.2 0.3 0.2 0.3 0.6\n")
    box, polygon = item.annotations or ()
    assert item.relative
    assert box.category == "bus"
    assert box.box == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert (polygon.category, polygon.box) == ("car", (0.1, 0.2, 0.3, 0.6))
    assert polygon.polygon == ((0.1, 0.2, 0.3, 0.2, 0.3, 0.6),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "got 4 fields"),
        ("0 0.5 0.5 0.2 0.4 0.9", "got 6 fields"),
        ("2 0.5 0.5 0.2 0.4", "unknown class id 2"),
        ("-1 0.5 0.5 0.2 0.4", "unknown class id"),
        ("0.5 0.5 0.5 0.2 0.4", "unknown class id"),
        ("car 0.5 0.5 0.2 0.4", "numbers"),
        ("0 nan 0.5 0.2 0.4", "finite"),
        ("0 0.5 0.5 0 0.4", "degenerate"),
        ("0 0.5 0.5 -0.1 0.4", "degenerate"),
        ("0 0.1 0.1 0.1 0.2 0.1 0.3", "degenerate"),
    ],
)
def test_a_broken_line_is_named_and_the_others_kept(
    tmp_path: Path, picture: Callable[..., Path], line: str, reason: str
) -> None:
    item = labelled(tmp_path, picture, f"0 0.5 0.5 0.2 0.4\n{line}\n")
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert "a.txt line 2" in item.problems[0]
    assert reason in item.problems[0]


def test_labels_beside_the_images(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("flat/a.png")
    (tmp_path / "flat/a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (item,) = read(tmp_path / "flat", classes=["car"], images=tmp_path / "flat")
    assert isinstance(item, LabelledImage)
    assert len(item.annotations or ()) == 1


def test_unreadable_labels_break_their_image(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_bytes(b"\xff\xfe\x00")
    (item,) = read(tmp_path, classes=["car"])
    assert isinstance(item, Broken)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a, b]\nnc: 3\ntrain: images", "nc says 3"),
        ("nc: 2\ntrain: images", "expected names"),
        ("names: {x: a}\ntrain: images", "expected names"),
        ("names: [a, a]\ntrain: images", "same name"),
        ("- 1", "mapping"),
        ("names: [", "not readable"),
        ("names: [a]\ntrain: ../elsewhere", "outside"),
        ("names: [a]\nval: nowhere", "found none"),
        ("names: !!python/object/apply:os.system [ls]", "not readable"),
    ],
)
def test_unusable_yaml(tmp_path: Path, picture: Callable[..., Path], text: str, reason: str) -> None:
    picture("elsewhere/a.png")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=reason):
        read(folder)


def test_several_yaml_files_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("names: [a]")
    with pytest.raises(FormatError, match=r"a\.yaml, b\.yaml"):
        read(tmp_path)
    with pytest.raises(FormatError, match=r"expected data.yaml or a folder"):
        read(tmp_path / "none")


def test_a_list_file_stays_inside(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("images/a.png")
    (tmp_path / "data.yaml").write_text("names: [car]\ntrain: train.txt\n")
    (tmp_path / "train.txt").write_text("./images/a.png\n../../etc/passwd\n")
    item, broken = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert item.split == "train"
    assert isinstance(broken, Broken)
    assert "outside" in broken.reason


@pytest.mark.parametrize(
    ("split", "count", "objects"),
    [("train", 439, 838), ("valid", 125, 227), ("val", 125, 227), ("test", 63, 129), (None, 627, 1194)],
)
def test_vehicles(shared: Path, split: str | None, count: int, objects: int) -> None:
    source = YoloFormat().open(shared / "vehicles_openimages", split=split)
    items = list(source.items)
    assert source.categories == ("Ambulance", "Bus", "Car", "Motorcycle", "Truck")
    assert len(items) == count
    assert sum(len(item.annotations or ()) for item in items if isinstance(item, LabelledImage)) == objects


def test_coco_val128(shared: Path) -> None:
    items = read(shared / "coco_val128/detection_config.yaml")
    assert len(items) == 128
    assert sum(len(item.annotations or ()) for item in items if isinstance(item, LabelledImage)) == 898
    with pytest.raises(FormatError, match=r"seg_config\.yaml"):
        read(shared / "coco_val128")
