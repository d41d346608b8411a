"""COCO JSON: fields, broken input, paths, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.coco import CocoFormat
from curator.errors import FormatError
from tests.data.formats.coco_files import one, read

IMAGE = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "bus"}]


def write(folder: Path, **tables: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [], "categories": CATEGORIES, **tables}))
    return path


def box(**fields: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20], **fields}


def test_fields(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    rle = {"counts": [3, 4, 5], "size": [30, 40]}
    path = write(
        tmp_path,
        images=[{**IMAGE, "date_captured": "2013-11-14 17:02:52", "video_id": 12, "tags": ["night"]}],
        annotations=[
            box(segmentation=[[1, 2, 3, 4, 5, 6.5]], attributes={"cause": "post"}, area=9, score=0.5),
            box(iscrowd=1, segmentation=rle, category_id=3),
            box(difficult=1),
        ],
    )
    item = one(path)
    assert (item.path, item.declared_size, item.group_key, item.captured_at, item.tags) == (
        tmp_path / "a.png",
        (40, 30),
        "12",
        "2013-11-14 17:02:52",
        {"night": "true"},
    )
    first, crowd, hard = item.annotations or ()
    assert (first.category, first.box, first.polygon) == ("car", (1, 2, 11, 22), ((1, 2, 3, 4, 5, 6.5),))
    assert first.attributes == {"cause": "post", "score": 0.5}
    assert (crowd.category, crowd.crowd, crowd.attributes, crowd.polygon) == ("bus", True, {"rle": rle}, None)
    assert hard.difficult
    assert CocoFormat().open(path).categories == ("car", "bus")


def test_a_mask_without_a_box_gives_one(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    given = box(segmentation=[[5, 6, 7, 8, 9, 4], [1, 9, 2, 9, 2, 12]])
    del given["bbox"]
    (annotation,) = one(write(tmp_path, annotations=[given])).annotations or ()
    assert annotation.box == (1, 4, 9, 12)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"bbox": [1, 2, 0, 5]}, "degenerate"),
        ({"bbox": [1, 2, -3, 5]}, "degenerate"),
        ({"bbox": [1, 2, 3]}, "expected bbox"),
        ({"bbox": None}, "expected bbox"),
        ({"bbox": "1 2 3 4"}, "expected bbox"),
        ({"bbox": [1, 2, "x", 4]}, "numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "finite"),
        ({"bbox": [1, 2, float("inf"), 4]}, "finite"),
        ({"category_id": 99}, "unknown category_id 99"),
        ({"category_id": None}, "unknown category_id"),
        ({"segmentation": [[1, 2, 3]]}, "3 points"),
        ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "numbers"),
    ],
)
def test_a_broken_object_is_named_and_the_others_kept(
    tmp_path: Path, picture: Callable[..., Path], fields: dict[str, Any], reason: str
) -> None:
    picture("a.png")
    item = one(write(tmp_path, annotations=[box(**fields), box(id=6)]))
    assert len(item.annotations or ()) == 1
    assert len(item.problems) == 1
    assert "annotation 5" in item.problems[0]
    assert reason in item.problems[0]


@pytest.mark.parametrize(
    ("images", "name", "reason"),
    [
        ([{"id": 1}], "1", "file_name"),
        ([{"file_name": "a.png"}], "a.png", "an id"),
        ([{**IMAGE, "file_name": "../secret.png"}], "../secret.png", "outside"),
        ([{**IMAGE, "file_name": "/etc/passwd"}], "/etc/passwd", "outside"),
        ([{**IMAGE, "width": 0}], "a.png", "above 0"),
        ([{**IMAGE, "height": float("nan")}], "a.png", "above 0"),
        ([{**IMAGE, "width": "wide"}], "a.png", "above 0"),
    ],
)
def test_broken_images(
    tmp_path: Path, picture: Callable[..., Path], images: list[dict[str, Any]], name: str, reason: str
) -> None:
    picture("a.png")
    broken = [item for item in read(write(tmp_path, images=images)) if isinstance(item, Broken)]
    assert [item.name for item in broken] == [name]
    assert reason in broken[0].reason


def test_annotations_of_no_image_are_reported(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    broken, item = read(write(tmp_path, annotations=[box(image_id=4), box(image_id=4), box()]))
    assert isinstance(broken, Broken)
    assert "(2 annotations)" in broken.reason
    assert isinstance(item, LabelledImage)


@pytest.mark.parametrize("tables", [{"images": {"a": 1}}, {"images": [4]}, {"categories": [{"id": 1}]}])
def test_what_is_no_coco_file(tmp_path: Path, tables: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        read(write(tmp_path, **tables))


def test_without_annotations_images_are_unlabelled(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"images": [IMAGE], "categories": CATEGORIES}))
    assert one(path).annotations is None
    assert one(write(tmp_path)).annotations == ()


def test_classes_choose(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    path = write(tmp_path, annotations=[box(), box(category_id=3)])
    item = one(path, classes=["bus"])
    assert [a.category for a in item.annotations or ()] == ["bus"]
    assert not item.problems
    with pytest.raises(FormatError, match="not tram"):
        CocoFormat().open(path, classes=["tram"])


def test_where_images_are_found(tmp_path: Path, picture: Callable[..., Path]) -> None:
    expected = picture("coco/val2017/a.png")
    (tmp_path / "coco/annotations").mkdir()
    path = write(tmp_path / "coco/annotations").rename(tmp_path / "coco/annotations/instances_val2017.json")
    assert one(path).path == expected
    assert one(tmp_path / "coco", split="val").path == expected
    assert one(path, images=tmp_path / "other").path == tmp_path / "other/a.png"
    with pytest.raises(FormatError, match="found none"):
        read(tmp_path / "coco", split="train")


def test_order_of_the_tables_does_not_matter(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("a.png")
    path = tmp_path / "mixed.json"
    path.write_text(
        json.dumps(
            {"annotations": [box()], "info": {"images": [1]}, "categories": CATEGORIES, "images": [IMAGE]}
        )
    )
    assert len(one(path).annotations or ()) == 1


MEASURE = """
import sys, tracemalloc
from pathlib import Path
from curator.data.formats.base import LabelledImage
from curator.data.formats.coco import CocoFormat

