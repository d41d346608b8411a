"""What a training sees: labelled images, how often each is drawn, and the settings that all arms share.

In: images by file or by their own bytes, labels as detector classes. Out: `TrainingFiles`, from which a
trainer decodes on demand, or writes the data set that another program trains on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import ExifTags, Image

from curator.data.formats.base import Format, OutputImage
from curator.data.formats.checking import class_names
from curator.prove.trainers.fine_tune import Example
from curator.registry import FORMATS
from store.images import encode_png, read_bytes, read_bytes_as_pixels, read_pixels
from store.keys import content_key
from store.records import BoxTuple, NewAnnotation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImage:
    """A labelled image, by file or by its own bytes (a sample); labels are detector classes."""

    sha256: str
    uri: str = ""
    data: bytes = b""
    boxes: tuple[BoxTuple, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """What every arm's training has in common.

    Attributes:
        added_weight: how often an added image is drawn relative to an original.
        weight_decay, flip, zoom, batch_norm: of `FineTuneConfig`; other trainers have their own.
    """

    steps: int
    batch_size: int
    learning_rate: float
    added_weight: float
    precision: Literal["auto", "fp32", "bf16"]
    weight_decay: float = 0.0005
    flip: bool = True
    zoom: float = 0.15
    batch_norm: Literal["frozen", "train"] = "frozen"


class TrainingFiles:
    """A `fine_tune.TrainingSet` over originals and added images; decodes on demand."""

    def __init__(
        self, originals: Sequence[TrainingImage], added: Sequence[TrainingImage], added_weight: float
    ) -> None:
        self._images = [*originals, *added]
        self.weights: Sequence[float] = [1.0] * len(originals) + [added_weight] * len(added)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        image = self._images[index]
        pixels = (
            read_bytes_as_pixels(image.data) if image.data else read_pixels(image.uri, sha256=image.sha256)
        )
        return Example(
            pixels=pixels,
            boxes=np.array(image.boxes, np.float32).reshape(-1, 4),
            labels=np.array(image.labels, np.int64),
        )

    def output(self, index: int, classes: Sequence[str]) -> list[OutputImage]:
        """An image as a file of a data set, as often as its weight says: the nearest whole number, at least
        once. Files that hold an orientation are turned upright, since not every trainer does.

        Args:
            classes: names of the detector's classes.
        """
        image = self._images[index]
        data = image.data or read_bytes(image.uri, sha256=image.sha256)
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        suffix = ".png" if image.data or turned else (Path(image.uri).suffix.lower() or ".jpg")
        if turned:
            pixels = read_bytes_as_pixels(data)
            data, (height, width) = encode_png(pixels), pixels.shape[:2]
        labels = tuple(
            NewAnnotation(category=classes[label], box=box)
            for box, label in zip(image.boxes, image.labels, strict=True)
        )
        return [
            OutputImage(
                name=f"{image.sha256[:16]}-{index:06d}" + (f"-{copy}" if copy else ""),
                data=data,
                suffix=suffix,
                width=width,
                height=height,
                annotations=labels,
                lineage={},
            )
            for copy in range(max(1, round(self.weights[index])))
        ]


def digest(images: Sequence[TrainingImage]) -> str:
    """Content key of labelled images."""
    return content_key([(i.sha256, i.boxes, i.labels) for i in images])


def write_dataset(
    folder: Path, files: TrainingFiles, classes: Sequence[str], format: str
) -> tuple[Path, int]:
    """Write a data set for another program.

    Args:
        format: one of `curator.registry.FORMATS` that writes.
    Returns:
        what the program is given (yolo: data.yaml, whose `val` are the training images, as the format writes
        it or as is added where it names none, so that no other image is looked at; else the folder), and the
        number of image files.
    Raises:
        InputError: two class names that the format cannot tell apart.
    """
    names, _ = class_names({name: name for name in classes}, "the detector")
    form: Format = FORMATS.load(format)()
    folder.mkdir(parents=True)
    outputs = (
        replace(image, annotations=tuple(replace(a, category=names[a.category]) for a in image.annotations))
        for index in range(len(files))
        for image in files.output(index, classes)
    )
    count = 0

    def counted() -> Iterator[OutputImage]:
        nonlocal count
        for image in outputs:
            count += 1
            yield image

    for _entry in form.write(folder, list(dict.fromkeys(names.values())), counted()):
        pass
    file = folder / "data.yaml"
    if not file.is_file():
        return folder, count
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    table = yaml.safe_load(text)
    if isinstance(table, dict) and "train" in table and "val" not in table:  # a format of a plug-in
        lines.append(f"val: {json.dumps(table['train'])}")
    path = f"path: {json.dumps(str(folder.absolute()))}"
    file.write_text("\n".join([path, *lines, ""]), encoding="utf-8")
    return file, count
