"""What was added and removed again leaves later stages as if it had never been there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator import pipeline
from curator.data.settings import AddConfig, ExportConfig, RemoveConfig
from curator.diagnose.run_current import read_current
from curator.example.dataset import write_dataset
from store.records import ROLES
from store.store import Store
from tests.stale.loop import (
    detecting,
    diagnosing,
    explaining,
    indexing,
    querying,
    read_explanations,
    read_outcomes,
    read_selection,
)

Fresh = Callable[..., Store]


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every role that come and go, with a class of their own."""
    root = tmp_path_factory.mktemp("extra")
    write_dataset(root, sizes={"train": 3, "mine": 4, "pool": 5, "holdout": 2}, seed=11, size=96)
    for role in ROLES:
        [labels] = (root / role).glob("*.json")
        table = json.loads(labels.read_text())
        table["categories"].append({"id": 99, "name": "ufo"})
        labels.write_text(json.dumps(table))
    return root


def add_extra(store: Store, extra: Path) -> None:
    for role in ROLES:
        pipeline.add(store, AddConfig(format="coco", path=extra / role, role=role, dataset="extra"))


def mine(store: Store) -> None:
    """Everything up to the index."""
    pipeline.detect(store, detecting())
    pipeline.diagnose(store, diagnosing())
    pipeline.explain(store, explaining())
    pipeline.index(store, indexing())


def remove_extra(store: Store) -> dict[str, Any]:
    config = RemoveConfig(kind="dataset", names=("extra",))
    plan = pipeline.plan_removal(store, config)
    assert pipeline.remove(store, config).summary["counts"]["images"] == plan["counts"]["images"] == 14
    return plan


def exported(store: Store, out: Path) -> dict[str, bytes]:
    pipeline.query(store, querying())
    pipeline.export(store, ExportConfig(format="coco", out=out, selections=("query",)))
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def picture(store: Store) -> tuple[Any, ...]:
    """What stages read."""
    counts = {k: v for k, v in store.counts().items() if k not in ("runs", "selections", "hits", "versions")}
    classes = [category.name for category in store.categories()]
    current = read_current(store, "test")
    return current.digest, counts, classes, read_outcomes(store), read_explanations(store)


def test_removed_is_as_if_never_added(fresh: Fresh, extra: Path, tmp_path: Path) -> None:
    never, both = fresh("diagnosed"), fresh("diagnosed")
    for store in (never, both):
        mine(store)
    add_extra(both, extra)
    mine(both)
    assert picture(both) != picture(never)
    with_extra = exported(both, tmp_path / "with")
    remove_extra(both)
    assert picture(both) == picture(never)
    assert exported(both, tmp_path / "both") == exported(never, tmp_path / "never") != with_extra
    assert read_selection(both) == read_selection(never)
    assert both.selection("query").key == never.selection("query").key
    for stage in (pipeline.detect, pipeline.diagnose, pipeline.explain, pipeline.index):
        config = {"detect": detecting, "diagnose": diagnosing, "explain": explaining, "index": indexing}
        assert stage(both, config[stage.__name__]()).done == 0  # nothing of the others was lost


def test_projections_that_saw_the_removed_are_fitted_anew(fresh: Fresh, extra: Path, tmp_path: Path) -> None:
    never, both = fresh("added"), fresh("added")
    mine(never)
    add_extra(both, extra)
    mine(both)
    [space] = remove_extra(both)["spaces"]
    assert picture(both)[0] == picture(never)[0]
    pipeline.remove(both, RemoveConfig(kind="index", names=(space,)))
    mine(both)
    assert exported(both, tmp_path / "both") == exported(never, tmp_path / "never")
    assert read_selection(both) == read_selection(never)


def test_added_again_after_a_removal(fresh: Fresh, extra: Path) -> None:
    store = fresh("diagnosed")
    mine(store)
    add_extra(store, extra)
    mine(store)
    pipeline.query(store, querying())
    before = picture(store)
    pipeline.suspects(store, pipeline.SuspectsConfig())
    remove_extra(store)
    assert not any("blob" in run.facts for run in store.runs(stage="suspects"))
    add_extra(store, extra)
    mine(store)
    pipeline.query(store, querying())
    assert picture(store) == before
    known = {outcome.id for outcome in store.outcomes()}
    assert {hit.outcome_id for hit in store.selection("query").hits} <= known  # asked anew, not taken back


def test_a_removed_model_hands_over_to_the_one_before(fresh: Fresh) -> None:
    from tests.stale.loop import OTHER_DETECTOR

    store = fresh("diagnosed")
    pipeline.explain(store, explaining())
    before = picture(store)
    pipeline.detect(store, detecting(detector=OTHER_DETECTOR))
    pipeline.diagnose(store, diagnosing(detector=OTHER_DETECTOR))
    pipeline.explain(store, explaining())
    assert picture(store)[0] != before[0]
    pipeline.remove(store, RemoveConfig(kind="model", names=(OTHER_DETECTOR,)))
    assert picture(store) == before
