"""`write_dataset`: what another program is given of a format that names no validation images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curator.data.formats.base import OutputImage
from curator.data.formats.yolo import YoloFormat
from curator.prove.training_data import TrainingFiles, TrainingImage, write_dataset
from curator.registry import FORMATS
from store.images import encode_png


class Bare(YoloFormat):
    """A plug-in's format, whose data.yaml has no `val`."""

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        yield from super().write(out, categories, items)
        names = json.dumps(list(categories))
        (out / "data.yaml").write_text(f"# ours\ntrain: images/train\nnames: {names}\n")


@pytest.mark.parametrize("form", [YoloFormat, Bare])
def test_the_training_images_are_val_where_a_format_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: type[YoloFormat]
) -> None:
    monkeypatch.setattr(type(FORMATS), "load", lambda registry, name: form)
    data = encode_png(np.zeros((8, 8, 3), np.uint8))
    image = TrainingImage(sha256="a" * 64, data=data, boxes=((1, 1, 5, 5),), labels=(0,))
    file, count = write_dataset(tmp_path / "set", TrainingFiles([image], [], 1.0), ["car"], "yolo")
    assert count == 1
    table = yaml.safe_load(file.read_text())
    assert (table["path"], table["train"], table["val"]) == (str(tmp_path / "set"), *["images/train"] * 2)
    assert file.read_text().count("val:") == 1
