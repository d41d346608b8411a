"""SIGKILL in the middle of a removal or of gc: the workspace is sound, and the same command ends the work."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from store.errors import NotFoundError
from store.records import MembershipFilter
from store.store import Store
from tests.store.test_garbage import age, blob
from tests.store.test_removal import begin, full, rows, sound

__all__ = ["full"]  # a fixture


def child(store: Store, kill_at: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that dies in its event of this number (0: never)."""
    command = [sys.executable, str(Path(__file__).with_name("removal_child.py")), str(store.path)]
    command += [str(kill_at), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kill_at", [90, 200])
def test_a_killed_removal(store: Store, full: dict[str, Any], kill_at: int) -> None:
    command = ("remove", "images", *map(str, full["ids"]), "--yes")
    killed = child(store, kill_at, *command)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Store.open(store.path) as after:
        left = after.known_images(full["ids"])
        found = rows(after)
        assert sound(after)
        assert found["detections"] == found["memberships"] == len(left)  # each whole, or gone
        assert after.boxes("s", "offered").image_ids.tolist() == [i for i in left for _ in range(3)]
        stopped = [run.status for run in after.runs(stage="remove")]
    assert "running" not in stopped
    again = child(store, 0, *command)
    assert again.returncode == 0, again.stderr
    with Store.open(store.path) as after:
        assert {name: count for name, count in rows(after).items() if count and name != "runs"} == {
            "models": 1,
            "spaces": 1,
            "selections": 1,
            "dataset_versions": 1,
            "trials": 1,
            "items": 2,
        }
        assert sound(after)
    assert "nothing to remove" in child(store, 0, *command).stdout


@pytest.mark.parametrize("kill_at", [30])
def test_a_killed_removal_of_a_model(store: Store, full: dict[str, Any], kill_at: int) -> None:
    command = ("remove", "model", "python:x", "--yes")
    killed = child(store, kill_at, *command)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Store.open(store.path) as after:
        assert sound(after)
        done = after.done_keys("detect", [f"d{i}" for i in full["ids"]])
        assert len(done) == rows(after)["detections"]  # what is not there does not count as done
    again = child(store, 0, *command)
    assert again.returncode == 0, again.stderr
    with Store.open(store.path) as after:
        assert sound(after)
        found = rows(after)
        assert (found["models"], found["detections"], found["outcomes"], found["spaces"]) == (0, 0, 0, 0)
        assert (found["samples"], found["hits"]) == (2, 2)


@pytest.mark.parametrize("kill_at", [40])
def test_a_killed_collection(store: Store, full: dict[str, Any], build: Any, kill_at: int) -> None:
    begin(store)
    store.remove_images(full["ids"][:3], MembershipFilter())
    loose = [blob(store, f"loose {n}", hours=9) for n in range(4)]
    trainings = [store.path / "training" / f"{n:016x}" for n in range(3)]
    for folder in trainings:
        folder.mkdir(parents=True)
        (folder / "checkpoint").write_bytes(b"old")
        age(folder / "checkpoint", 9)
        age(folder, 9)
    [kept] = [blob(store, "kept", hours=9)]
    store.describe_run(store.begin_run("query", config={}), {"blob": kept})
    for run in store.runs():
        store.finish_run(run.id, status="done", counts={})
    killed = child(store, kill_at, "gc")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Store.open(store.path) as after:
        assert sound(after)
        assert after.blob(kept) == b"kept"
        assert set(after.boxes("s", "offered").image_ids) == {full["ids"][3]}
    again = child(store, 0, "gc")
    assert again.returncode == 0, again.stderr
    with Store.open(store.path) as after:
        assert sound(after)
        assert after.blob(kept) == b"kept"
        assert after.dead_vectors() == {}
        assert set(after.boxes("s", "offered").image_ids) == {full["ids"][3]}
        for name in loose:
            with pytest.raises(NotFoundError):
                after.blob(name)
        assert len(list((store.path / "vectors").iterdir())) == 1
    assert not any(folder.exists() for folder in trainings)
