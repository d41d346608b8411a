"""Relatives of the cases of ../shared/cases in VOC folders: encodings, several boxes in one object, lists."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.placement import place
from curator.data.formats.voc import VocFormat
from curator.errors import FormatError

SIZE = (40, 30)
BOX = (4.0, 6.0, 14.0, 16.0)


def bndbox(*corners: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{n}>{c}</{n}>" for n, c in zip(names, corners or (4, 6, 14, 16), strict=True))
    return f"<bndbox>{inner}</bndbox>"


def thing(name: str = "crate", *boxes: str) -> str:
    return f"<object><name>{name}</name>{''.join(boxes or [bndbox()])}</object>"


def document(*objects: str, filename: str = "a.png", size: tuple[object, object] = SIZE) -> str:
    head = f"<filename>{filename}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{head}{''.join(objects)}</annotation>"


@pytest.fixture
def folder(picture: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with the pictures a, b, c and no XML yet."""
    for number, name in enumerate("abc"):
        picture(f"JPEGImages/{name}.png", SIZE, 40 * number)
    (tmp_path / "Annotations").mkdir()
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "a") -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "Annotations" / f"{name}.xml").write_bytes(data)


def read(folder: Path, **options: Any) -> list[LabelledImage | Broken]:
    return list(VocFormat().open(folder, **options).items)


def one(folder: Path, **options: Any) -> LabelledImage:
    (item,) = read(folder, **options)
    assert isinstance(item, LabelledImage), item
    return item


def objects(item: LabelledImage) -> list[tuple[str, tuple[float, ...]]]:
    return [(a.category, a.box) for a in item.annotations or ()]


# ---------------------------------------------------------------- encodings

KOREAN, CHINESE, JAPANESE, ACCENTS = "상자", "箱子", "箱ボックス", "größe"


@pytest.mark.parametrize(
    ("declared", "written", "name"),
    [
        ("gbk", "gbk", CHINESE),
        ("GB2312", "gb18030", "箱子镕"),  # a letter that the standard GB2312 lacks
        ("GB18030", "gb18030", CHINESE),
        ("euc-kr", "euc-kr", KOREAN),
        ("EUC-KR", "cp949", "상자뷁"),  # what Windows writes under this name
        ("ks_c_5601-1987", "cp949", KOREAN),
        ("shift-jis", "shift-jis", JAPANESE),
        ("Shift_JIS", "cp932", JAPANESE + "①"),
        ("x-sjis", "cp932", JAPANESE),
        ("windows-31j", "cp932", JAPANESE),
        ("EUC-JP", "euc-jp", JAPANESE),
        ("big5", "big5", CHINESE),
        ("iso-8859-1", "latin-1", ACCENTS),
        ("windows-1252", "cp1252", ACCENTS),
        ("windows-1251", "cp1251", "ящик"),
        ("utf-8", "utf-8", JAPANESE),
        ("utf-8", "utf-8-sig", JAPANESE),
        ("utf-16", "utf-16", JAPANESE),
        ("utf-16", "utf-16-be", JAPANESE),
        ("utf-16", "utf-16-le", JAPANESE),
        ("utf-16", "utf-8", JAPANESE),  # .NET declares the encoding of its own texts
        ("utf-8", "utf-16", JAPANESE),
        ("utf-32", "utf-32", JAPANESE),
    ],
)
def test_the_encoding_that_a_file_declares(folder: Path, declared: str, written: str, name: str) -> None:
    text = f'<?xml version="1.0" encoding="{declared}"?>\n{document(thing(name))}'
    write(folder, text.encode(written))
    assert objects(one(folder)) == [(name, BOX)]
    assert VocFormat().open(folder).categories == (name,)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_without_a_declaration_it_is_utf8(folder: Path, mark: bytes) -> None:
    write(folder, mark + document(thing(CHINESE)).encode())
    assert objects(one(folder)) == [(CHINESE, BOX)]


