"""Written, then read back: the same images and labels, for every format."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.data.formats.base import Format, LabelledImage, OutputImage
from curator.data.formats.checking import rounded
from curator.data.formats.placement import place
from curator.errors import FormatError
from curator.registry import FORMATS
from store.records import NewAnnotation

SIZE = (40, 30)
NAMES = ("car", "lamp post", "größe & <b>")
FORMAT_NAMES = ["coco", "voc", "yolo", "cvat", "label-studio", "labelme", "ndjson"]

_scalar = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(min_codepoint=32, max_codepoint=400), min_size=1, max_size=6)
)
_name = st.from_regex(r"[a-z]{3,8}", fullmatch=True).filter(lambda name: name not in ("rle", "score"))


@st.composite
def labelled_object(draw: st.DrawFn) -> NewAnnotation:
    width, height = SIZE
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    x2, y2 = draw(st.floats(x1 + 0.01, width)), draw(st.floats(y1 + 0.01, height))
    ring = st.lists(st.floats(0, 30), min_size=6, max_size=8).filter(lambda values: len(values) % 2 == 0)
    polygon = draw(st.none() | st.lists(ring.map(tuple), min_size=1, max_size=2).map(tuple))
    return NewAnnotation(
        category=draw(st.sampled_from(NAMES)),
        box=(x1, y1, x2, y2),
        crowd=draw(st.booleans()),
        difficult=draw(st.booleans()),
        polygon=polygon,
        attributes=draw(st.dictionaries(_name, _scalar, max_size=2)),
    )


def place_of(annotation: NewAnnotation) -> tuple[object, ...]:
    """What makes two objects one: the export writes such an object once (tests/formats/test_checking.py)."""
    return annotation.category, annotation.crowd, rounded(annotation).box


def read(form: Format, out: Path) -> dict[str, LabelledImage]:
    items = {}
    for item in form.open(out).items:
        assert isinstance(item, LabelledImage), item
        assert not item.problems
        items[item.path.name] = place(item, SIZE)
    return items


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_read_gives_what_was_written(name: str, output: Callable[..., OutputImage]) -> None:
    form: Format = FORMATS.load(name)()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(labelled_object(), max_size=5, unique_by=place_of))
    def check(objects: list[NewAnnotation]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            entries = list(form.write(out, NAMES, [output("a", objects), output("b")]))
            items = read(form, out)
            assert items["a.png"].annotations == form.carried(objects)
            assert items["b.png"].annotations == ()
            written = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
            assert {entry["path"] for entry in entries} == written
            for entry in entries:
                assert hashlib.sha256((out / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]

    check()


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_second_trip_changes_nothing(name: str, output: Callable[..., OutputImage], tmp_path: Path) -> None:
    form: Format = FORMATS.load(name)()
    objects = [
        NewAnnotation(category="car", box=(0.1, 1 / 3, 38.123456789, 29.9), attributes={"score": 0.25})
    ]
    list(form.write(tmp_path / "one", NAMES, [output("a", objects)]))
    first = read(form, tmp_path / "one")["a.png"].annotations
    assert first is not None
    list(form.write(tmp_path / "two", NAMES, [output("a", first)]))
    assert read(form, tmp_path / "two")["a.png"].annotations == first
    assert [file.read_bytes() for file in sorted((tmp_path / "one").rglob("*")) if file.is_file()] == [
        file.read_bytes() for file in sorted((tmp_path / "two").rglob("*")) if file.is_file()
    ]


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_categories_keep_their_order_and_marks_survive(
    name: str, output: Callable[..., OutputImage], tmp_path: Path
) -> None:
    form: Format = FORMATS.load(name)()
    used = [NewAnnotation(category=category, box=(1, 2, 3, 4)) for category in NAMES]
    list(form.write(tmp_path / "out", NAMES, [output("a", used), output("b", used, pre_annotated=True)]))
    source = form.open(tmp_path / "out")
    assert source.categories == (tuple(sorted(NAMES)) if name == "voc" else NAMES)
    assert {item.path.stem: item.status for item in source.items if isinstance(item, LabelledImage)} == {
        "a": "human",
        "b": "pre-annotation",
    }


@pytest.mark.parametrize("name", [*FORMAT_NAMES, "images"])
def test_two_files_of_one_name_are_refused(
    name: str, output: Callable[..., OutputImage], tmp_path: Path
) -> None:
    form: Format = FORMATS.load(name)()
    with pytest.raises(FormatError, match="names must differ"):
        list(form.write(tmp_path / "out", NAMES, [output("a"), output("a")]))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_unknown_categories_are_refused(
    name: str, output: Callable[..., OutputImage], tmp_path: Path
) -> None:
    form: Format = FORMATS.load(name)()
    with pytest.raises(FormatError, match="'bus' is not among"):
        list(
            form.write(
                tmp_path / "out", NAMES, [output("a", [NewAnnotation(category="bus", box=(0, 0, 1, 1))])]
            )
        )


def test_images_alone(output: Callable[..., OutputImage], tmp_path: Path) -> None:
    form: Format = FORMATS.load("images")()
    list(form.write(tmp_path / "out", (), [output("a"), output("b")]))
    items = list(form.open(tmp_path / "out").items)
    assert [(item.name, item.annotations) for item in items if isinstance(item, LabelledImage)] == [
        ("images/a.png", None),
        ("images/b.png", None),
    ]
