"""Results may come back in any order: an executor that shuffles them changes no row that is read later.

At 31c7fc5 failed: `synthesize` (which of two near-duplicates is refused, what counts towards the budget, and
which samples come first) and the order of outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curator import pipeline
from store.store import Store
from tests.stale.loop import Shuffling, detecting, diagnosing, explaining, painting, read_samples
from tests.stale.test_there_and_back import NAMES, cases

Open = Callable[[str], Store]


@pytest.mark.parametrize("name", [n for n in NAMES if " " not in n and n != "query"])
@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_results(name: str, seed: int, fresh: Open, inpainter: Path) -> None:
    case = cases(inpainter)[name]
    ordered, shuffled = case.start(fresh(case.workspace)), case.start(fresh(case.workspace))
    case.run(ordered, case.first)
    case.run(shuffled, case.first, executor=Shuffling(seed))
    assert case.finish(shuffled) == case.finish(ordered)


def test_outcomes_are_read_in_one_order(fresh: Open) -> None:
    orders = []
    for executor in (None, Shuffling(2)):
        store = fresh("added")
        pipeline.detect(store, detecting())
        pipeline.diagnose(store, diagnosing(), executor=executor)
        orders.append([o.key for o in store.outcomes()])
    assert orders[0] == orders[1]


def test_near_duplicates_of_samples_in_any_order(fresh: Open, inpainter: Path) -> None:
    """Many plans of one failure and one recipe: some equal each other nearly, and the first one stays."""
    config = painting(inpainter, budget=8, attempts=2, recipes=("culprit",), batch_size=4)
    rows = []
    for executor in (None, Shuffling(0), Shuffling(3)):
        store = fresh("diagnosed")
        pipeline.explain(store, explaining())
        pipeline.synthesize(store, config, executor=executor)
        rows.append(read_samples(store))
    assert rows[0] == rows[1] == rows[2]
