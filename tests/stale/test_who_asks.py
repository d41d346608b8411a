"""A query says how many of the asked failures it used, and why the others did not ask.

At 31c7fc5 failed: all of them (on photographs 34 failures were asked for, 3 were used, and nothing said so).
"""

from __future__ import annotations

from collections.abc import Callable

from curator import pipeline
from store.store import Store
from tests.stale.loop import Failing, explaining, indexing, querying

Open = Callable[[str], Store]


def test_used_and_unused_add_up(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, explaining())
    pipeline.index(store, indexing())
    summary = pipeline.query(store, querying()).summary
    wanted = sum(o.kind == "FN" for o in store.outcomes())
    asking = summary["asking"]
    assert asking["failures"] == wanted
    assert asking["used"] == wanted  # every failure with vectors is learned from
    assert asking["unused"] == {}
    assert pipeline.query(store, querying()).summary["asking"] == asking  # stored with the selection


def test_failures_that_are_not_indexed_are_named(fresh: Open) -> None:
    store = fresh("diagnosed")
    misses = [o for o in store.outcomes() if o.kind == "FN"]
    broken = misses[0].image_id
    pipeline.index(store, indexing(), executor=Failing(broken))
    asking = pipeline.query(store, querying(method="similarity")).summary["asking"]
    absent = sum(o.image_id == broken for o in misses)
    assert asking["used"] == len(misses) - absent
    ((reason, count),) = asking["unused"].items()
    assert "curator index" in reason
    assert count == absent


def test_a_baseline_uses_them_all(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.index(store, indexing())
    asking = pipeline.query(store, querying(method="similarity")).summary["asking"]
    assert asking["used"] == asking["failures"]
    assert asking["unused"] == {}
