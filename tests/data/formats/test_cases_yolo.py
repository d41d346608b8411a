"""YOLO data sets of ../shared/cases and their relatives: 21, 23, 27, 30, 32, 34, 102.

Each folder's case.json there names the public threads that a case was made after.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.placement import place
from curator.data.formats.yolo import YoloFormat
from curator.data.formats.yolo_yaml import read_names, read_yaml
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.errors import ConfigError, FormatError
from store.store import Store

Picture = Callable[..., Path]
SIZE = (160, 120)
ROW = "0 0.25 0.458333 0.25 0.416667"
BOX = (20, 30, 60, 80)


@pytest.fixture
def text(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a text file below tmp_path; returns its path."""

    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


def boxes(
    path: Path, background: bool | None = None, **options: Any
) -> dict[str, list[tuple[Any, ...]] | None]:
    """Image -> (class, box in pixels rounded to .1) of its objects; None where unlabelled."""
    found: dict[str, list[tuple[Any, ...]] | None] = {}
    for item in YoloFormat(background=background).open(path, **options).items:
        assert isinstance(item, LabelledImage), item
        assert item.path.is_file(), item.path
        placed = place(item, SIZE)
        found[item.name] = (
            None
            if placed.annotations is None
            else [(a.category, *(round(v, 1) for v in a.box)) for a in placed.annotations]
        )
    return found


def one(path: Path, **options: Any) -> LabelledImage:
    (item,) = YoloFormat().open(path, **options).items
    assert isinstance(item, LabelledImage), item
    return item


CRATE = [("crate", *BOX)]


# ---------------------------------------------------------------- 21, 30: where images and labels lie


@pytest.mark.parametrize(
    "line", ["./three/images/c.png", "three/images/c.png", "images/c.png", "three\\images\\c.png"]
)
def test_path_with_lists_of_folders_and_a_list_file(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], line: str
) -> None:
    """Case 21. A relative line is found from the list file, from `path:` or from data.yaml's folder."""
    for name, folder in (("a", "one"), ("b", "two"), ("c", "three")):
        picture(f"root/{folder}/images/{name}.png", SIZE)
        text(f"root/{folder}/labels/{name}.txt", ROW)
    listing = "root/three/val.txt" if line == "images/c.png" else "root/val.txt"
    text(listing, f"{line}\n")
    text(
        "data.yaml",
        f"path: root  # base\ntrain:\n  - one/images\n  - two/images\nval: {listing.removeprefix('root/')}\n"
        "nc: 1\nnames: [crate]\n",
    )
    items = list(YoloFormat().open(tmp_path).items)
    assert [(item.name, item.split) for item in items if isinstance(item, LabelledImage)] == [
        ("root/one/images/a.png", "train"),
        ("root/two/images/b.png", "train"),
        ("root/three/images/c.png", "val"),
    ]
    assert list(boxes(tmp_path).values()) == [CRATE] * 3
    assert list(boxes(tmp_path, split="val")) == ["root/three/images/c.png"]


