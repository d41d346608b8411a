"""SIGKILL in the middle of each stage, then the same command again: same rows as an undisturbed run.

"Same rows" means same keys and payloads: row ids, run ids and times excepted (DESIGN.md, rule 4).
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curator.example.dataset import write_dataset
from store.store import Store

sys.path.insert(0, str(Path(__file__).parent))
from stage_child import counted, run_stage

UNCOMPARED_TABLES = {"runs", "run_parents", "alembic_version"}
UNCOMPARED_COLUMNS = ("id", "created", "updated", "started", "finished", "seconds")


def rows(workspace: Path) -> dict[str, list[str]]:
    """Every table's rows without ids, run ids and times, sorted."""
    connection = sqlite3.connect(workspace / "curator.db")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    result = {}
    for table in sorted(set(tables) - UNCOMPARED_TABLES):
        if table.startswith("sqlite_"):
            continue
        cursor = connection.execute(f'SELECT * FROM "{table}"')
        names = [column[0] for column in cursor.description]
        kept = [
            i
            for i, name in enumerate(names)
            if name != "id"
            and not name.endswith("_id")
            and not name.endswith("_at")
            and not name.startswith(UNCOMPARED_COLUMNS[1:])
        ]
        result[table] = sorted(_timeless("|".join(f"{names[i]}={row[i]!r}" for i in kept)) for row in cursor)
    connection.close()
    return result


def _timeless(text: str) -> str:
    """Drop wall-clock figures that results carry inside their JSON."""
    import re

    return re.sub(r'"[a-z_]*seconds[a-z_]*": ?[0-9.e-]+', "", text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small built-in data set and an empty workspace; the stages of the test add to it."""
    root = tmp_path_factory.mktemp("resume")
    write_dataset(root / "data", sizes={"train": 24, "mine": 24, "pool": 40, "holdout": 24}, seed=3)
    Store.create(root / "ws").close()
    return root


def steps(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """The loop's stages in order with small configurations."""
    data = root / "data"
    add = [
        ("add", {"format": "coco", "path": str(data / role), "role": role})
        for role in ("train", "mine", "holdout", "pool")
    ]
    return [
        *add,
        ("detect", {"detector": "builtin:", "batch_size": 4}),
        ("diagnose", {}),
        ("explain", {"samples": 2, "segments": 30, "successes": 4}),
        ("index", {"batch_size": 8}),
        ("query", {"budget": 8}),
        ("synthesize", {"budget": 3, "steps": 2, "selection": "query", "batch_size": 2}),
        ("export", {"format": "coco", "selections": ["query"], "samples": ["synthesis"]}),
        ("train", {"detector": "builtin:", "selections": ["query"], "steps": 6, "batch_size": 4}),
        ("verify", {"arms": ["nothing", "query"], "budget": 4, "steps": 4, "batch_size": 4}),
        ("report", {}),
    ]


@pytest.mark.timeout(600)
def test_every_stage_survives_a_kill(prepared: Path) -> None:
    workspace = prepared / "ws"
    for number, (stage, fields) in enumerate(steps(prepared)):
        broken = prepared / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(workspace, broken)
        out = {"export": "exported", "train": "weights.safetensors", "report": "report.html"}.get(stage)
        paths = [str(prepared / f"{side}-{out}") for side in ("whole", "broken")]
        whole, again = ({**fields, "out": path} if out else fields for path in paths)

        events = 0

        def count(event: int) -> None:
            nonlocal events
            events = event

        with counted(count):
            undisturbed = run_stage(workspace, stage, whole)
        assert undisturbed.failed == 0, (stage, undisturbed.failures)

        if events:  # a report writes no rows: it has no middle
            config = prepared / f"{number}.json"
            config.write_text(json.dumps(again))
            child = subprocess.run(
                [
                    sys.executable,
                    str(Path(__file__).parent / "stage_child.py"),
                    str(broken),
                    stage,
                    str(config),
                    str((events + 1) // 2),
                ],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert child.returncode == -signal.SIGKILL, (stage, child.returncode, child.stderr[-2000:])
        resumed = run_stage(broken, stage, again)
        assert resumed.failed == 0, (stage, resumed.failures)
        expected, found = rows(workspace), rows(broken)
        for table in expected:
            assert [row.replace("broken-", "whole-") for row in found[table]] == expected[table], (
                stage,
                table,
            )
        if stage == "train":
            assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()

        third = run_stage(broken, stage, again)
        assert third.done == 0 or stage in ("report", "export", "query"), (stage, third)
        assert rows(broken) == found, stage
