"""YOLO text labels, as Ultralytics and Roboflow lay them out.

In: `data.yaml` (names, and a folder or list file for each split; `yolo_yaml`), or a folder with `images/` and
`labels/` plus class names. One text file an image, one row an object (`yolo_labels`).

An image without a label file is background to the trainers, but it may as well wait for its labels. The data
set tells which: where most images of a split have a file, the others hold no objects; where few or none have
one, the others are unlabelled. A note says what was taken; `background` decides it (`--background`,
`--unlabelled`), else `skip_if_label_file_missing: true` in data.yaml does.

A row holds a class and a box: reading leaves out keypoints, writing leaves out crowd regions (they are no
objects), polygons, attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import DIGITS, class_names, rounded
from curator.data.formats.files import PRE_ANNOTATIONS, Writer, index_of, inside, lookup, pre_annotated
from curator.data.formats.finding import ImageFinder
from curator.data.formats.pictures import image_files, nothing_readable, passed_over_notes
from curator.data.formats.yolo_labels import Rows, expected_label, label_file, read_labels
from curator.data.formats.yolo_yaml import (
    Part,
    find_parts,
    keypoint_numbers,
    read_names,
    read_yaml,
    says_unlabelled,
    yaml_file,
)
from curator.errors import FormatError
from store.records import NewAnnotation

_PLACES = """\
# Exported by curator.
train: images/train
# No validation images are exported: put your own folder here. Scores on the training images say little.
val: images/train
"""


class YoloFormat:
    """Reads and writes YOLO data sets; writes `data.yaml`, `images/train/` and `labels/train/`."""

    takes: ClassVar[tuple[str, ...]] = ("background",)
    reads: ClassVar[tuple[str, ...]] = (".yaml", ".yml", ".txt")

    def __init__(self, *, background: bool | None = None) -> None:
        """Make a reader and writer.

        Args:
            background: do images without a label file hold no objects? None: the data set tells.
        """
        self.background = background

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open `data.yaml`, or a folder.

        Args:
            images: read the images here instead of where data.yaml says; labels are looked for where "images"
                in the path reads "labels", else beside the images.
            classes: names by class id, where there is no data.yaml or instead of its names.
            split: "train", "val" (or "valid"), "test"; None reads all.
        Raises:
            FormatError: no data set there, unusable yaml, no class names, an unknown split, no image.
        """
        file = yaml_file(path, wanted=not classes)
        table = read_yaml(file) if file else {}
        if classes:
            names, notes = class_names(dict(enumerate(classes)), "--classes")
        else:
            names, notes = read_names(table, file or path)
        rows = Rows(names, keypoint_numbers(table, file) if file else 0)
        folder = path if path.is_dir() else path.parent
        parts, missing = find_parts(table, folder, images, split)
        finder = ImageFinder(folder)
        survey = _survey(parts, finder)
        if not sum(survey.images.values()):
            raise FormatError(nothing_readable(folder, survey.passed_over))
        decided = self.background
        if decided is None and says_unlabelled(table):
            decided = False
        background, reasons = _background(survey, decided)
        listed = tuple(dict.fromkeys(names[number] for number in sorted(names)))
        return Source(
            categories=listed,
            listed=listed,
            items=_items(parts, finder, rows, background, pre_annotated(folder)),
            count=sum(survey.images.values()),
            notes=(*notes, *missing, *reasons, *passed_over_notes(survey.passed_over)),
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `images/train/`, `labels/train/`, `data.yaml`, `pre_annotations.txt` where needed."""
        index, writer, waiting = index_of(categories), Writer(out), []
        for item in items:
            yield writer.image("images/train", item)
            lines = [
                _line(annotation, lookup(index, annotation.category), item.width, item.height)
                for annotation in item.annotations
                if not annotation.crowd
            ]
            yield writer.file(f"labels/train/{item.name}.txt", "".join(lines).encode())
            if item.pre_annotated:
                waiting.append(f"images/train/{item.name}{item.suffix}\n")
        if waiting:
            yield writer.file(PRE_ANNOTATIONS, "".join(waiting).encode())
        table = {"nc": len(categories), "names": dict(enumerate(categories))}
        text = _PLACES + yaml.safe_dump(table, sort_keys=False, allow_unicode=True)
        yield writer.file("data.yaml", text.encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """Class and box of each object; no crowd regions."""
        return tuple(
            rounded(NewAnnotation(category=a.category, box=a.box)) for a in annotations if not a.crowd
        )


@dataclass(frozen=True, slots=True)
class _Survey:
    """What lies in the splits: images and label files by split, other files by suffix.

    Attributes:
        expected: by split, where the label file of its first image without one should be.
    """

    images: Counter[str | None]
    labels: Counter[str | None]
    passed_over: Counter[str]
    expected: dict[str | None, Path]


def _survey(parts: Sequence[Part], finder: ImageFinder) -> _Survey:
    """Look at every image once before the first is read: nothing but counts is kept."""
    survey = _Survey(Counter(), Counter(), Counter(), {})
    for part in parts:
        for found in _images(part, finder, survey.passed_over):
            survey.images[part.split] += 1
            if isinstance(found, Broken) or label_file(found) is not None:
                survey.labels[part.split] += 1
            else:
                survey.expected.setdefault(part.split, expected_label(found))
    return survey


def _background(survey: _Survey, decided: bool | None) -> tuple[set[str | None], tuple[str, ...]]:
    """The splits whose images without label file hold no objects, and notes that say so."""
    splits, notes = set(), []
    for split, count in survey.images.items():
        missing = count - survey.labels[split]
        taken = survey.labels[split] > missing if decided is None else decided
        if taken:
            splits.add(split)
        if missing and decided is None:
            what = (
                "taken as images without objects (--unlabelled leaves them without labels)"
                if taken
                else "left without labels (--background takes them as images without objects)"
            )
            where = f"{split}: " if split else ""
            notes.append(
                f"{where}{missing} of {count} images have no label file, such as "
                f"{survey.expected[split]}; {what}"
            )
    return splits, tuple(notes)


def _items(
    parts: Sequence[Part],
    finder: ImageFinder,
    rows: Rows,
    background: set[str | None],
    waiting: frozenset[str],
) -> Iterator[LabelledImage | Broken]:
    for part in parts:
        for found in _images(part, finder):
            if isinstance(found, Broken):
                yield found
                continue
            name = found.relative_to(
                finder.folder if found.is_relative_to(finder.folder) else part.root
            ).as_posix()
            item = LabelledImage(
                path=found,
                name=name,
                relative=True,
                split=part.split,
                status="pre-annotation" if name in waiting else "human",
            )
            label = label_file(found)
            try:
                if label is not None:
                    yield read_labels(item, label, rows)
                else:
                    yield replace(item, annotations=()) if part.split in background else item
            except FormatError as error:
                yield Broken(name=name, reason=str(error))


def _images(
    part: Part, finder: ImageFinder, passed_over: Counter[str] | None = None
) -> Iterator[Path | Broken]:
    if part.place.is_dir():
        yield from image_files(part.place, passed_over)
        return
    # Names that are no UTF-8 text still name their files.
    with part.place.open(encoding="utf-8-sig", errors="surrogateescape") as handle:
        for line in handle:
            if name := line.strip():
                yield _listed(name, part, finder)


def _listed(name: str, part: Part, finder: ImageFinder) -> Path | Broken:
    """The image that a line of a list file names.

    The trainers count "./a.jpg" from the list file, other relative names from where they are started; this is
    the data set's root or the folder of data.yaml, so both are tried, and what is there counts. A name of
    another machine is found by its tail.
    """
    folder = finder.folder
    bases = [part.place.parent, part.root, folder]
    if not name.startswith(("./", ".\\")):
        bases = [part.root, folder, part.place.parent]
    found: Path | None = None
    for base in dict.fromkeys(bases):
        try:
            path = inside(folder, str(base / name))
        except FormatError:
            continue
        if path.is_file():
            return path
        found = found or path
    try:
        return finder.by_tail(name) or found or inside(folder, name)
    except FormatError as error:
        return Broken(name=name, reason=str(error))


def _line(annotation: NewAnnotation, number: int, width: int, height: int) -> str:
    """One label line; repr keeps the digits that bring the same `DIGITS` decimals of a pixel back."""
    x1, y1, x2, y2 = (round(float(value), DIGITS) for value in annotation.box)
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(number), *(format(value, ".12f") for value in values)]) + "\n"
