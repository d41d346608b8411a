"""DeepPCB: pairs of a tested image and its template; the published data, and broken lists and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.deeppcb import TYPES, DeepPcbFormat
from curator.data.run_add import add
from curator.data.run_export import export
from curator.data.settings import AddConfig, ExportConfig
from curator.errors import FormatError
from curator.pipeline.loop import ORDER, read_plan
from store.errors import AccessError
from store.store import Store

NAMES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")


@pytest.fixture
def board(tmp_path: Path, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Make a data set of one pair "g1/1/100"; returns its folder."""

    def make(rows: str = "10 20 30 40 3\n", suffix: str = ".png", template: bool = True) -> Path:
        picture(f"set/g1/1/100_test{suffix}", (64, 64), 10)
        if template:
            picture(f"set/g1/1/100_temp{suffix}", (64, 64), 200)
        (tmp_path / "set/g1/1_not").mkdir(exist_ok=True)
        (tmp_path / "set/g1/1_not/100.txt").write_text(rows)
        (tmp_path / "set/trainval.txt").write_text("g1/1/100.jpg g1/1_not/100.txt\n")
        return tmp_path / "set"

    return make


def one(path: Path, **options: Any) -> LabelledImage:
    (item,) = DeepPcbFormat().open(path, **options).items
    assert isinstance(item, LabelledImage), item
    return item


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_pair(board: Callable[..., Path], suffix: str) -> None:
    """The list names .jpg; the tested image is read, its template kept as a tag."""
    folder = board("10,20,30,40,3\n1 2 3 4 6\n", suffix)
    item = one(folder)
    assert (item.name, item.split) == (f"g1/1/100_test{suffix}", "trainval")
    assert item.tags == {"template": str(folder / f"g1/1/100_temp{suffix}"), "group": "g1"}
    assert [(a.category, a.box) for a in item.annotations or ()] == [
        ("mousebite", (10, 20, 30, 40)),
        ("pin-hole", (1, 2, 3, 4)),
    ]
    assert (item.problems, item.notes) == ((), ())


def test_the_template_reaches_the_workspace_and_follows_a_moved_folder(
    board: Callable[..., Path], tmp_path: Path
) -> None:
    """Adding the moved folder again points the image and its tag to the new place."""
    folder = board()
    with Store.create(tmp_path / "workspace") as store:
        for _ in range(2):
            add(store, AddConfig(format="deeppcb", path=folder, role="train", split="trainval"))
            (image_id,) = store.image_ids(role="train")
            tags = store.tags([image_id], reader="train")[image_id]
            assert tags["template"] == str(folder.resolve() / "g1/1/100_temp.png")
            folder = folder.rename(tmp_path / f"{folder.name}-moved")
        assert [category.name for category in store.categories()] == list(NAMES)
        assert store.counts()["images"] == 1


def test_the_template_of_a_pool_image_stays_hidden(board: Callable[..., Path], tmp_path: Path) -> None:
    """Beside the image it would show where the defects are: it is read by who may read the labels."""
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="deeppcb", path=board(), role="pool"))
        ids = store.image_ids(role="pool")
        with pytest.raises(AccessError):
            store.tags(ids, reader="query")
        assert "template" in store.tags(ids, reader="oracle")[ids[0]]


def test_a_pair_without_template_is_kept_and_named(board: Callable[..., Path]) -> None:
    item = one(board(template=False))
    assert item.tags == {"group": "g1"}
    assert item.notes == ("no template beside it; kept without one",)