path, count = Path(sys.argv[1]), int(sys.argv[2])
tracemalloc.start()
found = held = 0
for number, item in enumerate(CocoFormat().open(path, images=path.parent).items):
    found += len(item.annotations or ()) if isinstance(item, LabelledImage) else 0
    if number == count // 2:
        traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*pathlib*")])
        held = sum(trace.size for trace in traces.statistics("filename"))
print(found, held, tracemalloc.get_traced_memory()[1])
"""


def test_memory_is_flat_in_the_number_of_images(tmp_path: Path) -> None:
    """Half-way through 20,000 images reading holds what it holds half-way through 2,000 (a list of their
    names would take 60 bytes for each), and its peak is far below the 15 MB of the file's lists as Python
    objects. Left out is Python's own table of file names, which pathlib fills and empties: it may be rebuilt
    at any time, with up to 4 MB; with far more after other tests, so a process of its own measures."""
    held, peaks = [], []
    for count in (2_000, 20_000):
        path = tmp_path / f"{count}.json"
        images = [{**IMAGE, "id": i, "file_name": f"{i}.png", "text": "x" * 100} for i in range(count)]
        objects = [box(id=i, image_id=count - 1 - i) for i in range(count)]
        path.write_text(json.dumps({"annotations": objects, "images": images, "categories": CATEGORIES}))
        command = [sys.executable, "-c", MEASURE, str(path), str(count)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(said[0]) == count
        held.append(int(said[1]))
        peaks.append(int(said[2]))
    assert held[1] - held[0] < 20 * 18_000
    assert peaks[1] < 7e6
