"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curator.data.formats.base import OutputImage
from store.images import encode_png
from store.records import NewAnnotation


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Write an image file of a flat colour; returns its path."""

    def make(name: str, size: tuple[int, int] = (40, 30), colour: int = 90) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (colour, 20, 30)).save(path)
        return path

    return make


@pytest.fixture
def output() -> Callable[..., OutputImage]:
    """Make an `OutputImage` of 40 x 30 pixels."""

    def make(name: str, annotations: Sequence[NewAnnotation] = (), **changes: Any) -> OutputImage:
        data = encode_png(np.full((30, 40, 3), 7, np.uint8))
        values = {
            "name": name,
            "data": data,
            "suffix": ".png",
            "width": 40,
            "height": 30,
            "annotations": tuple(annotations),
            "lineage": {"role": "train"},
            **changes,
        }
        return OutputImage(**values)

    return make
