"""Relatives of the cases of ../shared/cases in COCO files: what other tools write is read, clashes named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.coco import CocoFormat
from curator.data.formats.placement import place
from curator.errors import FormatError
from store.records import NewAnnotation
from tests.data.formats.coco_files import one, read

SIZE = (40, 30)
CATEGORIES = [{"id": 1, "name": "crate"}, {"id": 2, "name": "pallet"}]
BOX = (4.0, 6.0, 14.0, 16.0)


def image(number: Any, name: str = "a.png", **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1], **fields}


def box(**fields: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": 1, "bbox": [4, 6, 10, 10], **fields}


def write(folder: Path, **tables: Any) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": [image(1)], "annotations": [], "categories": CATEGORIES, **tables}))
    return path


def by_name(path: Path, **options: Any) -> dict[str, LabelledImage]:
    items = {}
    for item in read(path, **options):
        assert isinstance(item, LabelledImage), item
        items[item.path.name] = item
    return items


def objects(item: LabelledImage) -> list[tuple[str, tuple[float, ...]]]:
    return [(a.category, a.box) for a in item.annotations or ()]


@pytest.fixture
def pictures(picture: Callable[..., Path], tmp_path: Path) -> Path:
    """Four pictures in images/; returns the data set's folder."""
    for number, name in enumerate("abcd"):
        picture(f"images/{name}.png", SIZE, 40 * number)
    return tmp_path


# ---------------------------------------------------------------- case 07: names of another machine


@pytest.mark.parametrize(
    "name",
    [
        "images\\b.png",
        "..\\..\\tool\\media\\upload\\4\\b.png",
        "D:\\work\\set1\\images\\b.png",
        "\\\\server\\share\\b.png",
        "/home/ann/set1/images/b.png",
        "../../b.png",
        "set1/images/b.png",
        "http://localhost:8080/data/upload/4/b.png",
        "/data/local-files/?d=set1%2Fimages%2Fb.png",
        "b.png",
    ],
)
@pytest.mark.parametrize("options", [{}, {"images": "images"}])
def test_images_are_found_by_the_tail_of_their_names(
    pictures: Path, name: str, options: dict[str, str]
) -> None:
    """With and without --images, and where no name at all leads to a file as it stands."""
    path = write(pictures, images=[image(1, name)], annotations=[box()])
    item = one(path, **{key: pictures / value for key, value in options.items()})
    assert item.path == pictures / "images/b.png"
    assert objects(item) == [("crate", BOX)]


def test_annotations_in_a_folder_of_their_own(pictures: Path) -> None:
    (pictures / "annotations").mkdir()
    path = write(pictures / "annotations", images=[image(1, "D:\\set\\images\\c.png")])
    assert one(path).path == pictures / "images/c.png"


@pytest.mark.parametrize("given", [None, "", "000000000009.jpg"])
@pytest.mark.parametrize("key", ["coco_url", "path", "flickr_url"])
def test_the_address_of_an_image_names_it_too(pictures: Path, given: str | None, key: str) -> None:
    path = write(pictures, images=[image(1, given, **{key: "http://images.example.org/val2017/d.png"})])  # type: ignore[arg-type]
    assert one(path).path == pictures / "images/d.png"


def test_a_tail_never_takes_an_image_that_another_record_names(pictures: Path) -> None:
    """"D:\\b\\a.png" is missing here: its labels are not those of a.png."""
    path = write(
        pictures,
        images=[image(1, "D:\\b\\a.png"), image(2, "images/a.png")],
        annotations=[box(), box(image_id=2, category_id=2)],
    )
    found = {item.name: item for item in read(path) if isinstance(item, LabelledImage)}
    assert objects(found["images/a.png"]) == [("pallet", BOX)]
    assert not found["D:\\b\\a.png"].path.exists()


def test_two_names_with_one_tail_leave_the_image_without_labels(pictures: Path) -> None:
    path = write(
        pictures,
        images=[image(1, "D:\\one\\a.png"), image(2, "D:\\two\\a.png")],
        annotations=[box(), box(image_id=2, category_id=2)],
    )
    item = one(path)
    assert (item.annotations, item.incomplete) == ((), True)
    assert "listed under the ids 1, 2 with different labels" in item.problems[0]


def test_what_no_tail_finds_is_named_with_advice(pictures: Path) -> None:
    (broken,) = read(write(pictures, images=[image(1, "..\\..\\up\\none.png")]))
    assert isinstance(broken, Broken)
    assert "outside the images folder" in broken.reason
    assert "--images" in broken.reason


# ---------------------------------------------------------------- case 97: ids that occur twice


