"""Retrieve first: a note where the query expects the pool to hold what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curator.synthesize.run_retrieve import retrieve_first
from store.records import Selection
from store.store import Store


def _group(name: str, expected: float, low: float) -> dict[str, Any]:
    coverage = {"expected": expected, "low": low, "high": 2 * expected, "level": 0.9, "absent": False}
    return {"name": name, "coverage": coverage}


def test_what_the_pool_holds_is_told_most_first_and_nothing_else_is(tmp_path: Path) -> None:
    with Store.create(tmp_path / "workspace") as store:
        run, keys = store.begin_run("query", config={}), list[str]()

        def note(*groups: dict[str, Any]) -> list[str]:
            key = str(len(keys))  # equal keys are one selection
            keys.append(key)
            selection = Selection(name="q", arm="query", hits=(), key=key, config={"groups": list(groups)})
            store.put_selection(run, selection)
            return retrieve_first(store, "q")

        assert retrieve_first(store, None) == []
        assert note() == []
        assert note({"name": "random", "coverage": None}, _group("FN:miss:cup", 0.8, 0.1)) == []
        (said,) = note(
            _group("FN:miss:cup", 4.0, 2.0),
            _group("FN:miss:plate", 12.3, 5.2),
            _group("FN:miss:fork", 0.5, 0.0),
        )
        assert "FN:miss:plate about 12 [5, 25], FN:miss:cup about 4 [2, 8]" in said
        assert "fork" not in said
        (said,) = note(*(_group(f"FN:miss:{i}", 10 + i, 2) for i in range(5)))
        assert "2 more groups" in said
