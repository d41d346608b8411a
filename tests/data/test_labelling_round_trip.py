"""Exported to a labelling tool and back: whose labels come back, and what is told of the tool's changes.

The tools' part is played by small functions that do what their exports do (names, rounding, missing files).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from curator.cli.app import main
from curator.cli.data import add_lines
from curator.data.run_add import add
from curator.data.settings import AddConfig, ExportConfig
from curator.jobs.stage import StageResult
from curator.pipeline.exporting import export
from store.store import Store
from tests.data.exported import fill

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "workspace") as opened:
        fill(opened, tmp_path / "data")
        yield opened


def sent(store: Store, out: Path, format: str, **options: Any) -> Path:
    values = {"selections": ("query",), "samples": ("synthesis",), "class_map": {"automobile": "car"}}
    export(store, ExportConfig(format=format, out=out, **{**values, **options}))
    return out


def back(store: Store, path: Path, format: str, **options: Any) -> StageResult:
    return add(store, AddConfig(format=format, path=path, role="pool", **options))


def told(result: StageResult) -> dict[str, Any]:
    return {key: value for key, value in (result.summary["returned"] or {}).items() if value}


def pool_boxes(store: Store) -> list[list[tuple[str, tuple[float, ...]]]]:
    labels = store.annotations(store.image_ids(role="pool")[:2], reader="export")
    return [[(a.category, a.box) for a in found.annotations] for found in labels.values()]


SENT = [[("car", (1, 1, 9, 9)), ("lamp", (2, 2, 48, 8))], []]


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "cvat", "label-studio", "labelme", "ndjson"])
def test_an_export_comes_back_as_it_went(store: Store, tmp_path: Path, format: str) -> None:
    members, images = store.memberships(), store.counts()["images"]
    out = sent(store, tmp_path / "out", format)
    waiting = back(store, out, format)
    assert (waiting.summary["still_pre_annotated"], waiting.summary["passed_over"]) == (2, 1)
    assert pool_boxes(store) == []
    result = back(store, out, format, reviewed=True)
    assert pool_boxes(store) == SENT
    assert told(result) == {"version": "out", "version_number": 1, "by_bytes": 5, "images": 5}
    assert (store.memberships(), store.counts()["images"]) == (members, images)


def test_cvat_gives_the_xml_alone(store: Store, tmp_path: Path) -> None:
    """Two decimals, an attribute lost, an image and a class dropped, a box drawn; no files."""
    out = sent(store, tmp_path / "out", "cvat")
    text = (out / "annotations.xml").read_text()
    text = re.sub(r'(x|y)(tl|br)="([\d.]+)"', lambda m: f'{m[1]}{m[2]}="{float(m[3]) + 0.004:.2f}"', text)
    text = re.sub(r'<attribute name="score">.*?</attribute>', "", text)
    text = re.sub(r'<image id="1".*?</image>\n', "", text, flags=re.DOTALL)
    text = text.replace("<name>lamp</name>", "<name>Lamp</name>").replace('label="lamp"', 'label="Lamp"')
    box = '<box label="car" xtl="20.00" ytl="10.00" xbr="30.00" ybr="20.00"></box></image>\n</annotations>'
    text = re.sub(r"</image>\n<image", "<!-- -->\\g<0>", text)
    text = re.sub(r"</image>\n</annotations>", box, text)
    (tmp_path / "back").mkdir()
    (tmp_path / "back/annotations.xml").write_text(text)
    result = back(store, tmp_path / "back", "cvat")
    assert result.failures == ()
    found = pool_boxes(store)
    assert [name for name, _ in found[0]] == ["car", "Lamp"]
    assert [box for _, box in found[0]] == [pytest.approx(box, abs=0.011) for _, box in SENT[0]]
    changes = told(result)
    assert (changes["images"], changes["by_name"], changes["not_returned"]) == (4, 4, 1)
    assert changes["attributes_lost"] == {"score": 2}
    assert changes["classes_renamed"] == {"lamp -> Lamp": 1}
    assert changes["rounded"] >= 1
    assert changes["rounded_by"] <= 0.011
    lines = "\n".join(add_lines(result.summary))
    assert "4 images of the export 'out' came back, 4 without their files, known by name" in lines
    assert "classes renamed: lamp -> Lamp (1)" in lines
    assert "images that did not come back: 1" in lines


def test_label_studio_prefixes_uploaded_images(store: Store, tmp_path: Path) -> None:
    """Its export with files beside, then one without: predictions corrected, one task cancelled."""
    out = sent(store, tmp_path / "out", "label-studio")
    for copied in (True, False):
        folder = tmp_path / f"back-{copied}"
        (folder / "media").mkdir(parents=True)
        tasks = json.loads((out / "tasks.json").read_text())
        for task in tasks:
            name = task["data"]["image"].rpartition("/")[2]
            task["data"]["image"] = f"/data/upload/3/1f2e3d4c-{name}"
            if copied:
                shutil.copy(out / "images" / name, folder / f"media/1f2e3d4c-{name}")
            for prediction in task["predictions"]:
                result = json.loads(json.dumps(prediction["result"]))
                for region in result:
                    region.pop("score", None)
                    region["value"]["x"] += 5
                task["annotations"] = [{"result": result, "was_cancelled": False}]
        (folder / "project-3-at-2026.json").write_text(json.dumps(tasks))
        result = back(store, folder, "label-studio")
        assert result.failures == ()
        changes = told(result)
        assert changes["by_bytes" if copied else "by_name"] == 5
        assert (changes["images"], changes["moved"], changes["corrected_images"]) == (5, 2, 1)
        assert changes["attributes_lost"] == {"score": 2}
        (first, *_) = pool_boxes(store)[0]
        assert first == ("car", (3.4, 1, 11.4, 9))
        assert result.summary["new_annotation_versions"] == (2 if copied else 0)
    assert "corrected: 2 moved objects in 1 images" in "\n".join(add_lines(result.summary))


def roboflow(out: Path, folder: Path, change: Any = lambda image: image, copies: int = 1) -> None:
    """Roboflow's COCO export of a COCO upload: every image stretched to 64 x 64, renamed, written anew."""
    table = json.loads((out / "annotations.json").read_text())
    (folder / "train").mkdir(parents=True)
    images = []
    for image in table["images"]:
        for copy in range(copies):
            picture = ImageOps.exif_transpose(Image.open(out / "images" / image["file_name"]))
            picture = picture.convert("RGB").resize((64, 64))
            stem, _, suffix = image["file_name"].rpartition(".")
            name = f"{stem}_{suffix}.rf.{HASH[copy:]}{copy}.jpg"
            change(picture).save(folder / "train" / name, quality=85 - copy)
            images.append(
                {"id": len(images), "file_name": name, "width": 64, "height": 64, "of": image["id"]}
            )
    sizes = {image["id"]: (image["width"], image["height"]) for image in table["images"]}
    annotations = [
        {
            "id": f"{i['id']}-{a['id']}",
            "image_id": i["id"],
            "category_id": a["category_id"],
            "bbox": [round(v * 64 / sizes[a["image_id"]][n % 2], 3) for n, v in enumerate(a["bbox"])],
        }
        for i in images
        for a in table["annotations"]
        if a["image_id"] == i["of"]
    ]
    kinds = [{"id": 0, "name": "set", "supercategory": "none"}]
    kinds += [{**category, "supercategory": "set"} for category in table["categories"]]
    content = {"images": images, "annotations": annotations, "categories": kinds}
    (folder / "train/_annotations.coco.json").write_text(json.dumps(content))