def test_a_line_with_a_dot_counts_from_its_list_file_first(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 21: the trainers read "./a.png" beside the list, though the root has an a.png too."""
    for folder in ("", "lists/"):
        picture(f"{folder}a.png", SIZE)
        text(f"{folder}a.txt", ROW)
    text("lists/train.txt", "./a.png\na.png\n")
    text("data.yaml", "train: lists/train.txt\nnames: [crate]\n")
    assert boxes(tmp_path) == {"lists/a.png": CRATE, "a.png": CRATE}


def test_lists_with_a_byte_order_mark_and_blanks(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 21."""
    picture("images/a b.png", SIZE)
    text("labels/a b.txt", ROW)
    text("train.txt", "\ufeff./images/a b.png  \r\n\r\n")
    text("data.yaml", "train: [train.txt]\nnames: [crate]\n")
    assert boxes(tmp_path) == {"images/a b.png": CRATE}


def test_a_missing_line_and_one_that_leads_outside_are_named(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 21: the rest of the list is read."""
    picture("set/images/a.png", SIZE)
    picture("outside.png", SIZE)
    text("set/train.txt", "images/a.png\nimages/gone.png\n../outside.png\n")
    text("set/data.yaml", "train: train.txt\nnames: [crate]\n")
    good, gone, outside = YoloFormat().open(tmp_path / "set").items
    assert isinstance(good, LabelledImage)
    assert isinstance(gone, LabelledImage)
    assert gone.path == tmp_path / "set/images/gone.png"
    assert isinstance(outside, Broken)
    assert "outside" in outside.reason


@pytest.mark.parametrize("base", ["set", "/content/set", "../set", ".", "", "~", "null"])
def test_a_path_of_the_exporting_machine(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], base: str
) -> None:
    """Relative of case 21: `path:` is wrong here; what lies beside data.yaml is read."""
    picture("set/images/a.png", SIZE)
    text("set/labels/a.txt", ROW)
    text("set/data.yaml", f"path: {base}\ntrain: ../images\nval:\nnames: [crate]\n")
    assert boxes(tmp_path / "set") == {"images/a.png": CRATE}


def test_an_entry_that_leads_nowhere_and_one_named_twice_are_said(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 21: the test folder was not downloaded; val is the folder of train, in other words. In
    the same words, as in the demo data sets and our own exports, nothing is to be said."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", ROW)
    text("data.yaml", "train: images\nval: images\nnames: [crate]\n")
    assert YoloFormat().open(tmp_path).notes == ()
    text("data.yaml", "train: images\nval: ./images\ntest: test/images\nnames: [crate]\n")
    source = YoloFormat().open(tmp_path)
    assert source.notes == (
        "val: ./images is read once, as train",
        "test: nothing at test/images; passed over",
    )
    assert source.count == len(list(source.items)) == 1
    with pytest.raises(FormatError, match="for split test, found none"):
        YoloFormat().open(tmp_path, split="test")


def test_labels_beside_the_pictures_in_a_folder_called_images(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Case 30, first layout."""
    picture("x/images/a.png", SIZE)
    text("x/images/a.txt", ROW)
    text("x/data.yaml", "train: images\nnames: [crate]\n")
    assert boxes(tmp_path / "x") == {"images/a.png": CRATE}


def test_the_last_images_of_a_path_counts(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Case 30, second layout: the data set itself lies under a folder called images."""
    picture("images/y/train/images/b.png", SIZE)
    text("images/y/train/labels/b.txt", ROW)
    text("labels/y/train/images/b.txt", "0 0.5 0.5 1 1")
    text("images/y/data.yaml", "train: train/images\nnames: [crate]\n")
    assert boxes(tmp_path / "images/y") == {"train/images/b.png": CRATE}


@pytest.mark.parametrize("entry", [".", "./", "pics", "pics/..", "../cat_images"])
def test_the_data_sets_own_folder_as_an_entry(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], entry: str
) -> None:
    """Case 30, third layout: names that hold the word images, all in one folder."""
    place_ = "cat_images/pics" if entry == "pics" else "cat_images"
    (tmp_path / "cat_images/pics").mkdir(parents=True)
    picture(f"{place_}/images.png", SIZE)
    text(f"{place_}/images.txt", ROW)
    text("cat_images/data.yaml", f"train: {entry}\nnames: [crate]\n")
    assert list(boxes(tmp_path / "cat_images").values()) == [CRATE]


@pytest.mark.parametrize(
    "line",
    [
        "D:\\work\\set\\images\\train\\a.png",
        "/content/set/images/train/a.png",
        "../../content/set/images/train/a.png",
        "set/images/train/a.png",
    ],
)
def test_lines_and_entries_of_another_machine(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], line: str
) -> None:
    """Relative of cases 07 and 21: found by the longest tail that is there."""
    picture("images/train/a.png", SIZE)
    picture("images/val/a.png", SIZE, 20)
    text("labels/train/a.txt", ROW)
    text("train.txt", f"{line}\n")
    for entry in ("train.txt", "/content/set/train.txt", "/content/set/images/train", "E:\\x\\images\\train"):
        text("data.yaml", f"train: {entry}\nnames: [crate]\n")
        assert boxes(tmp_path) == {"images/train/a.png": CRATE}


def test_a_tail_that_is_too_short_finds_nothing(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of cases 07 and 32: /data/other/images is not this data set's images, nor is its a.png."""
    picture("images/train/a.png", SIZE)
    text("data.yaml", "train: images/train\nval: /data/other/images\nnames: [crate]\n")
    assert YoloFormat().open(tmp_path).notes[0] == "val: nothing at /data/other/images; passed over"
    picture("images/val/b.png", SIZE)
    text("val.txt", "/data/set/images/val/a.png\n")
    text("data.yaml", "val: val.txt\nnames: [crate]\n")
    (item,) = YoloFormat().open(tmp_path).items
    assert isinstance(item, Broken)


# ---------------------------------------------------------------- 23: class names as written


@pytest.mark.parametrize(
    "word",
    [
        *("no", "yes", "off", "on", "true", "FALSE", "y", "n", "null", "~", "="),
        *("1", "007", "1e3", "1.0", "0x1F", "0o17", "1_000", ".inf", ".nan", "2024-01-01", "12:30:45"),
    ],
)
def test_a_word_is_a_class_name_as_it_is_written(tmp_path: Path, word: str) -> None:
    """Case 23, in a list and in a table."""
    file = tmp_path / "data.yaml"
    for content, expected in (
        (f"names: [car, {word}]", {0: "car", 1: word}),
        (f"names:\n- car\n- {word}", {0: "car", 1: word}),
        (f"names:\n  3: {word}\n  1: car", {3: word, 1: "car"}),
        (f"names: ['{word}']", {0: word}),
        (f'names: {{"0": {word}}}', {0: word}),
    ):
        file.write_text(content)
        assert read_names(read_yaml(file), file) == (expected, ())


def test_ids_go_by_key(tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]) -> None:
    """Case 23."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"7{ROW[1:]}\n2 0.5625 0.458333 0.125 0.416667\n")
    text("data.yaml", "path: .\ntrain: images\nnames:\n  2: no\n  7: 1\n  9: spare\n")
    assert boxes(tmp_path) == {"images/a.png": [("1", *BOX), ("no", 80, 30, 100, 80)]}
    assert YoloFormat().open(tmp_path).categories == ("no", "1", "spare")


@pytest.mark.parametrize("names", ["[a, [b]]", "{x: a}", "{1.5: a}", "{-1: a}", "[]", "{}", "a", "[{a: b}]"])
def test_names_that_are_none(tmp_path: Path, names: str) -> None:
    """Relatives of case 23."""
    file = tmp_path / "data.yaml"
    file.write_text(f"names: {names}")
    with pytest.raises(FormatError, match="expected names"):
        read_names(read_yaml(file), file)


@pytest.mark.parametrize(
    ("count", "right"), [("10", True), ("3", True), ("4", False), ("9", False), ("x", False)]
)
def test_nc_counts_names_or_ids(tmp_path: Path, count: str, right: bool) -> None:
    """Relative of case 23: with gaps, both the number of names and one more than the highest id are right."""
    file = tmp_path / "data.yaml"
    file.write_text(f"nc: {count}\nnames: {{2: a, 7: b, 9: c}}")
    if right:
        assert read_names(read_yaml(file), file)[0] == {2: "a", 7: "b", 9: "c"}
    else:
        with pytest.raises(FormatError, match=f"nc says {count} classes, names has 3"):
            read_names(read_yaml(file), file)


def test_names_survive_export_and_return(tmp_path: Path, output: Callable[..., Any]) -> None:
    """Relative of case 23: what is written is read back as the same words."""
    words = ("no", "off", "1", "null", "1e3", "2024-01-01", "~")
    list(YoloFormat().write(tmp_path / "out", words, [output("a")]))
    assert YoloFormat().open(tmp_path / "out").categories == words


def test_other_encodings_and_merged_tables(tmp_path: Path) -> None:
    """Relatives of case 23: a byte order mark, UTF-16, and YAML's merge key still work."""
    file = tmp_path / "data.yaml"
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_bytes("names: [Straße, no]".encode(encoding))
        assert read_names(read_yaml(file), file)[0] == {0: "Straße", 1: "no"}
    file.write_text("base: &base {0: no}\nnames:\n  <<: *base\n  1: yes\n")
    assert read_names(read_yaml(file), file)[0] == {0: "no", 1: "yes"}


# ---------------------------------------------------------------- 27: pose rows


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ("[2, 3]", "0.2 0.3 2 0.0 0.0 0"),
        ("[2, 2]", "0.2 0.3 0.35 0.6"),
        ("[1, 2]", "0.2 0.3"),
        ("[1, 3]", "0.2 0.3 1"),
        ("[3, 2]", "0.2 0.3 0.35 0.6 0 0"),
        ("[4, 3]", "0.9 0.9 2 " * 4),
        ("[17, 3]", "0.2 0.3 2 " * 17),
        ("\n  - 2\n  - 2", "-0.4 1.9 0.3 nan"),
    ],
)
def test_a_pose_row_has_its_own_box(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], shape: str, points: str
) -> None:
    """Case 27: [2, 2] has nine columns like an oriented box, [3, 2] eleven like a polygon."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{ROW} {points}\n")
    text("data.yaml", f"train: images\nkpt_shape: {shape}\nnames: [crate]\n")
    item = one(tmp_path)
    assert boxes(tmp_path) == {"images/a.png": CRATE}
    assert [a.polygon for a in item.annotations or ()] == [None]
    assert not item.problems


def test_rows_of_another_length_in_a_pose_data_set(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 27: a bare box is read, anything else is dropped and makes the labels incomplete."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{ROW}\n{ROW} 0.2 0.3 2\n0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n")
    text("data.yaml", "train: images\nkpt_shape: [2, 3]\nnames: [crate]\n")
    item = one(tmp_path)
    assert len(item.annotations or ()) == 1
    assert item.incomplete
    assert [problem.split(": ")[0] for problem in item.problems] == ["a.txt line 2", "a.txt line 3"]
    assert "6 numbers of keypoints (11 fields, as kpt_shape in data.yaml says), got 8" in item.problems[0]


@pytest.mark.parametrize("shape", ["3", "[2]", "[2, 4]", "[0, 2]", "[a, 2]", "[2, 3, 1]", "[-1, 3]"])
def test_an_unusable_kpt_shape(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], shape: str
) -> None:
    """Relative of case 27."""
    picture("images/a.png", SIZE)
    text("data.yaml", f"train: images\nkpt_shape: {shape}\nnames: [crate]\n")
    with pytest.raises(FormatError, match="kpt_shape: expected"):
        one(tmp_path)


def test_oriented_boxes_and_polygons_without_kpt_shape(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Case 27, the other side: nine columns are an oriented box, more a polygon; their bounds."""
    picture("images/a.png", SIZE)
    oriented = "0 0.25 0.25 0.375 0.458333 0.25 0.666667 0.125 0.458333"
    polygon = "0 0.125 0.25 0.375 0.25 0.375 0.666667 0.2 0.666667 0.125 0.5"
    text("labels/a.txt", f"{oriented}\n{polygon}\n")
    text("data.yaml", "train: images\nnames: [crate]\n")
    item = one(tmp_path)
    assert boxes(tmp_path) == {"images/a.png": CRATE}  # both have the same bounds: one object
    assert [len((a.polygon or ((),))[0]) for a in item.annotations or ()] == [8, 10]


