"""The labelling tools' own packages read what we write, and we read what they write.

Real servers do not run here. `labelformat` and `supervision` are installed with the test extra; what
label-studio-sdk, labelme and datumaro made of our files lies under `oracles/` (`oracles/make.py` says how).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import LabelledImage, OutputImage
from curator.data.formats.placement import place
from curator.registry import FORMATS
from store.records import NewAnnotation
from tests.data.formats.oracles.written import NAMES, OBJECTS, images

ORACLES = Path(__file__).parent / "oracles"
SIZE = (40, 30)


def written(name: str, out: Path, items: Iterable[OutputImage] | None = None) -> Path:
    list(FORMATS.load(name)().write(out, NAMES, images() if items is None else items))
    return out


def read(name: str, path: Path, **options: Any) -> dict[str, LabelledImage]:
    found = {}
    for item in FORMATS.load(name)().open(path, **options).items:
        assert isinstance(item, LabelledImage), item
        found[item.path.stem] = place(item, SIZE)
    return found


def plain(objects: Iterable[NewAnnotation] | None, **changes: Any) -> list[NewAnnotation]:
    return [replace(a, **changes) for a in objects or ()]


def put(tmp_path: Path, name: str, text: str | None = None) -> Path:
    """One of the oracles' files, in a folder with the two images."""
    for item in images():
        (tmp_path / f"{item.name}{item.suffix}").write_bytes(item.data)
    path = tmp_path / name
    path.write_text((ORACLES / name).read_text() if text is None else text)
    return path


def test_labelformat_reads_and_writes_cvat(tmp_path: Path) -> None:
    pytest.importorskip("labelformat")
    from labelformat.formats.cvat import CVATObjectDetectionInput, CVATObjectDetectionOutput

    found = CVATObjectDetectionInput(written("cvat", tmp_path / "out") / "annotations.xml")
    assert [category.name for category in found.get_categories()] == list(NAMES)
    first, second = found.get_labels()
    assert (first.image.filename, first.image.width, first.image.height) == ("a-0123456789ab.png", 40, 30)
    boxes = [(o.category.name, (o.box.xmin, o.box.ymin, o.box.xmax, o.box.ymax)) for o in first.objects]
    assert boxes == [(a.category, a.box) for a in OBJECTS]
    assert len(second.objects) == 1
    CVATObjectDetectionOutput(tmp_path / "again", "job").save(found)
    back = read("cvat", tmp_path / "again", images=tmp_path / "out/images")
    assert list(back["a-0123456789ab"].annotations or ()) == plain(OBJECTS, attributes={}, difficult=False)


def test_supervision_reads_and_writes_labelme(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    out = written("labelme", tmp_path / "out")
    data = sv.DetectionDataset.from_labelme(
        images_directory_path=str(out / "images"), annotations_directory_path=str(out / "images")
    )
    (found,) = (f for path, _, f in data if path.endswith("a-0123456789ab.png"))
    assert [data.classes[i] for i in found.class_id] == [a.category for a in OBJECTS]
    assert [tuple(box) for box in found.xyxy.tolist()] == [pytest.approx(a.box, rel=1e-6) for a in OBJECTS]
    data.as_labelme(
        images_directory_path=str(tmp_path / "again"), annotations_directory_path=str(tmp_path / "again")
    )
    back = read("labelme", tmp_path / "again")["a-0123456789ab"].annotations or ()
    assert [(a.category, a.box) for a in back] == [
        (a.category, pytest.approx(a.box, rel=1e-6)) for a in OBJECTS
    ]


@pytest.mark.parametrize("file", ["label_studio_min.json", "label_studio_from_coco.json"])
def test_what_label_studios_converter_writes_is_read(tmp_path: Path, file: str) -> None:
    """JSON-MIN of our tasks, and tasks that the converter made of a COCO export."""
    back = read("label-studio", put(tmp_path, file))
    assert list(back["a-0123456789ab"].annotations or ()) == plain(OBJECTS, attributes={}, difficult=False)
    assert len(back["b-ba9876543210"].annotations or ()) == 1
    assert {item.status for item in back.values()} == {"human"}


def test_label_studios_converter_read_our_tasks(tmp_path: Path) -> None:
    """What it made of them is COCO, which names the images by Label Studio's addresses."""
    back = read("coco", put(tmp_path, "label_studio_as_coco.json"))
    assert list(back["a-0123456789ab"].annotations or ()) == plain(OBJECTS, attributes={}, difficult=False)
    tasks = json.loads((written("label-studio", tmp_path / "out") / "tasks.json").read_text())
    minimal = json.loads((ORACLES / "label_studio_min.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [task["image"] for task in minimal]
    regions = [r["value"] for r in tasks[0]["annotations"][0]["result"]]
    assert [{k: r[k] for k in regions[0]} for r in minimal[0]["label"]] == regions


def test_labelme_kept_what_we_wrote(tmp_path: Path) -> None:
    """LabelMe's own reader and writer: the labels with their scores, attributes and marks come back."""
    put(tmp_path, "labelme_b-ba9876543210.json")
    put(tmp_path, "labelme_a-0123456789ab.json")
    back = read("labelme", tmp_path)
    assert back["a-0123456789ab"].annotations == OBJECTS
    assert back["b-ba9876543210"].annotations == OBJECTS[:1]


def test_datumaro_read_our_cvat_and_we_read_its_own(tmp_path: Path) -> None:
    found = json.loads((ORACLES / "datumaro_of_cvat.json").read_text())
    for item in images():
        boxes = [(name, tuple(box)) for name, *box, _ in found[item.name]]
        assert boxes == [(a.category, pytest.approx(a.box, abs=0.005)) for a in item.annotations]
    assert found["a-0123456789ab"][0][-1] == {"kind": "van", "score": "0.75", "occluded": False}
    back = read("cvat", put(tmp_path, "datumaro_cvat.xml"))
    objects = back["a-0123456789ab"].annotations or ()
    assert [(a.category, a.difficult, a.attributes) for a in objects] == [
        (a.category, a.difficult, a.attributes) for a in OBJECTS
    ]
    assert [a.box for a in objects] == [pytest.approx(a.box, abs=0.005) for a in OBJECTS]


@pytest.mark.parametrize("name", ["cvat", "label-studio", "labelme"])
def test_the_oracles_were_given_what_is_written_now(
    name: str, tmp_path: Path, output: Callable[..., OutputImage]
) -> None:
    """Written, read, written again: the same bytes."""
    one = written(name, tmp_path / "one")
    back = read(name, one)
    again = [replace(item, annotations=back[item.name].annotations or ()) for item in images()]
    two = written(name, tmp_path / "two", again)
    assert {f.relative_to(one): f.read_bytes() for f in one.rglob("*") if f.is_file()} == {
        f.relative_to(two): f.read_bytes() for f in two.rglob("*") if f.is_file()
    }
