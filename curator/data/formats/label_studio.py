"""Label Studio's JSON: tasks with predictions and annotations, and its exports JSON and JSON-MIN.

In: the list of tasks (a file, or a folder that holds one), images below a folder. A task names its image in
`data` by an address ("/data/local-files/?d=images/a.jpg", "/data/upload/3/1f2e3d4c-a.jpg", "s3://..."); it is
found by the end of that, without the eight hex digits that an upload puts before it. `label_studio_tasks`
reads one task.

Frame: x, y, width, height in percent of the upright image, whatever its size. `annotations` are a human's
(cancelled ones are passed over, the newest counts); a task with `predictions` alone is pre-annotated; one
with neither is unlabelled.

Written: `tasks.json`, `label_config.xml` for the project's labelling interface, `images/`. Attributes,
`difficult` and `crowd` go into a region's `meta`, the score into its `score`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import rounded
from curator.data.formats.files import Writer, index_of, lookup
from curator.data.formats.finding import ImageFinder
from curator.data.formats.jsonstream import list_elements
from curator.data.formats.label_studio_tasks import read_task
from curator.data.formats.labelling import Labels, image_of, named_in, outline_dropped, plain_attributes
from curator.errors import FormatError
from store.records import NewAnnotation

FILE, CONFIG = "tasks.json", "label_config.xml"
ADDRESS = "/data/local-files/?d="
"""Label Studio's local storage: the path behind it counts from LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
_XML_LIMIT = 1 << 24


class LabelStudioFormat:
    """Reads Label Studio's JSON and JSON-MIN; writes tasks to import."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open the JSON file, or a folder that holds one.

        Args:
            images: folder of the images; None: that of the file, searched by the names' ends.
            classes: keep only these. split: is noted with each image; the files know none.
        Raises:
            FormatError: no such file, or no list of tasks.
        """
        file = _find(path)
        count, used = 0, set[str]()
        for element in list_elements(file):
            count += 1
            used.update(read_task(element).names())
        labels = Labels(str(file), _configured(file.parent / CONFIG), used, classes)
        return Source(
            categories=labels.known,
            listed=labels.listed,
            count=count,
            items=_items(
                (file, path.is_dir() or images is not None),
                ImageFinder(images or file.parent),
                labels,
                split,
            ),
            notes=labels.notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `images/`, `tasks.json` and `label_config.xml`."""
        index, writer = index_of(categories), Writer(out)
        out.mkdir(parents=True, exist_ok=True)
        with (out / FILE).open("x", encoding="utf-8") as handle:
            handle.write("[")
            for number, item in enumerate(items, start=1):
                yield writer.image("images", item)
                for annotation in item.annotations:
                    lookup(index, annotation.category)
                text = json.dumps(_task(item, number), ensure_ascii=False, allow_nan=False)
                handle.write(",\n" * (number > 1) + text)
            handle.write("]\n")
        yield writer.entry(FILE)
        yield writer.file(CONFIG, _config(categories).encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """All but polygons and run-length masks."""
        return tuple(map(outline_dropped, annotations))


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected Label Studio's JSON or a folder that holds it, got {path}")
    found = [path / FILE] if (path / FILE).is_file() else sorted(path.glob("*.json"))
    found = [file for file in found if file.name != "manifest.json"]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise FormatError(f"{path}: expected one JSON file of tasks, found {names}; name the file")
    return found[0]


def _configured(file: Path) -> list[str] | None:
    """The classes of the labelling interface beside the tasks; None where there is none.

    Raises:
        FormatError: no XML, or entities in it.
    """
    if not file.is_file() or file.stat().st_size > _XML_LIMIT:
        return None
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except DefusedXmlException as error:
        raise FormatError(f"{file.name}: refused, XML with entities ({type(error).__name__})") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f"{file.name}: not readable as XML ({' '.join(str(error).split())})") from error
    groups = ("RectangleLabels", "PolygonLabels", "EllipseLabels", "Labels")
    labels = [label for group in root.iter() if group.tag in groups for label in group.iterfind("Label")]
    return [name for label in labels if (name := label.get("value") or "").strip()] or None


def _items(
    where: tuple[Path, bool], finder: ImageFinder, labels: Labels, split: str | None
) -> Iterator[LabelledImage | Broken]:
    """where: the file, and whether images are searched for."""
    file, search = where
    seen: dict[Path, str] = {}
    for element in list_elements(file):
        task = read_task(element)
        try:
            if task.broken:
                raise FormatError(task.broken)
            path = image_of(finder, task.image, search=search)
            if path in seen:
                raise FormatError(f"{task.name} and {seen[path]} show one image; one image, one task")
            seen[path] = task.name
            yield replace(task.labelled(path, named_in(finder, path), labels), split=split)
        except FormatError as error:
            yield Broken(name=task.image or task.name, reason=str(error))


# ---------------------------------------------------------------- writing


def _task(item: OutputImage, number: int) -> dict[str, Any]:
    results = [_result(rounded(a), item, place) for place, a in enumerate(item.annotations)]
    address = ADDRESS + quote(f"images/{item.name}{item.suffix}")
    task: dict[str, Any] = {"id": number, "data": {"image": address}, "annotations": [], "predictions": []}
    if item.pre_annotated:
        scores = [r["score"] for r in results if "score" in r]
        version = str(item.lineage.get("labels_by") or "curator")
        prediction: dict[str, Any] = {"model_version": version, "result": results}
        if scores:
            prediction["score"] = sum(scores) / len(scores)
        task["predictions"] = [prediction]
    else:
        task["annotations"] = [{"result": results, "was_cancelled": False, "ground_truth": False}]
    return task


def _result(annotation: NewAnnotation, item: OutputImage, place: int) -> dict[str, Any]:
    x1, y1, x2, y2 = annotation.box
    attributes = plain_attributes(annotation.attributes)
    result: dict[str, Any] = {
        "id": f"{item.name[-12:]}-{place}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": item.width,
        "original_height": item.height,
        "image_rotation": 0,
        "value": {
            "x": x1 / item.width * 100,
            "y": y1 / item.height * 100,
            "width": (x2 - x1) / item.width * 100,
            "height": (y2 - y1) / item.height * 100,
            "rotation": 0,
            "rectanglelabels": [annotation.category],
        },
    }
    score = attributes.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool):
        result["score"] = attributes.pop("score")
    meta: Mapping[str, Any] = {
        "attributes": attributes,
        "difficult": annotation.difficult,
        "crowd": annotation.crowd,
    }
    if kept := {name: value for name, value in meta.items() if value}:
        result["meta"] = kept
    return result


def _config(categories: Sequence[str]) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in categories)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
    )
