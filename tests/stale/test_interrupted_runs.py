"""Runs whose process is gone are shown as interrupted at the next start; those of a living one are running.

At 31c7fc5 failed: all of them (a killed run stayed "running", Ctrl-C gave "failed").
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curator import pipeline
from store.store import Store
from tests.stale.loop import Stopping, detecting

Open = Callable[[str], Store]

CHILD = """
import sys, time
from store.store import Store
store = Store.open(sys.argv[1])
print(store.begin_run("detect", config={}), flush=True)
time.sleep(120)
"""


def start(path: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that has begun a run, and the run's id."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, child.wait()
    return child, int(line)


def test_a_killed_run_is_interrupted_and_a_living_one_runs(fresh: Open) -> None:
    path = fresh("added").path
    children = [start(path) for _ in range(2)]
    try:
        (killed, killed_run), (_, living_run) = children
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        with Store.open(path) as store:
            status = {run.id: run.status for run in store.runs(stage="detect")}
        assert (status[killed_run], status[living_run]) == ("interrupted", "running")
    finally:
        for child, _ in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_ctrl_c_interrupts(fresh: Open) -> None:
    store = fresh("added")
    with pytest.raises(KeyboardInterrupt):
        pipeline.detect(store, detecting(), executor=Stopping(1))
    assert store.runs(stage="detect")[0].status == "interrupted"
    assert store.runs(stage="detect")[0].counts["done"] == 4


def test_an_own_run_goes_on(fresh: Open) -> None:
    """Opening the workspace once more, in the same process, interrupts nothing."""
    store = fresh("added")
    run = store.begin_run("detect", config={})
    with Store.open(store.path) as other:
        assert other.runs(stage="detect")[0].status == "running"
    store.finish_run(run, status="done", counts={})