@pytest.mark.parametrize(
    "points", ["0.2 0.3 2 0.3 0.5 1", "0.2 0.3 2.0 0 0 0", "0.2 0.3 1 0.35 0.6 1 0 0 0 0 0 0"]
)
def test_a_pose_row_without_kpt_shape_is_told(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], points: str
) -> None:
    """Relative of case 27: data.yaml lost its kpt_shape; no polygon is made up."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{ROW} {points}\n")
    item = one(tmp_path, classes=["crate"])
    assert (item.annotations, item.incomplete) == ((), True)
    assert f"say kpt_shape: [{len(points.split()) // 3}, 3] in data.yaml" in item.problems[0]


def test_a_polygon_along_the_edges_is_no_pose_row(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 27: each third number is 0 or 1, but the points do not lie in "the box"."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", "0 0 0 0.3 0 0.5 0.5 1 0.7 1 0\n")
    assert boxes(tmp_path, classes=["crate"]) == {"images/a.png": [("crate", 0, 0, 160, 84)]}


# ---------------------------------------------------------------- 32: images without a label file


@pytest.fixture
def sparse(tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]) -> Callable[[int, int], Path]:
    """A data set of `count` images, of which the first `labelled` ones have a label file."""

    def make(labelled: int, count: int) -> Path:
        for number in range(count):
            picture(f"images/{number}.png", SIZE, number)
            if number < labelled:
                text(f"labels/{number}.txt", ROW)
        text("data.yaml", "train: images\nnames: [crate]\n")
        return tmp_path

    return make


def test_the_label_of_another_folder_is_never_borrowed(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Case 32."""
    picture("images/dogs/1.png", SIZE)
    picture("images/none/1.png", SIZE)
    text("labels/dogs/1.txt", ROW)
    text("labels/1.txt", ROW)
    text("data.yaml", "train: images\nnames: [crate]\n")
    assert boxes(tmp_path) == {"images/dogs/1.png": CRATE, "images/none/1.png": None}
    assert boxes(tmp_path, background=True) == {"images/dogs/1.png": CRATE, "images/none/1.png": []}


