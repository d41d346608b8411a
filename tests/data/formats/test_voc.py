"""VOC XML: fields, broken input, real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.voc import VocFormat
from curator.errors import FormatError

BOX = "<bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"
OBJECT = f"<object><name>car</name><difficult>1</difficult>{BOX}</object>"


def write(tmp_path: Path, inner: str, name: str = "a", filename: str = "a.png") -> None:
    folder = tmp_path / "Annotations"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.xml").write_text(
        f"<annotation><filename>{filename}</filename><size><width>40</width><height>30</height></size>{inner}</annotation>"
    )


def read(path: Path, **options: Any) -> list[LabelledImage | Broken]:
    return list(VocFormat().open(path, **options).items)


def test_fields(tmp_path: Path, picture: Callable[..., Path]) -> None:
    expected = picture("JPEGImages/a.png")
    part = "<part><name>wheel</name><bndbox><xmin>3</xmin></bndbox></part>"
    kind = "<attributes><attribute><name>cause</name><value>post</value></attribute></attributes>"
    write(tmp_path, f"<object><name>car</name>{part}{kind}{BOX}</object>{OBJECT}")
    (item,) = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert (item.path, item.declared_size) == (expected, (40, 30))
    first, second = item.annotations or ()
    assert (first.category, first.box, first.difficult, first.attributes) == (
        "car",
        (1, 2.5, 11, 22),
        False,
        {"cause": "post"},
    )
    assert second.difficult
    assert read(tmp_path / "Annotations") == [item]


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("<object><name>car</name></object>", "expected a bndbox"),
        (f"<object>{BOX}</object>", "unknown class ''"),
        (OBJECT.replace("11", "1"), "degenerate"),
        (OBJECT.replace("11", "nan"), "finite"),
        (OBJECT.replace("11", "x"), "numbers"),
        (OBJECT.replace("<xmax>11</xmax>", ""), "numbers"),
    ],
)
def test_a_broken_object_is_named_and_the_others_kept(
    tmp_path: Path, picture: Callable[..., Path], inner: str, reason: str
) -> None:
    picture("JPEGImages/a.png")
    write(tmp_path, OBJECT + inner)
    (item,) = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert "object 2" in item.problems[0]
    assert reason in item.problems[0]


def test_classes_not_asked_for_are_reported(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("JPEGImages/a.png")
    write(tmp_path, OBJECT + OBJECT.replace("car", "bus"))
    (item,) = read(tmp_path, classes=["car"])
    assert isinstance(item, LabelledImage)
    assert item.problems == ("object 2: unknown class 'bus'; dropped",)
    assert not item.incomplete  # the user left the class out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "not readable as XML"),
        ("", "not readable as XML"),
        ("<other/>", "expected <annotation>"),
        ('<!DOCTYPE x [<!ENTITY e "boom">]><annotation>&e;</annotation>', "entities"),
        ("<annotation><filename>b.png</filename></annotation>", "b.png is not in"),
        ("<annotation><filename>../../etc/passwd</filename></annotation>", "outside"),
        (
            "<annotation><filename>z.png</filename><size><width>x</width><height>3</height></size></annotation>",
            "size in pixels",
        ),
    ],
)
def test_a_broken_file_is_named_and_the_others_read(
    tmp_path: Path, picture: Callable[..., Path], text: str, reason: str
) -> None:
    picture("JPEGImages/a.png")
    picture("JPEGImages/z.png")
    write(tmp_path, OBJECT)
    name = "y.xml" if "b.png" in text or "passwd" in text else "z.xml"  # there is an image z.png, none y.png
    (tmp_path / "Annotations" / name).write_text(text)
    item, broken = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert isinstance(broken, Broken)
    assert broken.name in ("y.xml", "z.xml")
    assert reason in broken.reason


def test_one_image_has_one_file(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("images/a.png")
    for name in ("a", "b"):
        write(tmp_path, OBJECT, name=name)
    item, broken = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert isinstance(broken, Broken)
    assert "another annotation file" in broken.reason


def test_renamed_images_are_found_by_the_name_of_the_file(
    tmp_path: Path, picture: Callable[..., Path]
) -> None:
    expected = picture("images/a.png")
    write(tmp_path, OBJECT, filename="IMG_1.JPG")
    (item,) = read(tmp_path)
    assert isinstance(item, LabelledImage)
    assert item.path == expected


def test_splits(tmp_path: Path, picture: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        picture(f"JPEGImages/{name}.png")
        write(tmp_path, OBJECT, name=name, filename=f"{name}.png")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("b 1\nc -1\n")
    item, broken = read(tmp_path, split="val")
    assert isinstance(item, LabelledImage)
    assert (item.name, item.split) == ("b.png", "val")
    assert isinstance(broken, Broken)
    assert "missing" in broken.reason
    with pytest.raises(FormatError, match="found: val"):
        read(tmp_path, split="train")
    with pytest.raises(FormatError, match="expected a folder"):
        read(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="expected XML"):
        read(tmp_path / "empty")


def test_bccd(shared: Path) -> None:
    source = VocFormat().open(shared / "bccd/BCCD")
    assert source.categories == ("Platelets", "RBC", "WBC")
    items = [item for item in source.items if isinstance(item, LabelledImage)]
    assert len(items) == source.count == 364
    assert sum(len(item.annotations or ()) + len(item.problems) for item in items) == 4888
    assert [(item.name, len(item.problems)) for item in items if item.problems] == [
        ("BloodImage_00338.jpg", 1),
        ("BloodImage_00343.jpg", 1),
    ]
    assert all("degenerate box" in problem for item in items for problem in item.problems)


def test_voc100(shared: Path) -> None:
    items = [item for item in VocFormat().open(shared / "voc100").items if isinstance(item, LabelledImage)]
    assert len(items) == 100
    assert sum(len(item.annotations or ()) for item in items) == 273
    assert not any(item.problems for item in items)
