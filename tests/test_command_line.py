"""What the command line says when it is stopped, or given what cannot be."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curator.cli.app import main
from store.store import Store

WAITING = """
import signal, time
from curator.cli.app import app, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background start with it ignored

@app.command()
def wait():
    print("ready", flush=True)
    time.sleep(60)

main()
"""


def test_an_interrupt_says_how_to_go_on() -> None:
    command = [sys.executable, "-c", WAITING, "wait"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "stopped; the same command continues where it was"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "my work") as store:
        store.finish_run(store.begin_run("detect", config={}), status="done", counts={})
    return store.path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--detector", "builtin:", "--out", "."], "--out .: expected a file, got a folder"),
        (["train", "--detector", "builtin:", "--out", "/proc/t.st"], "expected a writable folder /proc"),
        (["report", "--out", "."], "--out .: expected a file, got a folder"),
        (["report", "--out", "/proc/x/r.html"], "expected a writable folder /proc"),
        (["export", "coco", "/proc/x"], "expected a writable folder /proc"),
        (["runs", "--stage", "frob"], "no stage called 'frob'; recorded are: detect"),
        (["samples", "--name", "nope"], "no batch of samples called 'nope'; there are: none"),
    ],
)
def test_wrong_input_is_one_line_before_any_work(
    workspace: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["curator", "-w", str(workspace), *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert (end.value.code, errors.count("\n")) == (2, 1), errors
    assert message in errors
    with Store.open(workspace) as store:
        assert [run.stage for run in store.runs()] == ["detect"]


def test_hints_quote_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["status"], ["init"], ["init"]):
        monkeypatch.setattr(sys, "argv", ["curator", "-w", str(tmp_path / "a b"), *arguments])
        with pytest.raises(SystemExit):
            main()
        shown = capsys.readouterr()
        assert f"-w '{tmp_path}/a b' " in shown.out + shown.err
