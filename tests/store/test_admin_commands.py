"""The commands init, status, runs and db, as a user types them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from store.records import NewImage
from store.schema import HEAD
from store.store import Store


@pytest.fixture
def curator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command in this process, from `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def curator_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from curator.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)


def test_a_workspace_from_init_to_runs(tmp_path: Path, curator: Callable[..., Any]) -> None:
    made = curator("-w", "ws", "init")
    assert made.exit_code == 0, made.output
    assert "curator -w ws add coco" in made.stdout
    empty = curator("-w", "ws", "status")
    assert "start with: curator add" in empty.stdout
    with Store.open(tmp_path / "ws") as store:
        run = store.begin_run("add", config={"path": "data", "seed": 0, "roles": ["mine"]}, seed=0)
        store.add_images(
            run,
            [
                NewImage(
                    uri="a.png", sha256="0" * 64, phash="0" * 16, width=1, height=1, dataset="d", role="mine"
                )
            ],
        )
        store.put_model("python:x:y", "f", ["car"])
        store.finish_run(run, status="done", counts={"done": 1, "failed": 0})
    found = json.loads(curator("-w", "ws", "status", "--json").stdout)
    assert found["counts"]["images_mine"] == 1
    assert found["models"] == [{"spec": "python:x:y", "classes": 1}]
    assert found["stages"]["add"]["status"] == "done"
    shown = curator("-w", "ws", "status").stdout
    assert "images mine" in shown
    assert "detector python:x:y, 1 classes" in shown
    table = curator("-w", "ws", "runs").stdout
    assert "path=data roles=['mine']" in table
    assert "1 done" in table
    (listed,) = json.loads(curator("-w", "ws", "runs", "--stage", "add", "--json").stdout)
    assert (listed["stage"], listed["config"]["path"], listed["counts"]) == (
        "add",
        "data",
        {"done": 1, "failed": 0},
    )
    assert curator("-w", "ws", "runs", "--stage", "detect").stdout == "no runs of detect\n"


def test_errors_are_one_line_with_exit_code_2(tmp_path: Path) -> None:
    absent = curator_process("-w", "ws", "status", cwd=tmp_path)
    assert absent.returncode == 2
    assert absent.stderr.count("\n") == 1
    assert "init" in absent.stderr
    Store.create(tmp_path / "ws").close()
    again = curator_process("-w", "ws", "init", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "already" in again.stderr


def test_database_commands(tmp_path: Path, curator: Callable[..., Any]) -> None:
    Store.create(tmp_path / "ws").close()
    assert curator("-w", "ws", "db", "upgrade").stdout == f"schema {HEAD}: nothing to do\n"
    assert curator("-w", "ws", "db", "check").stdout == "the database is sound\n"
    with sqlite3.connect(tmp_path / "ws" / "curator.db") as connection:
        connection.execute("DROP INDEX ix_runs_stage")
    broken = curator("-w", "ws", "db", "check", "--json")
    assert broken.exit_code == 1
    assert "ix_runs_stage" in json.loads(broken.stdout)["problems"][0]


def test_the_same_from_python(tmp_path: Path) -> None:
    with pipeline.init_workspace(tmp_path / "ws") as store:
        assert pipeline.status(store)["counts"]["images"] == 0
    with pipeline.open_workspace(tmp_path / "ws") as store:
        assert pipeline.status(store)["stages"] == {}


@pytest.mark.parametrize("command", ["init", "status", "runs", "db"])
def test_help_needs_no_workspace(command: str, curator: Callable[..., Any]) -> None:
    assert curator(command, "--help").exit_code == 0
