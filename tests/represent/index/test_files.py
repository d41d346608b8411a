"""Files of an index: loaded, damaged, stale, killed, grown, in several shards, mapped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curator.errors import StageError
from curator.represent.index import build
from curator.represent.index.base import ArrayRows, IndexPlan
from curator.represent.index.faiss_index import RowIndex, open_index
from curator.represent.index.plan import plan

KINDS = ["flat", "hnsw", "ivfpq"]
COUNT, DIMENSION = 2400, 12
VALUES = np.random.default_rng(3).normal(size=(12_000, DIMENSION)).astype(np.float32)
QUERIES = VALUES[::97][:20]


def rows(count: int = COUNT) -> ArrayRows:
    """The first `count` rows."""
    return ArrayRows(VALUES[:count])


def opened(folder: Path | None, kind: str = "ivfpq", count: int = COUNT, **options: Any) -> RowIndex:
    """An index that scans for no small size."""
    options = {"plan": plan(COUNT, DIMENSION, kind=kind), **options}
    return open_index(rows(count), folder, exact_rows=0, **options)


def found(index: RowIndex) -> list[list[int]]:
    """Ten rows for each query."""
    return index.search(QUERIES, 10)[1].tolist()


def part(index: RowIndex, count: int) -> float:
    """recall@10 over the first `count` rows."""
    exact = np.argsort(-QUERIES @ VALUES[:count].T, axis=1)[:, :10]
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found(index), strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_loaded_not_built(tmp_path: Path, kind: str) -> None:
    built = opened(tmp_path, kind)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = opened(tmp_path, kind)
    assert again.facts.seconds == 0
    assert found(again) == found(built)
    assert dataclasses.replace(again.facts, seconds=0) == dataclasses.replace(built.facts, seconds=0)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {n: t for n, t in after.items() if n != "index.lock"} == {
        n: t for n, t in before.items() if n != "index.lock"
    }


@pytest.mark.parametrize("harm", ["delete", "cut", "flip", "swap"])
@pytest.mark.parametrize("which", ["*-0*.faiss", "*-trained.faiss", "index.json"])
@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_damaged_files_are_made_again(tmp_path: Path, kind: str, which: str, harm: str) -> None:
    expected = found(opened(tmp_path, kind))
    (path,) = tmp_path.glob(which)
    body = path.read_bytes()
    if harm == "delete":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(body[:-7])
    elif harm == "flip":
        path.write_bytes(body[:200] + bytes([body[200] ^ 1]) + body[201:])
    else:
        path.write_bytes(b"{}")
    index = opened(tmp_path, kind)
    assert found(index) == expected
    assert index.facts.seconds > 0
    assert opened(tmp_path, kind).facts.seconds == 0


def test_an_index_of_other_rows_is_built_anew(tmp_path: Path) -> None:
    opened(tmp_path)
    other = ArrayRows(VALUES[5000 : 5000 + COUNT])
    index = open_index(other, tmp_path, plan=plan(COUNT, DIMENSION, kind="ivfpq"), exact_rows=0)
    assert index.facts.seconds > 0
    exact = np.argsort(-QUERIES @ VALUES[5000 : 5000 + COUNT].T, axis=1)[:, :10]
    assert np.mean([np.isin(e, f).mean() for e, f in zip(exact, found(index), strict=True)]) >= 0.95
    fewer = opened(tmp_path, count=1000)
    assert max(map(max, found(fewer))) < 1000


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_new_rows_are_added_without_training(tmp_path: Path, kind: str) -> None:
    opened(tmp_path, kind)
    (trained,) = tmp_path.glob("*-trained.faiss")
    for count in (2500, 2600, 2700, 4000, 9000):
        index = opened(tmp_path, kind, count)
        assert index.facts.count == count
        assert index.facts.shards <= 3
        assert part(index, count) >= 0.93  # 200 rows of 20 queries; the promise is measured on 1,000
        assert list(tmp_path.glob("*-trained.faiss")) == [trained]
        assert found(opened(tmp_path, kind, count)) == found(index)
    index = opened(tmp_path, kind, 12_000)  # more than four times as many
    assert list(tmp_path.glob("*-trained.faiss")) != [trained]
    assert part(index, 12_000) >= 0.93


def test_few_new_rows_leave_the_large_shard_alone(tmp_path: Path) -> None:
    opened(tmp_path)
    (large,) = tmp_path.glob("*-0*.faiss")
    index = opened(tmp_path, count=2500)
    assert large.exists()
    assert index.facts.shards == 2
    assert opened(tmp_path, count=2560).facts.shards == 2  # the small one took them in
    assert large.exists()


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_shards_answer_as_one(tmp_path: Path, kind: str) -> None:
    one = opened(tmp_path / "one", kind)
    many = opened(tmp_path / "many", kind, shard_rows=700)
    assert (one.facts.shards, many.facts.shards) == (1, 4)
    if kind == "ivfpq":
        assert found(one) == found(many)
    assert part(many, COUNT) >= 0.93
    allowed = np.arange(COUNT) % 3 == 0
    assert set(many.search(QUERIES, 10, allowed=allowed)[1].ravel() % 3) == {0}


def test_mapped_lists_answer_as_those_in_memory(tmp_path: Path) -> None:
    memory = plan(COUNT, DIMENSION, kind="ivfpq")
    disk = plan(COUNT, DIMENSION, kind="ivfpq", memory_bytes=0)
    assert (memory.mapped, disk.mapped) == (False, True)
    kept = opened(tmp_path / "memory", plan=memory)
    mapped = opened(tmp_path / "disk", plan=disk, shard_rows=1000)
    assert found(mapped) == found(kept)
    assert mapped.facts.resident_bytes < kept.facts.resident_bytes + 1 - 2400 * 8
    grown = opened(tmp_path / "disk", plan=disk, shard_rows=1000, count=2500)
    assert grown.facts.shards == 4
    assert part(grown, 2500) >= 0.93


class KilledError(Exception):
    """Stands for SIGKILL: nothing is tidied up."""


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_a_killed_build_goes_on(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PIECE", 500)
    monkeypatch.setattr(build, "CHUNK", 250)
    expected = opened(tmp_path / "whole", kind)
    folder = tmp_path / "killed"
    added: list[int] = []
    for stop in (700, 1500, 2400):

        def progress(done: int, total: int, stop: int = stop) -> None:
            added.append(done)
            if done >= stop:
                raise KilledError

        with pytest.raises(KilledError):
            opened(folder, kind, progress=progress)
        (folder / "left.faiss.0.part").write_bytes(b"half")
    index = opened(folder, kind, progress=lambda done, total: added.append(done))
    assert added.count(500) == 1  # the first piece was kept
    if kind == "ivfpq":
        assert found(index) == found(expected)
    assert part(index, COUNT) >= 0.93
    assert {path.suffix for path in folder.iterdir()} == {".faiss", ".json", ".lock"}


@pytest.mark.parametrize("kind", KINDS)
def test_dead_rows_are_remembered(tmp_path: Path, kind: str) -> None:
    dead = np.unique(found(opened(tmp_path, kind)))[:50]
    opened(tmp_path, kind).delete(dead)
    assert not np.isin(found(opened(tmp_path, kind)), dead).any()
    assert not np.isin(found(opened(tmp_path, kind, 2500)), dead).any()
    assert opened(tmp_path, kind, dead=dead[:1]).facts.dead == 1
    assert opened(tmp_path, kind).facts.dead == 1
    (path,) = tmp_path.glob("*-dead.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"open the index with the dead rows named"):
        opened(tmp_path, kind)
    assert opened(tmp_path, kind, dead=dead).facts.dead == 50


def test_dead_rows_survive_training_anew(tmp_path: Path) -> None:
    dead = np.unique(found(opened(tmp_path)))[:50]
    opened(tmp_path).delete(dead)
    assert not np.isin(found(opened(tmp_path, count=12_000)), dead).any()


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    opened(tmp_path)
    header = json.loads((tmp_path / "index.json").read_text())["header"]
    assert (header["rows"], header["dimension"], header["kind"]) == (COUNT, DIMENSION, "ivfpq")
    assert len(header["digest"]) == 64
    assert sum(shard["end"] - shard["first"] for shard in header["shards"]) == COUNT


@pytest.mark.parametrize(
    ("count", "memory", "kind", "mapped"),
    [
        (0, None, "flat", False),
        (100_000, None, "flat", False),
        (1_000_000, None, "ivfpq", False),
        (1_000_000, 10**9, "hnsw", False),
        (10_000_000, None, "ivfpq", False),
        (10_000_000, 10**8, "ivfpq", True),
    ],
)
def test_plans(count: int, memory: int | None, kind: str, mapped: bool) -> None:
    found: IndexPlan = plan(count, 64, memory_bytes=memory)
    assert (found.kind, found.mapped) == (kind, mapped)
    assert found.resident_bytes <= (64 * count if memory is None else max(memory, found.disk_bytes // 20))
    assert found.why.endswith(".")


def test_what_is_planned_is_what_is_kept(tmp_path: Path) -> None:
    for kind in ("hnsw", "ivfpq"):
        index = opened(tmp_path / kind, kind)
        assert index.plan.resident_bytes == pytest.approx(index.facts.resident_bytes, rel=0.15)
    assert plan(10**6, 100).kind == "opq"
    assert plan(50, 100, kind="ivfpq").kind == "flat"


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = open_index(rows(0), tmp_path)
    assert (index.search(QUERIES, 3)[1] == -1).all()
    assert len(open_index(rows(5), tmp_path).search(QUERIES, 5)[1][0]) == 5
