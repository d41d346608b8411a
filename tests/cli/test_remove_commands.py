"""`curator remove` and `curator gc` on the command line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curator.cli.app import main
from store.store import Store
from tests.data.exported import fill, tree

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a workspace that was exported once; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curator", "-q", "-w", "workspace", *words])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    with Store.create(tmp_path / "workspace") as store:
        fill(store, tmp_path / "data")
    assert command("export", "coco", "one", "--selection", "query", "--samples", "synthesis")[0] == 0
    return command


def age(folder: Path) -> None:
    """Make everything old."""
    when = time.time() - 9 * 3600
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (when, when))


def counts(path: Path) -> dict[str, int]:
    with Store.open(path / "workspace") as store:
        return {name: number for name, number in store.counts().items() if name != "runs"}


def test_without_a_terminal_it_only_says_what_goes(run: Run, tmp_path: Path) -> None:
    before = counts(tmp_path)
    code, shown, errors = run("remove", "images", "--role", "pool", "--dataset", "pool")
    assert code == 2
    assert errors == "error: nothing was removed: say --yes to do it, or --dry-run to look only\n"
    assert shown.splitlines() == [
        "goes: 3 images, 3 roles of images, 1 detections (images), 2 hits of selections",
        "selection 'query' loses 2 hits; curator query makes it anew",
        "version 1 (one) names 2 images of these: its record stays, but curator versions --export cannot "
        "write it again",
        "your files stay where they are",
    ]
    assert run("remove", "images", "--role", "pool", "--dry-run") == (0, shown, "")
    told = json.loads(run("remove", "images", "--role", "pool", "--dry-run", "--json")[1])
    assert told["removed"] is False
    assert told["plan"]["counts"]["images"] == 3
    assert told["plan"]["versions"] == [{"number": 1, "name": "one", "images": 2, "samples": 0}]
    code, shown, errors = run("remove", "images", "--role", "pool", "--json")
    assert (code, json.loads(shown)["removed"], errors.count("\n")) == (2, False, 1)
    assert counts(tmp_path) == before


def test_on_a_terminal_it_asks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counts(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda _: False)
    code, shown, _ = run("remove", "selection", "query")
    assert (code, shown.splitlines()[-1]) == (0, "nothing was removed")
    assert counts(tmp_path) == before
    monkeypatch.setattr("typer.confirm", lambda _: True)
    assert run("remove", "selection", "query")[0] == 0
    assert counts(tmp_path)["selections"] == 0


def test_images_go_and_files_stay(run: Run, tmp_path: Path) -> None:
    before = tree(tmp_path / "data")
    listed = tmp_path / "list.txt"
    listed.write_text("pool/10.png\n\ndata/pool/11.png\nnowhere.png\n")
    code, shown, _ = run("remove", "images", "--file", str(listed), "--yes")
    assert code == 0
    assert shown.splitlines()[0] == "1 of those named are not in the workspace"
    assert shown.splitlines()[-1].startswith("removed: 2 images, ")
    assert tree(tmp_path / "data") == before
    assert counts(tmp_path)["images_pool"] == 1
    assert "nothing to remove" in run("remove", "images", "--file", str(listed))[1]
    with Store.open(tmp_path / "workspace") as store:
        [last] = store.hashes_of(store.image_ids(role="pool"))
    assert run("remove", "images", "--sha256", last, "--role", "mine", "--yes")[1] == "nothing to remove\n"
    assert run("remove", "images", "--sha256", last.upper(), "--yes")[0] == 0
    assert counts(tmp_path)["images"] == 3
    assert run("db", "check")[1] == "the database is sound\n"


def test_a_version_says_why_it_cannot_be_written_again(run: Run, tmp_path: Path) -> None:
    assert run("versions", "--export", "one", "--out", "again")[0] == 0
    assert run("remove", "samples", "synthesis", "-y")[0] == 0
    code, _, errors = run("versions", "--export", "one", "--out", "b")
    assert code == 2
    assert errors.startswith(
        "error: version 1 (one) cannot be written again: 1 of its images were removed from the workspace "
        "(sample-"
    )
    assert "newest removal: run " in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "b").exists()
    assert run("remove", "dataset", "train", "-y")[0] == 0
    assert "4 of its images were removed" in run("versions", "--export", "1", "--out", "b")[2]
    assert ["1", "one"] in [line.split()[:2] for line in run("versions")[1].splitlines()]
    assert run("versions", "--diff", "1", "one")[0] == 0


def test_an_export_of_removed_images_may_come_back(run: Run, tmp_path: Path) -> None:
    assert run("remove", "images", "--role", "pool", "-y")[0] == 0
    assert run("remove", "images", "--role", "train", "-y")[0] == 0
    code, _, errors = run("add", "coco", "one", "--role", "mine")
    assert code == 0, errors
    assert counts(tmp_path)["images_mine"] >= 3


def test_gc_frees_what_was_removed(run: Run, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    assert run("remove", "samples", "synthesis", "-y")[0] == 0
    frames = workspace / "frames"
    for number, uri in enumerate((None, "kept")):
        folder = frames / f"{number:016x}"
        folder.mkdir(parents=True)
        (folder / "000001.jpg").write_bytes(b"frame")
        if uri:
            data = tmp_path / "data/train/0.jpg"
            (folder / "000001.jpg").write_bytes(data.read_bytes() + b"!")
            assert run("add", "images", str(folder), "--role", "pool")[0] == 0
    (workspace / "training" / "0123456789abcdef").mkdir(parents=True)
    (workspace / "training" / "0123456789abcdef" / "checkpoint").write_bytes(b"1234567")
    assert run("gc")[1].splitlines()[0] == "gc: freed 0 bytes"  # all of it is young
    age(workspace)
    before = tree(workspace)
    told = json.loads(run("gc", "--dry-run", "--json")[1])
    kinds = {kind: part["files"] for kind, part in told["parts"].items()}
    assert kinds == {"vectors": 0, "blobs": 1, "faiss": 0, "training": 1, "frames": 1, "database": 0}
    assert told["bytes"] > 7
    after = tree(workspace)
    assert before.keys() - {"curator.db-wal", "curator.db-shm"} <= after.keys()
    code, shown, _ = run("gc")
    assert code == 0
    assert shown.startswith("gc: freed ")
    assert not (frames / f"{0:016x}").exists()
    assert (frames / f"{1:016x}" / "000001.jpg").exists()
    assert not (workspace / "training" / "0123456789abcdef").exists()
    assert run("gc")[1].splitlines()[0] == "gc: freed 0 bytes"
    assert run("gc", "--vacuum", "--grace", "0")[0] == 0
    assert run("db", "check")[1] == "the database is sound\n"
    assert run("versions", "--diff", "1", "one")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images"], "name some: ids, --sha256, --file FILE, or --role and --dataset"),
        (["images", "x"], "expected numbers, got x"),
        (["images", "--role", "test"], "role: expected one of"),
        (["images", "--dataset", "no"], "no data set called 'no'; there are: train, pool"),
        (["images", "--file", "no.txt"], "expected a text file with a name a line"),
        (["dataset", "no"], "no data set called 'no'; there are: train, pool"),
        (["selection", "no"], "no selection called 'no'; there are: query"),
        (["samples", "no"], "no batch of samples called 'no'; there are: synthesis"),
        (["verification", "no"], "no verification called 'no'; there are: none"),
        (["index", "no"], "no vector space called 'no'; there are: none"),
        (["model", "no"], "no model 'no'; there are: python:x (ffffffffffff)"),
    ],
)
def test_wrong_input_is_one_line(run: Run, words: list[str], message: str) -> None:
    code, _, errors = run("remove", *words, "--yes")
    assert (code, errors.count("\n")) == (2, 1), errors
    assert message in errors
