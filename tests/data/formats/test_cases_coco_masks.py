"""Relatives of case 05: a COCO mask, of run lengths or polygons, gives the box that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hotcoco.mask import encode, to_bbox

from curator.data.formats.base import LabelledImage
from curator.data.formats.coco import CocoFormat

SIZE = (40, 30)
BOX = (4.0, 6.0, 14.0, 16.0)
Reader = Callable[..., LabelledImage]


def box(**fields: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": 1, "bbox": [4, 6, 10, 10], **fields}


@pytest.fixture
def read(picture: Callable[..., Path], tmp_path: Path) -> Reader:
    """Write annotations of one picture, and read them."""
    picture("a.png", SIZE)

    def run(*annotations: dict[str, Any]) -> LabelledImage:
        table = {
            "images": [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "crate"}, {"id": 2, "name": "pallet"}],
        }
        (tmp_path / "labels.json").write_text(json.dumps(table))
        (item,) = CocoFormat().open(tmp_path / "labels.json").items
        assert isinstance(item, LabelledImage), item
        return item

    return run


def objects(item: LabelledImage) -> list[tuple[str, tuple[float, ...]]]:
    return [(a.category, a.box) for a in item.annotations or ()]


def run_lengths(mask: np.ndarray[Any, Any]) -> list[int]:
    """Column by column from the left top, background first."""
    flat = mask.flatten(order="F")
    ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]
    counts = [int(b - a) for a, b in pairwise(ends)]
    return [0, *counts] if flat[0] else counts


def rectangle() -> np.ndarray[Any, Any]:
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[6:16, 4:14] = 1
    return mask


@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}, {"bbox": [0, 0, 0, 0]}])
@pytest.mark.parametrize("kind", ["list", "texts", "compressed"])
def test_the_box_of_a_run_length_mask(read: Reader, kind: str, bbox: dict[str, Any]) -> None:
    mask = rectangle()
    counts: Any = run_lengths(mask)
    if kind == "texts":
        counts = [str(count) for count in counts]
    if kind == "compressed":
        counts = encode(np.asfortranarray(mask))["counts"].decode()
    given = box(segmentation={"counts": counts, "size": [SIZE[1], SIZE[0]]})
    del given["bbox"]
    item = read({**given, **bbox})
    assert (objects(item), item.problems, item.incomplete) == ([("crate", BOX)], (), False)


def test_boxes_of_random_masks_are_those_of_the_pixels(read: Reader) -> None:
    generator = np.random.default_rng(0)
    given, expected = [], []
    for number in range(30):
        mask = (generator.random((SIZE[1], SIZE[0])) < generator.choice([0.002, 0.05, 0.9])).astype(np.uint8)
        mask[generator.integers(SIZE[1]), generator.integers(SIZE[0])] = 1
        rows, columns = np.nonzero(mask)
        corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        x, y, width, height = to_bbox(encode(np.asfortranarray(mask)))
        assert (x, y, x + width, y + height) == corners
        expected.append(tuple(map(float, corners)))
        given.append(box(id=number, bbox=None, segmentation={"counts": run_lengths(mask), "size": [30, 40]}))
    assert [found for _, found in objects(read(*given))] == expected


@pytest.mark.parametrize(
    ("mask", "reason", "incomplete"),
    [
        ({"counts": [1200], "size": [30, 40]}, "no area", False),
        ({"counts": [0, 1201], "size": [30, 40]}, "unusable", True),
        ({"counts": [3, -4], "size": [30, 40]}, "unusable", True),
        ({"counts": ["x"], "size": [30, 40]}, "unusable", True),
        ({"counts": "\u1234zz", "size": [30, 40]}, "unusable", True),
        ({"counts": None, "size": [30, 40]}, "unusable", True),
        ({"counts": [3, 4]}, "unusable", True),
        ({"counts": [3, 4, 93], "size": [10, 10]}, "mask is of 10 x 10 pixels, the image of 40 x 30", True),
    ],
)
def test_a_broken_mask_without_a_box_is_named(
    read: Reader, mask: dict[str, Any], reason: str, incomplete: bool
) -> None:
    item = read(box(bbox=None, segmentation=mask), box(id=6, category_id=2))
    assert objects(item) == [("pallet", BOX)]
    assert len(item.problems) == 1
    assert reason in item.problems[0]
    assert item.incomplete is incomplete


def test_a_box_stands_whatever_its_mask_holds(read: Reader) -> None:
    broken = {"counts": "\u1234", "size": [1, 1]}
    assert objects(read(box(segmentation=broken))) == [("crate", BOX)]


RING = [4, 6, 14, 6, 14, 16]


@pytest.mark.parametrize("rings", [[RING], RING, [str(value) for value in RING]])
def test_a_polygon_gives_the_box_that_has_no_area(read: Reader, rings: list[Any]) -> None:
    """Some tools write one ring without the list round it."""
    item = read(box(bbox=[0, 0, 0, 0], segmentation=rings))
    assert objects(item) == [("crate", BOX)]
    assert [a.polygon for a in item.annotations or ()] == [(tuple(RING),)]
