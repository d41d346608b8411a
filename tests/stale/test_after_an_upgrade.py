"""A workspace of schema 0001 goes on after its upgrade: what can be kept is kept, nothing wrong is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator import pipeline
from curator.errors import InputError
from store import schema
from store.store import Store
from store.workspace import open_database
from tests.saved_workspace import unpack
from tests.stale.loop import detecting, diagnosing, explaining, indexing, querying

EMBEDDER = "detector:?dimension=64"
INDEX = indexing(embedder=EMBEDDER, candidates=1, windows=0)


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    unpack(tmp_path)
    opened = open_database(tmp_path / "ws")
    schema.upgrade(opened, tmp_path / "ws")
    opened.close()
    with Store.open(tmp_path / "ws") as found:
        yield found


def content(store: Store) -> list[tuple[object, ...]]:
    """The current diagnosis without keys, which later versions of a stage make anew."""
    return [(o.image_id, o.kind, o.cause, o.category, o.box, o.score, o.target) for o in store.outcomes()]


def test_the_same_commands_give_the_same_diagnosis(store: Store) -> None:
    before = content(store)
    pipeline.detect(store, detecting(score_floor=0.25))
    pipeline.diagnose(store, diagnosing(score_threshold=0.35))
    assert content(store) == before


def test_another_configuration_and_back(store: Store) -> None:
    before = content(store)
    pipeline.diagnose(store, diagnosing(score_threshold=0.5))
    assert content(store) != before
    pipeline.diagnose(store, diagnosing(score_threshold=0.35))
    assert content(store) == before


def test_items_that_no_version_changed_are_kept(store: Store) -> None:
    """The diagnosis' keys are those of version 0001: its items are counted as the new run's."""
    outcomes = store.outcomes()
    assert pipeline.diagnose(store, diagnosing(score_threshold=0.35)).done == 0
    assert store.outcomes() == outcomes


def test_vectors_of_an_older_index_are_not_used(store: Store) -> None:
    """Version 0001 did not record which explanation a region's vector came from."""
    asked = querying(embedder=EMBEDDER, budget=2)
    with pytest.raises(InputError, match="curator index"):
        pipeline.query(store, asked)
    made = pipeline.index(store, INDEX)
    assert made.failed == 0
    assert made.summary["explained_by"].startswith("e2x")
    summary = pipeline.query(store, asked).summary
    assert not any("curator index" in warning for warning in summary["warnings"])


def test_explaining_again_computes_anew_and_changes_no_map(store: Store) -> None:
    """Keys of version 0001 held a precision that a stopwatch had chosen."""
    before = [(a.outcome_id, a.map.phi.tobytes()) for a in store.attributions()]  # type: ignore[union-attr]
    result = pipeline.explain(store, explaining(segments=20, successes=1))
    assert result.done == 3
    after = [(a.outcome_id, a.map.phi.tobytes()) for a in store.attributions()]  # type: ignore[union-attr]
    assert after == before
