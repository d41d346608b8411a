"""A -> B -> A, and A killed -> B -> A: every later stage reads what an undisturbed A gives.

At 31c7fc5 failed: `explain` both ways (readers saw the newest attribution of every method), `synthesize` both
ways with other settings (A's samples were not seen and more were painted), `detect` with another detector
between (the newest model row stood for the newest run), and the same weights under another name.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curator import pipeline
from curator.config import StageConfig
from curator.detect.load import load_detector
from store.store import Store
from tests.stale.loop import (
    CLASSES,
    DETECTOR,
    OTHER_DETECTOR,
    Stopping,
    detecting,
    diagnosing,
    explaining,
    indexing,
    painting,
    querying,
    read_explanations,
    read_outcomes,
    read_samples,
    read_selection,
    read_trials,
    training,
    verifying,
)

Open = Callable[[str], Store]
CHILD = Path(__file__).parents[1] / "resume" / "stage_child.py"


@dataclass(frozen=True)
class Case:
    """A stage with two configurations; `after` runs before reading, `before` before the first of them."""

    stage: str
    first: StageConfig
    second: StageConfig
    read: Callable[[Store], Any]
    before: Sequence[tuple[str, StageConfig]] = ()
    after: Sequence[tuple[str, StageConfig]] = ()
    workspace: str = "diagnosed"
    batches: int = 2

    def run(self, store: Store, config: StageConfig, **more: Any) -> None:
        assert getattr(pipeline, self.stage)(store, config, **more).failed == 0

    def start(self, store: Store) -> Store:
        for stage, config in self.before:
            getattr(pipeline, stage)(store, config)
        return store

    def finish(self, store: Store) -> Any:
        for stage, config in self.after:
            getattr(pipeline, stage)(store, config)
        return self.read(store)


def cases(inpainter: Path) -> dict[str, Case]:
    explained = [("explain", explaining())]
    indexed = [*explained, ("index", indexing())]
    return {
        "detect": Case(
            "detect",
            detecting(),
            detecting(score_floor=0.3),
            read_outcomes,
            after=[("diagnose", diagnosing())],
            workspace="added",
            batches=1,
        ),
        "detect with another detector": Case(
            "detect",
            detecting(),
            detecting(detector=OTHER_DETECTOR),
            read_outcomes,
            after=[("diagnose", diagnosing())],
            workspace="added",
            batches=1,
        ),
        "diagnose": Case(
            "diagnose",
            diagnosing(),
            diagnosing(score_threshold=0.35),
            read_outcomes,
            workspace="detected",
            batches=0,
        ),
        "diagnose with another class map": Case(
            "diagnose",
            diagnosing(),
            diagnosing(class_map={CLASSES[0]: CLASSES[1]}),
            read_outcomes,
            workspace="detected",
            batches=0,
        ),
        "explain": Case("explain", explaining(), explaining(samples=3), read_explanations, batches=1),
        "explain by another method": Case(
            "explain", explaining(), explaining(method="lime", samples=8), read_explanations, batches=1
        ),
        "index": Case(
            "index",
            indexing(),
            indexing(windows=4),
            read_selection,
            before=explained,
            after=[("query", querying())],
        ),
        "query": Case("query", querying(), querying(budget=2), read_selection, before=indexed, batches=-1),
        "query for other failures": Case(
            "query", querying(), querying(failures="FN:miss"), read_selection, before=indexed, batches=-1
        ),
        "synthesize": Case(
            "synthesize", painting(inpainter), painting(inpainter, seed=1), read_samples, before=explained
        ),
        "synthesize with a larger budget": Case(
            "synthesize", painting(inpainter), painting(inpainter, budget=5), read_samples, before=explained
        ),
        "synthesize by other recipes": Case(
            "synthesize",
            painting(inpainter),
            painting(inpainter, recipes=("appearance",)),
            read_samples,
            before=explained,
        ),
        "verify": Case("verify", verifying(), verifying(steps=3), read_trials, batches=1),
        "verify other images": Case("verify", verifying(), verifying(seed=1), read_trials, batches=1),
    }


NAMES = tuple(cases(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str, fresh: Open, inpainter: Path) -> None:
    case = cases(inpainter)[name]
    undisturbed, disturbed = case.start(fresh(case.workspace)), case.start(fresh(case.workspace))
    case.run(undisturbed, case.first)
    expected = case.finish(undisturbed)
    for config in (case.first, case.second):
        case.run(disturbed, config)
    other = case.finish(disturbed)
    case.run(disturbed, case.first)
    assert case.finish(disturbed) == expected
    assert other != expected  # else the two configurations show nothing


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_back(name: str, fresh: Open, inpainter: Path) -> None:
    case = cases(inpainter)[name]
    if case.batches < 0:
        pytest.skip("a query is one transaction")
    undisturbed, disturbed = case.start(fresh(case.workspace)), case.start(fresh(case.workspace))
    case.run(undisturbed, case.first)
    expected = case.finish(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        case.run(disturbed, case.first, executor=Stopping(case.batches))
    case.run(disturbed, case.second)
    case.run(disturbed, case.first)
    assert case.finish(disturbed) == expected


@pytest.mark.parametrize("name", ["explain", "synthesize", "verify"])
def test_the_second_return_computes_nothing(name: str, fresh: Open, inpainter: Path) -> None:
    case = cases(inpainter)[name]
    store = case.start(fresh(case.workspace))
    for config in (case.first, case.second):
        case.run(store, config)
    assert getattr(pipeline, case.stage)(store, case.first).done == 0


def test_the_same_weights_under_another_name(fresh: Open, tmp_path: Path) -> None:
    """At 31c7fc5: "2 of 6 mined images have no detections", and detecting again did not help."""
    load_detector(DETECTOR, "cpu").save(tmp_path / "same.safetensors")  # type: ignore[attr-defined]
    store = fresh("diagnosed")
    expected = read_outcomes(store)[1:]
    spec = f"curator:{tmp_path / 'same.safetensors'}"
    pipeline.detect(store, detecting(detector=spec))
    pipeline.diagnose(store, diagnosing(detector=spec))
    assert read_outcomes(store)[1:] == expected


def test_training_returns_to_the_same_weights(fresh: Open, tmp_path: Path) -> None:
    store, out = fresh("added"), tmp_path / "weights.safetensors"
    pipeline.train(store, training(out))
    first = out.read_bytes()
    pipeline.train(store, training(out, steps=3))
    assert out.read_bytes() != first
    assert pipeline.train(store, training(out)).done == 0
    assert out.read_bytes() == first



def test_killed_by_a_signal_and_back(fresh: Open, tmp_path: Path) -> None:
    """SIGKILL in the middle of A, then B, then A, each in its own opening of the workspace."""
    undisturbed, disturbed = fresh("diagnosed"), fresh("diagnosed")
    pipeline.explain(undisturbed, explaining())
    config = tmp_path / "explain.json"
    config.write_text(json.dumps(explaining().everything()))
    child = subprocess.run(
        [sys.executable, str(CHILD), str(disturbed.path), "explain", str(config), "15"],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    with Store.open(disturbed.path) as store:
        assert store.runs(stage="explain")[0].status == "interrupted"
        assert 0 < len(store.attributions()) < len(undisturbed.attributions())
        pipeline.explain(store, explaining(samples=3))
    with Store.open(disturbed.path) as store:
        pipeline.explain(store, explaining())
        assert read_explanations(store) == read_explanations(undisturbed)