@pytest.mark.parametrize(
    ("row", "reason", "incomplete"),
    [
        ("1 2 3 4", "expected x1,y1,x2,y2,type, got 4 fields", True),
        ("1 2 3 4 0", "unknown type 0; known are 1 to 6", True),
        ("1 2 3 4 7", "unknown type 7", True),
        ("a 2 3 4 1", "expected numbers", True),
        ("9 2 3 4 1", "negative size", True),
        ("3 2 3 4 1", "no area", False),
    ],
)
def test_a_broken_row_is_named_and_the_others_kept(
    board: Callable[..., Path], row: str, reason: str, incomplete: bool
) -> None:
    item = one(board(f"10 20 30 40 1\n\n{row}\n"))
    assert len(item.annotations or ()) == 1
    (problem,) = item.problems
    assert problem.startswith("100.txt line 3: ")
    assert reason in problem
    assert item.incomplete is incomplete


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("g1/1/200.jpg g1/1_not/100.txt", "missing image: 200_test.png"),
        ("g1/1/100.jpg g1/1_not/200.txt", "200.txt is missing"),
        ("../1/100.jpg g1/1_not/100.txt", "outside"),
        ("g1/1/100.jpg ../../etc/passwd", "outside"),
    ],
)
def test_a_broken_pair_is_named(board: Callable[..., Path], line: str, reason: str) -> None:
    folder = board()
    with (folder / "trainval.txt").open("a") as handle:
        handle.write(f"{line}\n")
    good, broken = DeepPcbFormat().open(folder).items
    assert isinstance(good, LabelledImage)
    assert isinstance(broken, Broken)
    assert reason in broken.reason


def test_what_is_no_data_set(board: Callable[..., Path], tmp_path: Path) -> None:
    folder = board()
    with pytest.raises(FormatError, match=r"expected the list file valid\.txt; lists found: trainval"):
        one(folder, split="valid")
    with pytest.raises(FormatError, match=r"the list file trainval\.txt or test\.txt; lists found: none"):
        one(tmp_path)
    with pytest.raises(FormatError, match="--classes: expected 6 names"):
        one(folder, classes=["a"])
    (folder / "test.txt").write_text("g1/1/100.jpg\n")
    with pytest.raises(FormatError, match=r"test\.txt line 1: expected an image and its annotation file"):
        one(folder)


def test_other_class_names_and_the_published_folder(board: Callable[..., Path], tmp_path: Path) -> None:
    folder = board()
    assert [a.category for a in one(folder, classes=list("abcdef")).annotations or ()] == ["c"]
    (tmp_path / "DeepPCB").mkdir()
    folder.rename(tmp_path / "DeepPCB/PCBData")
    assert [a.category for a in one(tmp_path / "DeepPCB").annotations or ()] == ["mousebite"]


def test_export_is_refused_with_what_to_do(board: Callable[..., Path], tmp_path: Path) -> None:
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="deeppcb", path=board(), role="train"))
        with pytest.raises(FormatError, match="export as coco, voc or yolo"):
            export(store, ExportConfig(format="deeppcb", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("split", "count", "objects"), [("trainval", 1000, None), ("test", 500, None), (None, 1500, 10013)]
)
def test_the_published_data(shared: Path, split: str | None, count: int, objects: int | None) -> None:
    source = DeepPcbFormat().open(shared / "deeppcb_1bit", split=split)
    assert (source.categories, source.count) == (NAMES, count)
    names, found = set(), Counter[str]()
    for item in source.items:
        assert isinstance(item, LabelledImage), item
        assert (item.problems, item.notes) == ((), ())
        assert Path(item.tags["template"]).name == item.path.name.replace("_test", "_temp")
        names.add(item.name)
        found.update(a.category for a in item.annotations or ())
    assert len(names) == count
    assert set(found) == set(TYPES.values())
    if objects is not None:
        assert found.total() == objects


def test_the_example_is_a_valid_plan(shared: Path) -> None:
    """docs/examples/deeppcb.toml: each table is a valid configuration, the data set it names is there."""
    plan = read_plan(Path(__file__).resolve().parents[3] / "docs/examples/deeppcb.toml")
    stages = {step.stage for step in plan.steps}
    assert stages == set(ORDER) - {"suspects", "synthesize"}
    added = [step.config for step in plan.steps if isinstance(step.config, AddConfig)]
    assert [(config.format, config.split, config.role) for config in added] == [
        ("deeppcb", "trainval", "train"),
        ("deeppcb", "trainval", "mine"),
        ("deeppcb", "trainval", "pool"),
        ("deeppcb", "test", "holdout"),
    ]
    bounds = sorted(config.part_bounds for config in added[:3])
    assert (bounds[0][0], bounds[0][1], bounds[1][1], bounds[2][1]) == (0, bounds[1][0], bounds[2][0], 1)
    assert {config.path.resolve() for config in added} == {(shared / "deeppcb_1bit").resolve()}