@pytest.mark.parametrize(
    ("declared", "data", "reason"),
    [
        ("utf-8", CHINESE.encode("gbk"), r"not readable as XML in utf-8; say the encoding in its first line"),
        ("gbk", b"\xff\xff", "not readable as XML in gb18030"),
        ("klingon", b"x", "not readable as XML .*unknown encoding"),
        ("rot13", b"x", "not readable as XML .*rot_13"),
        ("zlib", b"x", "not readable as XML .*zlib"),
    ],
)
def test_other_bytes_than_declared_are_named(folder: Path, declared: str, data: bytes, reason: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>'.encode()
    write(folder, head + document(thing("@")).encode().replace(b"@", data))
    write(folder, document(thing(), filename="b.png"), "b")
    broken, item = read(folder)
    assert isinstance(broken, Broken)
    assert isinstance(item, LabelledImage)
    with pytest.raises(FormatError, match=reason):
        raise FormatError(broken.reason)


def test_entities_are_refused_in_every_encoding(folder: Path) -> None:
    text = '<?xml version="1.0" encoding="gbk"?><!DOCTYPE x [<!ENTITY e "boom">]>' + document(thing("&e;"))
    write(folder, text.encode("gbk"))
    (broken,) = read(folder)
    assert isinstance(broken, Broken)
    assert "entities" in broken.reason


# ---------------------------------------------------------------- several boxes in one object


def test_every_box_of_an_object_is_an_object(folder: Path) -> None:
    write(folder, document(thing("crate", bndbox(), bndbox(20, 6, 30, 16)), thing("pallet")))
    item = one(folder)
    assert objects(item) == [("crate", BOX), ("crate", (20, 6, 30, 16)), ("pallet", BOX)]
    assert item.notes == ("object 1 holds 2 boxes; each is read as an object",)
    assert not item.problems


def test_as_many_names_as_boxes_go_together(folder: Path) -> None:
    inner = f"<name>crate</name>{bndbox()}<name>pallet</name>{bndbox(20, 6, 30, 16)}"
    write(folder, document(f"<object>{inner}</object>"))
    assert objects(one(folder)) == [("crate", BOX), ("pallet", (20, 6, 30, 16))]
    assert VocFormat().open(folder).categories == ("crate", "pallet")


@pytest.mark.parametrize("boxes", [1, 3])
def test_names_that_fit_no_box_are_named(folder: Path, boxes: int) -> None:
    inner = "<name>crate</name><name>pallet</name>" + bndbox() * boxes
    write(folder, document(f"<object>{inner}</object>", thing("pallet")))
    item = one(folder)
    assert objects(item) == [("pallet", BOX)]
    assert item.problems == (f"object 1: 2 names and {boxes} boxes, so nobody knows which is whose; dropped",)
    assert item.incomplete


def test_a_broken_box_among_several_goes_alone(folder: Path) -> None:
    boxes = [bndbox(), bndbox(4, 4, 4, 9), bndbox(50, 50, 60, 60)]
    write(folder, document(thing("crate", *boxes)))
    item = place(one(folder), SIZE)
    assert [a.box for a in item.annotations or ()] == [BOX]
    assert len(item.problems) == 2
    assert item.problems[0].startswith("object 1 box 2: degenerate box")
    assert not item.incomplete


# ---------------------------------------------------------------- case 63: lists of a split


@pytest.mark.parametrize(
    "text",
    [
        "a\nc\n",
        "a\r\nc.png 1\r\n",
        "\ufeffa.xml\nc.JPG -1\n",
        "a  1\nc  0\n\n",
        "JPEGImages/a.png\n./Annotations/c.xml\n",
        "JPEGImages\\a.jpg\nc\n",
        "  a \n\tc\t1\na\n",
    ],
)
def test_lines_of_a_split(folder: Path, text: str) -> None:
    for name in "abc":
        write(folder, document(thing(), filename=f"{name}.png"), name)
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_bytes(text.encode())
    items = read(folder, split="train")
    assert [(item.name, getattr(item, "split", None)) for item in items] == [
        ("a.png", "train"),
        ("c.png", "train"),
    ]


@pytest.mark.parametrize("name", ["my crate 1", "img.v1", "x.png", "a 0"])
def test_names_that_look_like_more_than_a_name(
    folder: Path, picture: Callable[..., Path], name: str
) -> None:
    """A name that is there as it stands is meant, whatever it ends with."""
    picture(f"JPEGImages/{name}.png", SIZE)
    write(folder, document(thing(), filename=f"{name}.png"), name)
    write(folder, document(thing(), filename="a.png"), "a")
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text(f"{name}\n")
    assert [item.name for item in read(folder, split="train")] == [f"{name}.png"]


def test_lists_of_one_class_are_no_splits_of_their_own(folder: Path) -> None:
    write(folder, document(thing()))
    (folder / "ImageSets/Main").mkdir(parents=True)
    for name in ("train", "val", "crate_train", "crate_val", "night_shift"):
        (folder / f"ImageSets/Main/{name}.txt").write_text("a  1\n")
    with pytest.raises(FormatError, match=r"no split 'test' .* found: night_shift, train, val$"):
        read(folder, split="test")
    (folder / "ImageSets/Main/odd.txt").write_bytes("grö".encode("latin-1"))
    with pytest.raises(FormatError, match=r"odd\.txt: expected names in UTF-8"):
        read(folder, split="odd")


# ---------------------------------------------------------------- cases 07, 92, 100, 34


@pytest.mark.parametrize(
    "filename",
    ["D:\\set\\JPEGImages\\b.png", "..\\up\\b.png", "/home/b.png", "http://host/x/b.png", "JPEGImages/b.png"],
)
def test_images_are_found_by_the_tail_of_their_names(folder: Path, filename: str) -> None:
    """The name that the file says comes before the XML file's own."""
    write(folder, document(thing(), filename=filename))
    assert one(folder).path == folder / "JPEGImages/b.png"


@pytest.mark.parametrize("filename", ["C:\\old\\IMG_1.JPG", "/old/IMG_1.JPG", "", "../../etc/passwd"])
def test_else_the_image_is_called_as_the_file(folder: Path, filename: str) -> None:
    write(folder, document(thing(), filename=filename))
    assert one(folder).path == folder / "JPEGImages/a.png"


def test_what_is_not_found_is_named_with_advice(folder: Path) -> None:
    write(folder, document(thing(), filename="C:\\old\\IMG_1.JPG"), "z")
    (broken,) = read(folder)
    assert isinstance(broken, Broken)
    assert "pass --images with the folder that holds it" in broken.reason
    (folder / "elsewhere/old").mkdir(parents=True)
    (folder / "JPEGImages/a.png").rename(folder / "elsewhere/old/IMG_1.JPG")
    assert one(folder, images=folder / "elsewhere").path == folder / "elsewhere/old/IMG_1.JPG"


def test_blanks_round_class_names(folder: Path) -> None:
    write(folder, document(thing("crate"), thing(" crate\n", bndbox(5, 6, 14, 16))))
    source = VocFormat().open(folder)
    assert source.categories == ("crate",)
    assert source.notes == (
        "class ' crate\\n' is read as 'crate'",
        "the classes ' crate\\n', 'crate' are one class, 'crate'",
    )
    assert objects(one(folder)) == [("crate", BOX), ("crate", (5, 6, 14, 16))]
    assert objects(one(folder, classes=["crate"])) == [("crate", BOX), ("crate", (5, 6, 14, 16))]


def test_numbers_with_blanks_and_points(folder: Path) -> None:
    write(folder, document(thing("crate", bndbox(" 4 ", "6.0", "\n14", "1.6e1")), size=("40.0", " 30 ")))
    item = one(folder)
    assert (objects(item), item.declared_size) == ([("crate", BOX)], SIZE)


def test_an_object_listed_twice_is_one(folder: Path) -> None:
    write(folder, document(thing(), thing(), thing("pallet"), thing("crate", bndbox(), bndbox())))
    item = place(one(folder), SIZE)
    assert objects(item) == [("crate", BOX), ("pallet", BOX)]
    assert item.notes[-1] == "crate: box (4, 6, 14, 16) is listed 4 times; one object is kept"
