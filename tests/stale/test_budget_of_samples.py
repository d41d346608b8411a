"""Settings A, then B, then A again under one name: no painting past the budget, and A's samples alone count.

At 31c7fc5 failed: `test_a_killed_after_b` (A's stored samples were not seen, so more were painted).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curator import pipeline
from store.store import Store
from tests.stale.loop import Stopping, explaining, painting, read_samples

Open = Callable[[str], Store]


def test_back_to_a(fresh: Open, inpainter: Path) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, explaining())
    a, b = painting(inpainter), painting(inpainter, seed=1)
    first = pipeline.synthesize(store, a)
    rows = read_samples(store)
    pipeline.synthesize(store, b)
    again = pipeline.synthesize(store, a)
    assert again.done == 0
    assert {**again.summary, "unplaced_reasons": {}} == {**first.summary, "unplaced_reasons": {}}
    assert read_samples(store) == rows
    accepted = store.samples(name="synthesis", accepted=True)
    assert len(accepted) == again.summary["accepted"] <= a.budget


def test_a_killed_after_b(fresh: Open, inpainter: Path) -> None:
    undisturbed, store = fresh("diagnosed"), fresh("diagnosed")
    a, b = painting(inpainter), painting(inpainter, seed=1)
    for each in (undisturbed, store):
        pipeline.explain(each, explaining())
    expected = pipeline.synthesize(undisturbed, a)
    pipeline.synthesize(store, b)
    with pytest.raises(KeyboardInterrupt):
        pipeline.synthesize(store, a, executor=Stopping(2))
    resumed = pipeline.synthesize(store, a)
    assert (resumed.done, resumed.skipped) == (expected.done - 2, 2)
    assert resumed.summary["accepted"] == expected.summary["accepted"]
    assert read_samples(store) == read_samples(undisturbed)
    assert len(store.samples(name="synthesis", accepted=True)) <= a.budget


def test_a_larger_budget_paints_only_what_is_missing(fresh: Open, inpainter: Path) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, explaining())
    small = pipeline.synthesize(store, painting(inpainter))
    large = pipeline.synthesize(store, painting(inpainter, budget=5))
    assert large.skipped == small.done
    assert len(store.samples(name="synthesis", accepted=True)) == large.summary["accepted"]
    pipeline.synthesize(store, painting(inpainter))
    assert len(store.samples(name="synthesis", accepted=True)) == small.summary["accepted"]