@pytest.mark.parametrize(
    ("labelled", "count", "taken"), [(4, 5, []), (3, 5, []), (2, 4, None), (2, 5, None), (0, 3, None)]
)
def test_the_data_set_tells_what_no_file_means(
    sparse: Callable[[int, int], Path], labelled: int, count: int, taken: list[Any] | None
) -> None:
    """Case 32: most images have a file: the others are background; few or none: unlabelled."""
    folder = sparse(labelled, count)
    without = list(boxes(folder).values())[labelled:]
    assert without == [taken] * (count - labelled)
    (note,) = YoloFormat().open(folder).notes
    assert note.startswith(f"train: {count - labelled} of {count} images have no label file, such as ")
    assert f"labels/{labelled}.txt; " in note
    assert ("--background" in note) == (taken is None)
    assert ("--unlabelled" in note) == (taken == [])


@pytest.mark.parametrize("labelled", [0, 1, 4])
@pytest.mark.parametrize(("background", "taken"), [(True, []), (False, None)])
def test_the_user_says_what_no_file_means(
    sparse: Callable[[int, int], Path], labelled: int, background: bool, taken: list[Any] | None
) -> None:
    folder = sparse(labelled, 5)
    assert boxes(folder, background=background)["images/4.png"] == taken
    assert YoloFormat(background=background).open(folder).notes == ()


