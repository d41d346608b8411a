"""`curator versions` on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curator.cli.app import main
from store.store import Store
from tests.data.exported import fill, select, tree

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a workspace that was exported twice; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curator", "-w", "workspace", *words])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    with Store.create(tmp_path / "workspace") as store:
        fill(store, tmp_path / "data")
    return command


@pytest.fixture
def twice(run: Run, tmp_path: Path) -> Run:
    assert run("export", "yolo", "one", "--selection", "query", "--map", "automobile=car")[0] == 0
    with Store.open(tmp_path / "workspace") as store:
        select(store, "query", store.image_ids(role="pool")[1:])
    table = json.loads((tmp_path / "data/train/labels.json").read_text())
    table["annotations"].append({"image_id": 0, "category_id": 2, "bbox": [3, 3, 5, 5]})
    table["annotations"][1]["bbox"] = [0, 0, 7, 7]
    (tmp_path / "data/train/labels.json").write_text(json.dumps(table))
    assert run("add", "coco", "data/train/labels.json", "--role", "train")[0] == 0
    shown = run("export", "coco", "two", "--selection", "query", "--samples", "synthesis")
    assert shown[0] == 0
    assert "version 2, 'two'" in shown[1]
    return run


def test_the_list(run: Run) -> None:
    assert run("versions") == (0, "no data set versions; `curator export` makes one\n", "")
    assert json.loads(run("versions", "--json")[1]) == {"versions": []}


def test_the_list_of_two(twice: Run) -> None:
    code, shown, _ = twice("versions")
    rows = [line.split() for line in shown.splitlines()]
    assert code == 0
    assert [row[:2] + row[4:] for row in rows if row[0] in ("1", "2")] == [
        ["1", "one", "yolo", "3", "2", "0", "5", "selection", "query"],
        ["2", "two", "coco", "3", "2", "1", "5", "selection", "query,", "samples", "synthesis"],
    ]
    listed = json.loads(twice("versions", "--json")[1])["versions"]
    assert [version["objects"] for version in listed] == [{"car": 4, "lamp": 1}, {"car": 4, "lamp": 1}]


def test_the_difference(twice: Run) -> None:
    code, shown, _ = twice("versions", "--diff", "one", "2")
    lines = shown.splitlines()
    assert code == 0
    assert lines[0] == (
        "version 1 (one, yolo, added as jpeg 95): 5 images (3 training, 2 selected, 0 samples), 5 objects"
    )
    assert lines[1] == (
        "version 2 (two, coco, added as jpeg 95): 6 images (3 training, 2 selected, 1 samples), 5 objects"
    )
    assert lines[2] == "2 images added"
    assert sorted(line.split("-")[0].strip() for line in lines[3:5]) == ["12", "sample"]
    assert lines[5:7] == ["1 images removed", next(x for x in lines if x.startswith("  10-"))]
    assert lines[6].endswith(": 2 objects")
    assert lines[7] == "2 images with other labels"
    assert sorted(line.split(": ")[1] for line in lines[8:10]) == [
        "1 -> 2 objects",
        "1 objects, other boxes, classes or attributes",
    ]
    assert lines[10:] == ["0 images in another role"]
    found = json.loads(twice("versions", "--diff", "1", "two", "--json")[1])
    assert (found["added"]["count"], found["labels"]["count"]) == (2, 2)


def test_one_is_written_again(twice: Run, tmp_path: Path) -> None:
    code, shown, _ = twice("versions", "--export", "1", "--out", "again")
    assert code == 0
    assert shown.splitlines() == [
        "versions: 5 done, 0 already stored, 0 failed",
        f"{tmp_path}/again: version 1 (one, yolo): 5 images (3 training, 2 selected, 0 samples), 5 objects",
    ]
    assert tree(tmp_path / "again") == tree(tmp_path / "one")
    assert "0 done, 5 already stored" in twice("versions", "--export", "one", "--out", "again")[1]
    assert json.loads(twice("versions", "--export", "2", "--out", "b", "--json")[1])["version"] == "two"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--export", "1"], "--export N and --out FOLDER go together"),
        (["--out", "x"], "--export N and --out FOLDER go together"),
        (["--export", "1", "--out", "x", "--diff", "1", "2"], "expected --diff or --export, got both"),
        (["--export", "9", "--out", "x"], "no data set version '9'; there are: 1 (one), 2 (two)"),
        (["--diff", "1", "three"], "no data set version 'three'; there are: 1 (one), 2 (two)"),
        (["--export", "1", "--out", "two"], "holds another export"),
        (["--export", "1", "--out", "/proc/x"], "expected a writable folder /proc"),
    ],
)
def test_wrong_input_is_one_line(twice: Run, words: list[str], message: str) -> None:
    code, shown, errors = twice("versions", *words)
    assert (code, shown, errors.count("\n")) == (2, "", 1)
    assert message in errors
