"""Makes the files of this folder: what the tools' own packages read of our files, and write for us to read.

The packages stay out of the test extra: label-studio-sdk brings 22 others (a second OpenCV among them),
labelme Qt, datumaro a NumPy below 2.3. Their own environment, then from the repository's root:

    python -m venv oracle && oracle/bin/pip install label-studio-sdk labelme datumaro
    PYTHONPATH=. python tests/data/formats/oracles/make.py write WORK  # ours: curator's environment
    oracle/bin/python tests/data/formats/oracles/make.py read WORK  # theirs: fills this folder

Made with label-studio-sdk 2.1.2, labelme 6.3.1, datumaro 1.13.12.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def write(work: Path) -> None:
    """The same two images in each format."""
    from curator.registry import FORMATS
    from tests.data.formats.oracles.written import NAMES, images

    for name in ("cvat", "label-studio", "labelme", "coco"):
        list(FORMATS.load(name)().write(work / name, NAMES, images()))


def read(work: Path) -> None:
    label_studio(work)
    labelme(work)
    datumaro(work)


def label_studio(work: Path) -> None:
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    config = (work / "label-studio/label_config.xml").read_text()
    tasks = json.loads((work / "label-studio/tasks.json").read_text())
    exported = work / "exported.json"
    exported.write_text(json.dumps([task for task in tasks if task["annotations"]]))
    converter = Converter(config, str(work), download_resources=False)
    converter.convert_to_coco(str(exported), str(work / "ls-coco"), is_dir=False)
    found = json.loads((work / "ls-coco/result.json").read_text())
    found.pop("info", None)
    save("label_studio_as_coco.json", found)
    converter.convert_to_json_min(str(exported), str(work / "ls-min"), is_dir=False)
    save("label_studio_min.json", json.loads((work / "ls-min/result.json").read_text()))
    convert_coco_to_ls(
        str(work / "coco/annotations.json"), str(work / "from-coco.json"), image_root_url="/data/upload/7"
    )
    save("label_studio_from_coco.json", json.loads((work / "from-coco.json").read_text()))


def labelme(work: Path) -> None:
    from labelme._label_file import read_label_file, write_label_file

    for file in sorted((work / "labelme/images").glob("*.json")):
        data = read_label_file(str(file))
        shapes: list[dict[str, Any]] = []
        for shape in data.shapes:
            plain = {k: v for k, v in shape.items() if k not in ("other_data", "mask")}
            shapes.append({**plain, "mask": None, **shape["other_data"]})
        write_label_file(
            str(work / file.name),
            shapes=shapes,
            image_path=data.image_path,
            image_height=30,
            image_width=40,
            flags=data.flags,
        )
        save(f"labelme_{file.name}", json.loads((work / file.name).read_text()))


def datumaro(work: Path) -> None:
    from datumaro.components.dataset import Dataset

    data = Dataset.import_from(str(work / "cvat"), "cvat")
    labels = [label.name for label in data.categories()[next(iter(data.categories()))].items]
    boxes = {
        item.id: [[labels[a.label], *a.points, dict(a.attributes)] for a in item.annotations] for item in data
    }
    save("datumaro_of_cvat.json", boxes)
    data.export(str(work / "cvat-again"), "cvat", save_media=False)
    (file,) = (work / "cvat-again").rglob("*.xml")
    shutil.copy(file, HERE / "datumaro_cvat.xml")


def save(name: str, value: Any) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
