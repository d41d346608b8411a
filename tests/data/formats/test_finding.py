"""Image names of another machine: the longest unique tail, and never another image of the same name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curator.data.formats.finding import ImageFinder, leads_outside, tails
from curator.errors import FormatError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "images/a.png",
        "images/Straße 1.JPG",
        "images/sub/deep.png",
        "train/1.png",
        "val/1.png",
        "val/2.png",
        "same/x/s.png",
        "same/y/s.png",
        ".hidden/h.png",
    ):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images/a.png", "images/a.png"),
        ("a.png", "images/a.png"),
        ("images\\a.png", "images/a.png"),
        ("..\\..\\tool\\media\\upload\\4\\a.png", "images/a.png"),
        ("D:\\work\\set1\\images\\a.png", "images/a.png"),
        ("\\\\server\\share\\images\\a.png", "images/a.png"),
        ("/home/ann/set/images/a.png", "images/a.png"),
        ("../images/a.png", "images/a.png"),
        ("set/images/a.png", "images/a.png"),
        ("http://images.example.org/val2017/a.png", "images/a.png"),
        ("s3://bucket/images/a.png", "images/a.png"),
        ("/data/local-files/?d=set%2Fimages%2Fa.png", "images/a.png"),
        ("http://host/data/upload/4/a.png?size=full", "images/a.png"),
        ("http://host/images/Stra%C3%9Fe%201.JPG", "images/Straße 1.JPG"),
        ("C:\\IMAGES\\STRASSE 1.jpg", "images/Straße 1.JPG"),
        ("images\\Strasse 1.JPG", "images/Straße 1.JPG"),
        ("/x/images/deep.png", "images/sub/deep.png"),
        ("train/1.png", "train/1.png"),
        ("/data/set/val/1.png", "val/1.png"),
        ("D:\\x\\s.png", "same/x/s.png"),
        ("D:\\y\\s.png", "same/y/s.png"),
        ("train/2.png", None),
        ("/data/train/2.png", None),
        ("D:\\set\\train\\2.png", None),
        ("test/2.png", None),
        ("/val/images/a.png", "images/a.png"),
        ("other/none.png", None),
        ("../secret.png", None),
        ("/etc/passwd", None),
        ("h.png", None),
        ("..", None),
        ("", None),
        ("http://host/", None),
    ],
)
def test_which_file_is_meant(folder: Path, name: str, expected: str | None) -> None:
    found = ImageFinder(folder).find(name)
    assert found == (folder / expected if expected else None)


def test_several_files_that_could_be_meant_are_named(folder: Path) -> None:
    with pytest.raises(FormatError, match=r"2 files below .* end so \(same/x/s.png, same/y/s.png\)"):
        ImageFinder(folder).find("D:\\work\\s.png")
    assert ImageFinder(folder / "same/x").find("D:\\work\\s.png") == folder / "same/x/s.png"


def test_the_exact_name_wins_over_other_cases(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/A.png").write_bytes(b"")
    assert ImageFinder(folder).find("D:\\q\\A.png") == folder / "other/A.png"
    assert ImageFinder(folder).find("D:\\q\\a.png") == folder / "images/a.png"


def test_accents_in_one_or_two_letters(folder: Path) -> None:
    (folder / "images/u\u0308ber.png").write_bytes(b"")
    assert ImageFinder(folder).find("x/images/\u00fcber.png") == folder / "images/u\u0308ber.png"


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/far.png").write_bytes(b"")
    (tmp_path / "disk/back").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "disk")
    assert ImageFinder(folder).find("D:\\q\\far.png") == folder / "linked/far.png"
    assert ImageFinder(folder).find("D:\\q\\a.png") == folder / "images/a.png"


def test_names_that_are_no_text_are_passed_over(folder: Path) -> None:
    with open(os.path.join(os.fsencode(folder), b"images/\xff.png"), "wb"):
        pass
    assert ImageFinder(folder).find("D:\\q\\a.png") == folder / "images/a.png"


@pytest.mark.parametrize(
    ("name", "outside"),
    [("a/b.png", False), ("a\\b.png", False), ("../b.png", True), ("c:/b.png", True), ("/b.png", True)],
)
def test_names_that_lead_outside(name: str, outside: bool) -> None:
    assert leads_outside(name) is outside


def test_tails() -> None:
    assert list(tails("D:\\a\\.\\..\\b%20c.png")) == [["a", "b%20c.png"], ["a", "b c.png"]]
