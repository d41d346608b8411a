"""Reading COCO files in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.coco import CocoFormat


def read(path: Path, **options: Any) -> list[LabelledImage | Broken]:
    """All items of a file."""
    return list(CocoFormat().open(path, **options).items)


def one(path: Path, **options: Any) -> LabelledImage:
    """The only image of a file."""
    (item,) = read(path, **options)
    assert isinstance(item, LabelledImage), item
    return item
