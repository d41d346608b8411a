"""Ultralytics' NDJSON: its rows, what is broken, and the package's own converter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.ndjson import NdjsonFormat
from curator.data.formats.placement import place
from curator.data.formats.yolo import YoloFormat
from curator.errors import FormatError
from tests.data.formats.oracles.written import NAMES, OBJECTS, images

HEAD = {"type": "dataset", "task": "detect", "class_names": {"0": "car", "1": "bus"}}
ROW = [0, 0.5, 0.5, 0.5, 0.2]


def write(tmp_path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (tmp_path / "set.ndjson").write_text("\n".join(texts) + "\n")
    return tmp_path


def image(file: str, split: str = "train", **annotations: Any) -> dict[str, Any]:
    line = {"type": "image", "file": file, "width": 40, "height": 30, "split": split}
    return {**line, "annotations": annotations} if annotations else line


def read(path: Path, **options: Any) -> list[LabelledImage | Broken]:
    return list(NdjsonFormat().open(path, **options).items)


def test_rows_of_each_kind(tmp_path: Path, picture: Callable[..., Path]) -> None:
    for name in ("images/train/a.png", "images/val/b.png", "c.png"):
        picture(name)
    segment = [1, 0.25, 0.2, 0.75, 0.2, 0.5, 0.4]
    write(
        tmp_path, HEAD, image("a.png", boxes=[ROW]), image("b.png", "val", segments=[segment]), image("c.png")
    )
    found = [item for item in read(tmp_path) if isinstance(item, LabelledImage)]
    a, b, c = (place(item, (40, 30)) for item in found)
    assert [(x.category, x.box) for x in a.annotations or ()] == [("car", (10, 12, 30, 18))]
    assert [(x.category, x.box) for x in b.annotations or ()] == [("bus", (10, 6, 30, 12))]
    assert (c.annotations, [item.split for item in found]) == (None, ["train", "val", "train"])
    assert [i.split for i in read(tmp_path, split="val") if isinstance(i, LabelledImage)] == ["val"]
    assert NdjsonFormat().open(tmp_path, classes=["x", "y"]).categories == ("x", "y")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([7, 0.5, 0.5, 0.5, 0.2], "unknown class id 7"),
        ([0, 0.5, 0.5, -0.5, 0.2], "negative size"),
        ([0, 120, 80, 30, 20], "are these pixels"),
        ([0, 0.5], "expected class and 4 numbers"),
        ("x", "expected class and numbers"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, picture: Callable[..., Path], row: Any, reason: str) -> None:
    picture("a.png")
    (item,) = read(write(tmp_path, HEAD, image("a.png", boxes=[ROW, row])))
    assert isinstance(item, LabelledImage)
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert reason in item.problems[0]
    assert item.incomplete


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "first line"),
        ([image("a.png")], "first line"),
        ([{"type": "dataset"}], "class_names"),
        ([HEAD, "{"], "line 2: expected valid JSON"),
        ([HEAD, [1]], "line 2: expected an object"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, lines: list[Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        read(write(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_no_name_leads_outside_and_an_image_is_listed_once(
    tmp_path: Path, picture: Callable[..., Path]
) -> None:
    picture("set/a.png")
    picture("b.png")
    write(tmp_path / "set", HEAD, image("../b.png"), image("a.png"), image("a.png"))
    outside, first, again = read(tmp_path / "set")
    assert isinstance(outside, LabelledImage)
    assert not outside.path.exists()  # named below the folder, where it is not
    assert isinstance(first, LabelledImage)
    assert isinstance(again, Broken)
    assert "listed before" in again.reason


def test_ultralytics_converts_it(tmp_path: Path) -> None:
    """The package makes YOLO files of it, which hold the same boxes; one image becomes its val split."""
    pytest.importorskip("aiohttp")  # without it the package would try to install it
    converter = pytest.importorskip("ultralytics.data.converter")
    list(NdjsonFormat().write(tmp_path / "out", NAMES, images()))
    made = asyncio.run(
        converter.convert_ndjson_to_yolo(tmp_path / "out/dataset.ndjson", tmp_path / "converted")
    )
    found = [i for i in YoloFormat().open(made).items if isinstance(i, LabelledImage)]
    boxes = [[a.box for a in place(item, (40, 30)).annotations or ()] for item in found]
    boxes.sort(key=len, reverse=True)
    assert [[pytest.approx(a.box, abs=1e-4) for a in given] for given in (OBJECTS, OBJECTS[:1])] == boxes