def test_data_yaml_says_what_no_file_means(sparse: Callable[[int, int], Path]) -> None:
    folder = sparse(4, 5)
    with (folder / "data.yaml").open("a") as handle:
        handle.write("skip_if_label_file_missing: true\n")
    assert boxes(folder)["images/4.png"] is None
    assert boxes(folder, background=True)["images/4.png"] == []


def test_each_split_tells_for_itself(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Relative of case 32: a test set whose labels are kept back is not background."""
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            picture(f"{split}/images/{number}.png", SIZE, number)
    text("train/labels/0.txt", ROW)
    text("train/labels/1.txt", "")
    assert boxes(tmp_path, classes=["crate"]) == {
        "train/images/0.png": CRATE,
        "train/images/1.png": [],
        "train/images/2.png": [],
        "test/images/0.png": None,
        "test/images/1.png": None,
    }


def test_background_reaches_the_workspace_and_is_refused_elsewhere(
    sparse: Callable[[int, int], Path], tmp_path: Path
) -> None:
    folder = sparse(0, 1)
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="yolo", path=folder, role="train"))
        assert (result.summary["unlabelled"], len(result.summary["notes"])) == (1, 1)
        result = add(store, AddConfig(format="yolo", path=folder, role="train", background=True))
        assert (result.summary["unlabelled"], result.summary["new_annotation_versions"]) == (0, 1)
        with pytest.raises(ConfigError, match="the format images has no such setting"):
            add(store, AddConfig(format="images", path=folder, role="train", background=True))


# ---------------------------------------------------------------- 34, 102: rows


def test_the_same_row_twice_is_one_object(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path]
) -> None:
    """Case 34: the repeat is named; the same box of another class stays."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{ROW}\n{ROW}\n1{ROW[1:]}\n0 0.250000 0.4583330 2.5e-1 0.416667\n")
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="yolo", path=tmp_path, role="train", classes=("crate", "box")))
        assert (result.exit_code, result.summary["objects"]) == (0, 2)
        (note,) = result.summary["notes"]
        assert "is listed 3 times; one object is kept" in note
        (image_id,) = store.image_ids(role="train")
        labels = store.annotations([image_id], reader="train")[image_id]
        assert [a.category for a in labels.annotations] == ["crate", "box"]


