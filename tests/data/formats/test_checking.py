"""What every format checks of its objects: a broken box is dropped alone, a repeat is one object."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.data.formats.checking import (
    Dropped,
    ObjectError,
    checked_box,
    checked_objects,
    class_names,
    finite,
)
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

SIZE = (160, 120)


def objects(*boxes: BoxTuple, category: str = "crate") -> list[NewAnnotation]:
    return [NewAnnotation(category=category, box=box) for box in boxes]


@pytest.mark.parametrize(
    ("values", "incomplete"),
    [
        ((0, 0, 0, 5), False),
        ((3, 3, 3, 3), False),
        ((-9, 500, 4, 500), False),
        ((5, 0, 1, 4), True),
        ((0, 4, 1, 0), True),
        ((0, 0, float("nan"), 4), True),
        ((0, 0, float("inf"), 4), True),
        ((0, 0, 4), True),
        ((0, 0, 4, 4, 4), True),
        (("a", 0, 4, 4), True),
        ((None, 0, 4, 4), True),
        ((True, 0, 4, 4), True),
        (("nan", 0, 4, 4), True),
        ((10**400, 0, 4, 4), True),
    ],
)
def test_unusable_boxes(values: tuple[object, ...], incomplete: bool) -> None:
    """A box without area holds no pixel; of the others nobody knows where the object is."""
    with pytest.raises(ObjectError) as found:
        checked_box(values)
    assert found.value.incomplete is incomplete
    dropped = Dropped()
    dropped.add("row 3", found.value)
    facts = dropped.facts()
    assert facts["incomplete"] is incomplete
    assert facts["problems"] == (f"row 3: {found.value}; dropped",)


def test_numbers_may_be_written_as_text() -> None:
    assert finite(["20", " 30.5 ", 4, "1e2"]) == (20, 30.5, 4, 100)
    assert checked_box(["20", "30", "60", "80"]) == (20, 30, 60, 80)


def test_a_box_outside_goes_alone_and_a_hair_is_no_news() -> None:
    """Case 15: two boxes are clipped with a note, one is dropped and named, one leaves by 1e-7 pixels."""
    checked = checked_objects(
        objects((-10, 10, 30, 40), (140, 100, 180, 140), (200, 200, 220, 220), (60, 60, 160.0000001, 80)),
        SIZE,
    )
    assert [a.box for a in checked.kept] == [(0, 10, 30, 40), (140, 100, 160, 120), (60, 60, 160, 80)]
    assert [note.rsplit("; ", 1)[1] for note in checked.notes] == ["clipped", "clipped"]
    (problem,) = checked.problems
    assert problem.startswith("crate: box (200, 200, 220, 220) lies outside the 160 x 120 image")
    assert problem.endswith("; dropped")


@pytest.mark.parametrize(
    "box",
    [
        (-20, 30, 0, 80),
        (160, 30, 170, 80),
        (20, -9, 60, 0),
        (20, 120, 60, 121),
        (159.9999999, 0, 170, 9),
        (10, 10, 10.0000001, 20),
    ],
)
def test_touching_from_outside_or_a_sliver_holds_no_pixel(box: BoxTuple) -> None:
    checked = checked_objects(objects(box, (1, 2, 3, 4)), SIZE)
    assert [a.box for a in checked.kept] == [(1, 2, 3, 4)]
    assert len(checked.problems) == 1
    assert not checked.notes


def test_an_object_listed_again_is_one_object_with_a_note() -> None:
    """Case 34: a twin can never be found, so it would count as a miss."""
    box = (20.0, 30.0, 60.0, 80.0)
    twins = [
        *objects(box, (1, 1, 9, 9), box, (20.0000000001, 30, 60, 80)),
        *objects(box, category="pallet"),
        NewAnnotation(category="crate", box=box, crowd=True),
    ]
    checked = checked_objects(twins, SIZE)
    assert [(a.category, a.box, a.crowd) for a in checked.kept] == [
        ("crate", box, False),
        ("crate", (1, 1, 9, 9), False),
        ("pallet", box, False),
        ("crate", box, True),
    ]
    assert checked.notes == ("crate: box (20, 30, 60, 80) is listed 3 times; one object is kept",)
    assert not checked.problems


def test_boxes_that_clipping_makes_equal_are_one_too() -> None:
    checked = checked_objects(objects((-5, 10, 30, 40), (-9, 10, 30, 40)), SIZE)
    assert [a.box for a in checked.kept] == [(0, 10, 30, 40)]
    assert len(checked.notes) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-50, 250)] * 4), max_size=6))
def test_every_box_is_kept_or_named_and_checking_again_changes_nothing(boxes: list[BoxTuple]) -> None:
    checked = checked_objects(objects(*boxes), SIZE)
    times = [note.split(" times")[0].rsplit(" ", 1)[1] for note in checked.notes if "times" in note]
    repeats = sum(int(count) - 1 for count in times)
    assert len(checked.kept) + len(checked.problems) + repeats == len(boxes)
    for annotation in checked.kept:
        x1, y1, x2, y2 = annotation.box
        assert 0 <= x1 < x2 <= SIZE[0]
        assert 0 <= y1 < y2 <= SIZE[1]
    again = checked_objects(checked.kept, SIZE)
    assert (again.kept, again.problems, again.notes) == (checked.kept, (), ())


def test_class_names_lose_their_edge_blanks_and_equal_ones_are_one_class() -> None:
    """Case 92."""
    names, notes = class_names({1: "crate", 2: "crate ", 3: "\u00a0lamp post\n", 4: "\ufeffbus"}, "x.json")
    assert names == {1: "crate", 2: "crate", 3: "lamp post", 4: "bus"}
    assert notes == (
        "class 'crate ' is read as 'crate'",
        "class '\\xa0lamp post\\n' is read as 'lamp post'",
        "class '\\ufeffbus' is read as 'bus'",
        "the classes 1, 2 are one class, 'crate'",
    )
    assert class_names({0: "a", 1: "b"}, "x") == ({0: "a", 1: "b"}, ())


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u200b"])
def test_a_class_needs_a_name(name: str) -> None:
    with pytest.raises(FormatError, match="class 5 has no name"):
        class_names({5: name}, "x.json")
