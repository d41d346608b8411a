"""Boxes reach stored-image pixels: EXIF orientation, relative coordinates, clipping."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from curator.data.formats.base import LabelledImage
from curator.data.formats.placement import place, upright
from curator.errors import FormatError
from store.records import NewAnnotation

WIDTH, HEIGHT = 12, 8


def item(
    *boxes: tuple[float, float, float, float],
    declared: tuple[int, int] | None = None,
    relative: bool = False,
    polygon: tuple[tuple[float, ...], ...] | None = None,
) -> LabelledImage:
    annotations = tuple(NewAnnotation(category="a", box=box, polygon=polygon) for box in boxes)
    return LabelledImage(
        path=Path("x.png"), name="x.png", declared_size=declared, annotations=annotations, relative=relative
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_turn_as_pillow_turns_pixels(orientation: int) -> None:
    """A painted box, turned by Pillow, lies where `upright` puts its corners."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[1:4, 2:9] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", exif=exif)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    rows, columns = np.nonzero(turned)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    turn = upright(orientation, WIDTH, HEIGHT)
    corners = [turn(2, 1), turn(9, 4)]
    found = (
        min(c[0] for c in corners),
        min(c[1] for c in corners),
        max(c[0] for c in corners),
        max(c[1] for c in corners),
    )
    assert found == expected


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_unrotated_size_are_turned(orientation: int) -> None:
    ring = (2.0, 1.0, 9.0, 1.0, 9.0, 4.0)
    placed = place(
        item((2, 1, 9, 4), declared=(WIDTH, HEIGHT), polygon=(ring,)), (HEIGHT, WIDTH), orientation
    )
    assert placed.annotations is not None
    (annotation,) = placed.annotations
    turn = upright(orientation, WIDTH, HEIGHT)
    xs, ys = zip(turn(2, 1), turn(9, 4), strict=True)
    assert annotation.box == (min(xs), min(ys), max(xs), max(ys))
    assert annotation.polygon == (tuple(v for x, y in ((2, 1), (9, 1), (9, 4)) for v in turn(x, y)),)
    assert placed.declared_size == (HEIGHT, WIDTH)


def test_boxes_of_the_upright_size_stay() -> None:
    placed = place(item((2, 1, 5, 4), declared=(HEIGHT, WIDTH)), (HEIGHT, WIDTH), 6)
    assert placed.annotations is not None
    assert placed.annotations[0].box == (2, 1, 5, 4)


@pytest.mark.parametrize(
    ("declared", "orientation"), [((WIDTH, HEIGHT), 1), ((WIDTH, HEIGHT), 3), ((7, 7), 6)]
)
def test_neither_size_is_broken(declared: tuple[int, int], orientation: int) -> None:
    with pytest.raises(FormatError, match=f"{declared[0]} x {declared[1]}"):
        place(item((2, 1, 5, 4), declared=declared), (HEIGHT, WIDTH), orientation)


def test_relative_boxes_scale_with_the_upright_image() -> None:
    placed = place(item((0.25, 0.5, 0.5, 1.0), relative=True), (WIDTH, HEIGHT), 6)
    assert placed.annotations is not None
    assert placed.annotations[0].box == (3, 4, 6, 8)
    assert not placed.relative


def test_clipping() -> None:
    inside, hair, over, outside = (1, 1, 2, 2), (-0.3, 0, 4, 4), (-3, -2, 4, 20), (12, 0, 15, 4)
    placed = place(item(inside, hair, over, outside), (WIDTH, HEIGHT))
    assert placed.annotations is not None
    assert [a.box for a in placed.annotations] == [(1, 1, 2, 2), (0, 0, 4, 4), (0, 0, 4, HEIGHT)]
    assert [problem.rsplit("; ", 1)[1] for problem in placed.problems] == ["dropped"]
    assert [note.rsplit("; ", 1)[1] for note in placed.notes] == ["clipped"]


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(-50, 50)] * 4))
def test_what_is_kept_lies_inside_and_placing_again_changes_nothing(
    box: tuple[float, float, float, float],
) -> None:
    placed = place(item(box), (WIDTH, HEIGHT))
    assert placed.annotations is not None
    assert len(placed.annotations) + len(placed.problems) == 1
    for annotation in placed.annotations:
        x1, y1, x2, y2 = annotation.box
        assert 0 <= x1 < x2 <= WIDTH
        assert 0 <= y1 < y2 <= HEIGHT
    again = place(placed, (WIDTH, HEIGHT))
    assert again.annotations == placed.annotations