def test_glued_files_leave_what_clashes_without_labels_and_the_rest_alone(pictures: Path) -> None:
    path = write(
        pictures,
        images=[image(1, "a.png"), image(2, "b.png"), image(1, "c.png"), image(3, "d.png")],
        annotations=[box(), box(image_id=2), box(category_id=2), box(image_id=3, category_id=2)],
    )
    found = by_name(path)
    assert {name: (len(item.annotations or ()), item.incomplete) for name, item in found.items()} == {
        "a.png": (0, True),
        "b.png": (1, False),
        "c.png": (0, True),
        "d.png": (1, False),
    }
    assert "its id 1 is given to c.png too" in found["a.png"].problems[0]
    assert "its id 1 is given to a.png too" in found["c.png"].problems[0]
    assert objects(found["d.png"]) == [("pallet", BOX)]


@pytest.mark.parametrize("other", ["1", 1.0, " 1"])
def test_ids_are_compared_as_numbers(pictures: Path, other: Any) -> None:
    path = write(pictures, images=[image(1, "a.png"), image(other, "b.png")], annotations=[box()])
    assert all(item.incomplete for item in by_name(path).values())
    path = write(pictures, images=[image(other, "b.png")], annotations=[box()])
    assert objects(one(path)) == [("crate", BOX)]


@pytest.mark.parametrize("second", ["missing.png", "../../x.png", None])
def test_an_image_that_cannot_be_read_still_tells_that_the_id_clashes(
    pictures: Path, second: str | None
) -> None:
    images = [image(1, "a.png"), {**image(1), "file_name": second}]
    path = write(pictures, images=images, annotations=[box()])
    (item,) = [i for i in read(path) if isinstance(i, LabelledImage) and i.path.name == "a.png"]
    assert (item.annotations, item.incomplete) == ((), True)


def test_a_record_that_is_repeated_as_it_is_does_no_harm(pictures: Path) -> None:
    """A file glued to itself: each object is there twice, and is one."""
    item = one(write(pictures, images=[image(1), image(1)], annotations=[box(), box()]))
    assert not item.problems
    assert [a.box for a in place(item, SIZE).annotations or ()] == [BOX]


@pytest.mark.parametrize(("second", "labelled"), [(box(image_id=2, id=6), True), (None, False)])
def test_one_file_under_two_ids(pictures: Path, second: dict[str, Any] | None, labelled: bool) -> None:
    """With the same labels it is one image; else nobody knows which are right."""
    annotations = [box()] + ([second] if second else [])
    item = one(write(pictures, images=[image(1), image(2)], annotations=annotations))
    assert (bool(item.annotations), item.incomplete) == (labelled, not labelled)
    assert "listed under the ids 1, 2 with" in "".join((*item.notes, *item.problems))


def test_annotation_ids_may_repeat(pictures: Path) -> None:
    """Nothing refers to them: each annotation names its image. They are said all the same."""
    annotations = [box(image_id=n, category_id=n) for n in (1, 2)]
    path = write(pictures, images=[image(1, "a.png"), image(2, "b.png")], annotations=annotations)
    found = by_name(path)
    assert objects(found["a.png"]) == [("crate", BOX)]
    assert objects(found["b.png"]) == [("pallet", BOX)]
    (note,) = CocoFormat().open(path).notes
    assert note.startswith("1 annotation ids occur more than once (5)")
    path = write(pictures, images=[image(1, "a.png"), image(1, "b.png")], annotations=[box(), box()])
    assert CocoFormat().open(path).notes == ()  # these labels are named and left out


def test_a_category_id_of_two_classes_makes_its_objects_unusable(pictures: Path) -> None:
    categories = [{"id": 1, "name": "crate"}, {"id": 1, "name": "pallet"}, {"id": 2, "name": "fork"}]
    path = write(pictures, annotations=[box(), box(category_id=2)], categories=categories)
    item = one(path)
    assert objects(item) == [("fork", BOX)]
    assert "category_id 1 is given to 'crate' and 'pallet'" in item.problems[0]
    assert item.incomplete
    assert not one(path, classes=["fork"]).problems


# ---------------------------------------------------------------- cases 15, 34: broken and repeated objects


def test_only_the_box_outside_is_lost(pictures: Path) -> None:
    boxes = [[-10, 10, 20, 10], [50, 50, 5, 5], [4, 6, 36.0000001, 10], [4, 6, 0, 10]]
    item = place(one(write(pictures, annotations=[box(id=n, bbox=b) for n, b in enumerate(boxes)])), SIZE)
    assert [a.box for a in item.annotations or ()] == [(0, 10, 10, 20), (4, 6, 40, 16)]
    assert len(item.problems) == 2
    assert len(item.notes) == 1
    assert not item.incomplete


