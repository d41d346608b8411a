"""Folders of pictures of ../shared/cases and their relatives: 75 (case.json names the threads)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from curator.data.formats.base import LabelledImage
from curator.data.formats.images import ImagesFormat
from curator.data.formats.pictures import image_files, passed_over_notes, readable_suffixes
from curator.data.formats.yolo import YoloFormat
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.errors import FormatError
from curator.registry import FORMATS
from store.images import read_pixels
from store.store import Store

COLOUR = (200, 60, 30)
KINDS = {
    "a.jpg": "JPEG",
    "b.gif": "GIF",
    "c.mpo": "MPO",
    "d.jfif": "JPEG",
    "e.jp2": "JPEG2000",
    "f.ppm": "PPM",
    "g.avif": "AVIF",
    "h.webp": "WEBP",
    "i.bmp": "BMP",
    "j.tiff": "TIFF",
    "k.TIF": "TIFF",
    "l.apng": "PNG",
    "m.J2K": "JPEG2000",
    "n.jpe": "JPEG",
    "o.pgm": "PPM",
    "p.tga": "TGA",
}
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 200


def save(path: Path, kind: str, colour: tuple[int, int, int] = COLOUR) -> Path:
    """Write a picture of one colour; kinds with frames get a second one of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, other = Image.new("RGB", (48, 32), colour), Image.new("RGB", (48, 32), (0, 0, 255))
    frames = {"save_all": True, "append_images": [other]} if kind in ("GIF", "MPO") else {}
    image.save(path, format=kind, **frames)
    return path


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_what_pillow_reads_is_read(tmp_path: Path, name: str, kind: str) -> None:
    """Case 75: each kind, alone in its folder, gives its (first) picture."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    save(tmp_path / name, kind)
    source = ImagesFormat().open(tmp_path)
    (item,) = source.items
    assert isinstance(item, LabelledImage)
    assert (item.name, source.count, source.notes) == (name, 1, ())
    pixels = read_pixels(str(item.path))
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels.astype(int).mean((0, 1)) - COLOUR).max() < 8


def test_pictures_that_cannot_be_read_are_counted_by_kind(tmp_path: Path) -> None:
    """Case 75: the pool is read, the note says what it lacks."""
    save(tmp_path / "mixed/a.jpg", "JPEG")
    save(tmp_path / "mixed/b.gif", "GIF", (0, 90, 0))
    for name in ("h.heic", "deep/i.HEIC", "j.dng", "k.mp4", "labels.txt", ".hidden.heic", "noname"):
        (tmp_path / "mixed" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).write_bytes(HEIC)
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="images", path=tmp_path / "mixed", role="pool"))
    assert (result.done, result.failed, result.exit_code) == (2, 0, 0)
    (note,) = result.summary["notes"]
    assert note.startswith("passed over: 2 .heic, 1 .dng, 1 .mp4; read are .jpg, .mpo, .png, ")
    assert "`pip install pillow-heif` adds .heic" in note
    assert "`curator add video` reads videos" in note


@pytest.mark.parametrize("form", ["images", "yolo"])
def test_a_folder_of_these_alone_is_refused_with_what_is_read(tmp_path: Path, form: str) -> None:
    """Case 75: exit 2; "found none" would not help who sees pictures there."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/i.heic").write_bytes(HEIC)
    (tmp_path / "images/readme.txt").write_text("x")
    reason = r"expected images, found 1 \.heic, 1 \.txt; read are \.jpg, .*\.webp.*pillow-heif"
    with pytest.raises(FormatError, match=reason) as raised:
        FORMATS.load(form)().open(tmp_path, classes=["car"])
    assert raised.value.exit_code == 2


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected images, found none; read are"):
        ImagesFormat().open(tmp_path)


def test_other_files_are_no_pictures_passed_over(tmp_path: Path) -> None:
    """Labels, lists and notes beside the pictures are not worth a word."""
    save(tmp_path / "a.png", "PNG")
    for name in ("a.txt", "a.json", "data.yaml", "README", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    assert ImagesFormat().open(tmp_path).notes == ()


def test_the_note_of_a_yolo_data_set(tmp_path: Path) -> None:
    """Relative of case 75: pictures that no label will reach are named there too."""
    save(tmp_path / "images/a.jpg", "JPEG")
    (tmp_path / "images/b.heic").write_bytes(HEIC)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    source = YoloFormat().open(tmp_path, classes=["car"])
    assert source.count == 1
    assert [note.partition(";")[0] for note in source.notes] == ["passed over: 1 .heic"]


def test_many_kinds_are_named_by_number(tmp_path: Path) -> None:
    kinds = dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".svg", ".psd"), 1)
    (note,) = passed_over_notes(kinds)
    assert " and 1 other kinds; read are" in note


def test_a_broken_picture_of_a_readable_kind_is_named(tmp_path: Path) -> None:
    """Relative of case 75: a suffix is no proof."""
    save(tmp_path / "set/a.png", "PNG")
    (tmp_path / "set/b.gif").write_bytes(b"GIF89a")
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="images", path=tmp_path / "set", role="pool"))
    assert (result.done, result.failed, result.exit_code) == (1, 1, 3)
    assert result.failures[0][0] == "b.gif"


def test_a_name_that_is_no_text_is_named_and_the_rest_read(tmp_path: Path) -> None:
    """Relative of case 75: file names of old archives in another encoding."""
    save(tmp_path / "set/a.png", "PNG")
    with open(os.path.join(os.fsencode(tmp_path / "set"), b"\xe4.png"), "wb") as handle:
        handle.write((tmp_path / "set/a.png").read_bytes())
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="images", path=tmp_path / "set", role="pool"))
    assert (result.done, result.failed, result.exit_code) == (1, 1, 3)
    assert result.failures[0] == (
        "'\\udce4.png'",
        "expected a file name that is UTF-8 text; rename the file",
    )


PLUGIN = '''
from PIL import Image, PpmImagePlugin

class Heif(PpmImagePlugin.PpmImageFile):
    format = "HEIF"
    def _open(self):
        self.fp.seek(12)
        self._mode, self._size, self.tile = "RGB", (2, 1), [("raw", (0, 0, 2, 1), 12, ("RGB", 0, 1))]

def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda start: start[4:12] == b"ftypheic")
    Image.register_extension("HEIF", ".heic")
'''


def test_heic_is_read_where_a_plugin_is_there(tmp_path: Path) -> None:
    """Case 75: without `pillow_heif` .heic is passed over, with it (here one that reads two pixels) it is
    read; in a process of its own, as Pillow keeps plug-ins for ever."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(range(6)))
    script = (
        "from pathlib import Path; from curator.data.formats.images import ImagesFormat; "
        "from store.images import read_pixels; "
        f"(item,) = ImagesFormat().open(Path({str(tmp_path / 'set')!r})).items; "
        "print(read_pixels(str(item.path)).tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-c", script]
    if ".heic" not in readable_suffixes():
        without = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
        assert "found 1 .heic" in without.stderr
    (tmp_path / "pillow_heif.py").write_text(PLUGIN)
    ran = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert ran.stdout.strip() == "[[[0, 1, 2], [3, 4, 5]]]", ran.stderr


def test_hidden_files_and_the_order_of_names(tmp_path: Path, picture: Callable[..., Path]) -> None:
    for name in ("b.png", "a/z.png", "a/.c.png", ".d/e.png", "A.PNG"):
        picture(name)
    assert [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)] == [
        "A.PNG",
        "b.png",
        "a/z.png",
    ]