@pytest.mark.parametrize(
    "row",
    [
        "0 0.25 0.4583 40 50",
        "0 1 1 3 4",
        "0 80 60 0.25 0.4",
        "0 0.5 0.5 1.6 0.2",
        "0 2.5 0.5 0.2 0.2",
        "0 320 240 64 48",
        "0 -320 240 0.1 0.1",
        "0 20 30 60 30 60 80 20 80",
        "0 0.1 0.1 0.3 0.1 0.3 55",
    ],
)
def test_pixels_are_no_fractions(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], row: str
) -> None:
    """Case 102: no box of the whole picture is stored; the labels are incomplete, exit 3."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{ROW}\n{row}\n")
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="yolo", path=tmp_path, role="train", classes=("crate",)))
        assert (result.exit_code, result.summary["objects"], result.summary["dropped_objects"]) == (3, 0, 1)
    assert result.failures[0][0] == "images/a.png"
    assert "a.txt line 2: expected fractions of the image" in result.failures[0][1]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("0 0.95 0.5 0.2 0.5", ("crate", 136, 30, 160, 90)),
        ("0 0.5 0.5 1.2 1.1", ("crate", 0, 0, 160, 120)),
        ("0 1.05 0.5 0.2 0.5", ("crate", 152, 30, 160, 90)),
        ("0 -0.1 0.3 0.1 0.3 0.1 0.7", ("crate", 0, 36, 16, 84)),
    ],
)
def test_a_row_that_leaves_the_image_is_clipped_and_named(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], row: str, expected: tuple[Any, ...]
) -> None:
    """Relative of case 102: fractions a little beyond the edge are boxes drawn over it."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", row)
    item = place(one(tmp_path, classes=["crate"]), SIZE)
    assert boxes(tmp_path, classes=["crate"]) == {"images/a.png": [expected]}
    assert len([note for note in item.notes if note.endswith("clipped")]) == 1


@pytest.mark.parametrize(
    "row", ["0 1.5 0.5 0.2 0.2", "0 -0.3 0.5 0.2 0.2", "0 0.5 0.5 0 0.2", "0 0.5 0.5 0.2 0"]
)
def test_a_row_outside_or_without_area_is_dropped_alone(
    tmp_path: Path, picture: Picture, text: Callable[[str, str], Path], row: str
) -> None:
    """Relative of cases 15 and 102: the other labels stay, exit 3."""
    picture("images/a.png", SIZE)
    text("labels/a.txt", f"{row}\n{ROW}\n")
    with Store.create(tmp_path / "workspace") as store:
        result = add(store, AddConfig(format="yolo", path=tmp_path, role="train", classes=("crate",)))
        assert (result.exit_code, result.summary["objects"], result.summary["dropped_objects"]) == (3, 1, 1)
        assert result.summary["incomplete_images"] == 0


def test_the_vehicles_and_coco_files_hold_no_such_row(shared: Path) -> None:
    """On published data the rules above drop nothing."""
    for path in (shared / "vehicles_openimages", shared / "coco_val128/detection_config.yaml"):
        for item in YoloFormat().open(path).items:
            assert isinstance(item, LabelledImage)
            assert not item.problems