def test_an_object_listed_twice_is_one(pictures: Path) -> None:
    """Under other ids and with other facts, the first one counts; another class is another object."""
    twice = [box(), box(id=6, area=1, attributes={"n": 2}), box(id=7, category_id=2), box(id=8, iscrowd=1)]
    item = place(one(write(pictures, annotations=twice)), SIZE)
    assert [(a.category, a.crowd) for a in item.annotations or ()] == [
        ("crate", False),
        ("pallet", False),
        ("crate", True),
    ]
    assert item.notes == ("crate: box (4, 6, 14, 16) is listed 2 times; one object is kept",)


# ---------------------------------------------------------------- case 92: blanks round class names


def test_blanks_round_class_names(pictures: Path) -> None:
    categories = [{"id": 1, "name": "crate"}, {"id": 2, "name": " crate\t"}, {"id": 3, "name": 7}]
    annotations = [box(), box(category_id=2, bbox=[5, 6, 10, 10]), box(category_id=3)]
    source = CocoFormat().open(write(pictures, annotations=annotations, categories=categories))
    assert source.categories == ("crate", "7")
    assert source.notes[:2] == (
        "class ' crate\\t' is read as 'crate'",
        "the classes '1', '2' are one class, 'crate'",
    )
    (item,) = source.items
    assert isinstance(item, LabelledImage)
    assert [a.category for a in item.annotations or ()] == ["crate", "crate", "7"]


@pytest.mark.parametrize("name", [" ", "", None, True])
def test_a_class_without_a_name_is_refused(pictures: Path, name: Any) -> None:
    with pytest.raises(FormatError, match="categories: expected an id and a name"):
        read(write(pictures, categories=[{"id": 1, "name": name}]))


# ---------------------------------------------------------------- case 100: numbers as text


@pytest.mark.parametrize("flag", ["0", "1", "false", "True", "", 0, 1, True])
def test_numbers_and_flags_written_as_text(pictures: Path, flag: Any) -> None:
    item = one(
        write(
            pictures,
            images=[{"id": "1", "file_name": "a.png", "width": "40", "height": " 30.0"}],
            annotations=[
                box(
                    image_id="1",
                    category_id=" 1",
                    bbox=["4", "6.0", "1e1", 10],
                    iscrowd=flag,
                    score="0.5",
                    segmentation=[["4", "6", "14", "6", "14", "16"]],
                )
            ],
            categories=[{"id": 1.0, "name": "crate"}],
        )
    )
    assert item.declared_size == SIZE
    (found,) = item.annotations or ()
    assert found == NewAnnotation(
        category="crate",
        box=BOX,
        crowd=flag in ("1", "True", 1, True),
        polygon=((4, 6, 14, 6, 14, 16),),
        attributes={"score": 0.5},
    )


@pytest.mark.parametrize("value", ["forty", "NaN", "-40", "40.5", "1e400", True])
def test_a_size_that_is_no_number_is_named(pictures: Path, value: Any) -> None:
    (broken,) = read(write(pictures, images=[image(1, width=value)]))
    assert isinstance(broken, Broken)
    assert "expected a whole width and height above 0" in broken.reason


# ---------------------------------------------------------------- broken JSON, NaN, large ids


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_costs_its_image_and_not_the_file(pictures: Path, literal: str) -> None:
    path = write(
        pictures,
        images=[image(1, "a.png", note="a NaN in a text"), image(2, "b.png")],
        annotations=[box(bbox=[1, 2, "@", 4]), box(id=6, image_id=2, area=0.5)],
    )
    path.write_text(path.read_text().replace('"@"', literal))
    found = by_name(path)
    assert found["a.png"].incomplete
    assert "expected finite numbers" in found["a.png"].problems[0]
    assert objects(found["b.png"]) == [("crate", BOX)]


def test_large_ids_are_told_apart(pictures: Path) -> None:
    """2**53 and 2**53 + 1 are one float, and 2**80 is more than the parser's own whole numbers hold."""
    large = (2**53, 2**53 + 1, 2**80)
    path = write(
        pictures,
        images=[image(number, f"{name}.png") for number, name in zip(large, "abc", strict=True)],
        annotations=[box(id=n, image_id=number, bbox=[n, 1, 5, 5]) for n, number in enumerate(large)],
    )
    assert {name: objects(item)[0][1][0] for name, item in by_name(path).items()} == {
        "a.png": 0,
        "b.png": 1,
        "c.png": 2,
    }


def test_broken_json_is_one_line_that_says_where(pictures: Path) -> None:
    path = write(pictures, annotations=[box()])
    path.write_text(path.read_text().replace('"category_id":', '"category_id"'))
    with pytest.raises(FormatError, match=r"expected valid JSON, got .* near byte \d+ \(.*colon") as found:
        read(path)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)