def test_roboflow_renames_and_rewrites(store: Store, tmp_path: Path) -> None:
    members, images = store.memberships(), store.counts()["images"]
    roboflow(sent(store, tmp_path / "out", "coco"), tmp_path / "back")
    result = back(store, tmp_path / "back", "coco")
    changes = told(result)
    assert (changes["by_picture"], changes["images"]) == (5, 5)
    assert changes["rounded"] >= 1
    assert changes["rounded_by"] < 0.01
    assert result.summary["passed_over"] == 1  # the sample
    assert pool_boxes(store)[0] == [(name, pytest.approx(box, abs=0.01)) for name, box in SENT[0]]
    assert (store.memberships(), store.counts()["images"]) == (members, images)
    assert "5 written anew or resized" in "\n".join(add_lines(result.summary))


def test_a_mirrored_copy_is_another_image(store: Store, tmp_path: Path) -> None:
    """Augmented by the tool: its boxes are not the image's, so it stays what it is, and is told."""
    out = sent(store, tmp_path / "out", "coco", samples=())
    roboflow(out, tmp_path / "back", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    result = add(store, AddConfig(format="coco", path=tmp_path / "back", role="pool"))
    assert told(result) == {"unlike": 5}
    assert pool_boxes(store) == []
    assert result.summary["new_images"] == 5
    assert "5 images bear the name of an exported one" in "\n".join(add_lines(result.summary))


def test_an_image_comes_back_once(store: Store, tmp_path: Path) -> None:
    roboflow(sent(store, tmp_path / "out", "coco", samples=()), tmp_path / "back", copies=2)
    result = back(store, tmp_path / "back", "coco")
    changes = told(result)
    assert (changes["by_picture"], changes["repeated"]) == (5, 5)
    assert len([r for _, r in result.failures if "are kept" in r]) == 5


def test_a_file_of_another_size_without_its_image_is_missing(store: Store, tmp_path: Path) -> None:
    """Boxes of a resized image that did not come back: nobody knows which pixels they mean."""
    out = sent(store, tmp_path / "out", "cvat")
    text = (out / "annotations.xml").read_text().replace('width="48"', 'width="96"')
    (tmp_path / "back").mkdir()
    (tmp_path / "back/annotations.xml").write_text(text)
    result = back(store, tmp_path / "back", "cvat")
    assert pool_boxes(store) == []
    assert all("missing image" in reason for _, reason in result.failures)


def test_nothing_is_told_where_nothing_was_sent(store: Store, tmp_path: Path) -> None:
    sent(store, tmp_path / "out", "cvat")
    result = add(store, AddConfig(format="coco", path=tmp_path / "data/train/labels.json", role="train"))
    assert result.summary["returned"] is None


def test_the_commands_of_the_page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/labelling.md, in its order; between two, the tool's part."""
    store.close()
    (tmp_path / "workspace").rename(tmp_path / "ws")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[2] / "docs/labelling.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for block in blocks:
        out, returned = (line.split() for line in block.splitlines())
        run([*out, "--map", "automobile=car"], monkeypatch)
        play(out[4], Path(out[5]))
        run(returned, monkeypatch)
        with Store.open(tmp_path / "ws") as opened:
            found = pool_boxes(opened)
        assert [name for name, _ in found[0]] == ["car", "lamp"], block
    assert len(blocks) == 4


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None), words


def play(format: str, out: Path) -> None:
    """What a person does in the tool: look, submit, export."""
    if format == "cvat":
        shutil.copy(out / "annotations.xml", "annotations.xml")
    elif format == "label-studio":
        tasks = json.loads((out / "tasks.json").read_text())
        for task in tasks:
            task["annotations"] = task["annotations"] or task["predictions"]
        Path("project.json").write_text(json.dumps(tasks))
    elif format == "coco":
        roboflow(out, Path("from-roboflow"))
