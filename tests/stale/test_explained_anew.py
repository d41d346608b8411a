"""What index, query and synthesize make of explanations that changed since.

At 31c7fc5 failed: all but `test_explaining_in_parts_adds_up` and `test_explaining_anew_embeds_...`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator import pipeline
from curator.cli.fix import query_lines
from curator.diagnose.run_current import read_current
from curator.errors import InputError
from curator.query.run_indexed import indexed, read_mined
from store.store import Store
from tests.stale.loop import (
    Stopping,
    explaining,
    indexing,
    painting,
    querying,
    read_explanations,
    read_samples,
    read_selection,
)

Open = Callable[[str], Store]
FIRST, SECOND = explaining(), explaining(samples=4, seed=5)


def through(store: Store, config: Any) -> list[Any]:
    """Explain, index and query; what of the culprits was asked with, and what was answered."""
    pipeline.explain(store, config)
    pipeline.index(store, indexing())
    pipeline.query(store, querying())
    return [culprit_rows(store), read_selection(store)]


def culprit_rows(store: Store) -> list[Any]:
    """The region vectors that a query compares with."""
    current = read_current(store, "test")
    outcomes = {o.id: o.key for o in current.outcomes}
    index = indexed(store, "detector:", current, store.image_ids(role="pool"))
    table = read_mined(store, current, index).culprits
    assert table is not None
    return [
        (outcomes[int(o)], tuple(box), vector.tobytes())
        for o, box, vector in zip(table.outcome_ids, table.boxes, table.views["object"], strict=True)
    ]


def test_explaining_differently_gives_what_a_fresh_workspace_gives(fresh: Open) -> None:
    expected = through(fresh("diagnosed"), SECOND)
    store = fresh("diagnosed")
    first = through(store, FIRST)
    assert first[0] != expected[0]
    assert through(store, SECOND) == expected
    assert through(store, FIRST) == first  # and back


def test_a_query_before_explaining_is_not_the_one_after(fresh: Open) -> None:
    """query, explain, index, query: the second query saw the first one's key and kept its selection."""
    store = fresh("diagnosed")
    pipeline.index(store, indexing())
    pipeline.query(store, querying())
    before = store.selection("query").key
    through(store, FIRST)
    assert store.selection("query").key != before
    other = fresh("diagnosed")
    assert read_selection(store) == through(other, FIRST)[1]


def test_an_index_that_grew_is_asked_again(fresh: Open) -> None:
    """A query of a half-made index is not the answer of the whole one."""
    store = fresh("diagnosed")
    with pytest.raises(KeyboardInterrupt):
        # 12 of 18 images, after two batches for the projections.
        pipeline.index(store, indexing(), executor=Stopping(5))
    half = pipeline.query(store, querying())
    assert any("curator index" in warning for warning in half.summary["warnings"])
    pipeline.index(store, indexing())
    assert pipeline.query(store, querying()).skipped == 0
    whole = fresh("diagnosed")
    pipeline.index(whole, indexing())
    pipeline.query(whole, querying())
    assert read_selection(store) == read_selection(whole)


def test_a_side_look_changes_nothing_that_later_stages_use(fresh: Open, inpainter: Path) -> None:
    looked, plain = fresh("diagnosed"), fresh("diagnosed")
    rows = []
    for store in (looked, plain):
        pipeline.explain(store, FIRST)
        if store is looked:
            result = pipeline.explain(store, explaining(method="lime", samples=8, aside=True))
            assert result.summary["explained"]["FN"] > 0
        pipeline.index(store, indexing())
        pipeline.query(store, querying())
        pipeline.synthesize(store, painting(inpainter))
        seen = [read(store) for read in (read_explanations, culprit_rows, read_selection, read_samples)]
        rows.append(seen)
    assert rows[0] == rows[1]


def test_another_method_becomes_current_and_the_former_comes_back(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, FIRST)
    expected = read_explanations(store)
    pipeline.explain(store, explaining(method="lime", samples=8))
    assert {a.method for a in store.attributions()} == {"lime"}
    again = pipeline.explain(store, FIRST)
    assert again.done == 0
    assert read_explanations(store) == expected


def test_one_stopped_before_it_stored_anything_hides_nothing(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, FIRST)
    expected = read_explanations(store)
    with pytest.raises(KeyboardInterrupt):
        pipeline.explain(store, explaining(method="lime", samples=8), executor=Stopping(0))
    assert read_explanations(store) == expected


def test_an_unknown_class_is_refused(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, FIRST)
    expected = read_explanations(store)
    with pytest.raises(InputError, match="no outcome has the class 'unicorn'; there are"):
        pipeline.explain(store, explaining(failures="FN,class=unicorn"))
    assert read_explanations(store) == expected


def test_stages_say_whose_explanations_they_use(fresh: Open, inpainter: Path) -> None:
    store = fresh("diagnosed")
    assert pipeline.index(store, indexing()).summary["explained_by"] is None
    pipeline.explain(store, FIRST)
    for stage, config in (
        ("index", indexing()),
        ("query", querying(method="contrastive")),
        ("synthesize", painting(inpainter)),
    ):
        assert getattr(pipeline, stage)(store, config).summary["explained_by"].startswith("e2x"), stage
    for method in ("predictor", "similarity", "random"):  # these read none
        told = pipeline.query(store, querying(method=method)).summary
        assert not any("explained" in line for line in [*told, *query_lines(told)]), method


def test_a_stale_index_is_named(fresh: Open) -> None:
    store = fresh("diagnosed")
    through(store, FIRST)
    pipeline.explain(store, SECOND)
    summary = pipeline.query(store, querying()).summary
    assert any("curator index" in warning for warning in summary["warnings"])


def test_explaining_in_parts_adds_up(fresh: Open) -> None:
    """Which failures are explained is no part of the configuration."""
    parts, whole = fresh("diagnosed"), fresh("diagnosed")
    for failures in ("FN:under-threshold", "FN:miss", "FP", ""):
        pipeline.explain(parts, explaining(failures=failures))
    pipeline.explain(whole, explaining(failures=""))
    assert read_explanations(parts) == read_explanations(whole)


def test_explaining_anew_embeds_only_the_images_concerned(fresh: Open) -> None:
    store = fresh("diagnosed")
    through(store, FIRST)
    pipeline.explain(store, SECOND)
    result = pipeline.index(store, indexing())
    explained = {o.image_id for o in store.outcomes() if o.kind == "FN"}
    assert 0 < result.done <= len(explained)
