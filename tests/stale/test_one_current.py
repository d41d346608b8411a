"""One definition of the model, the class map and what to blame, for every stage.

At 31c7fc5 failed: all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curator import pipeline
from curator.config import ReportConfig
from store.store import Store
from tests.stale.loop import (
    CLASSES,
    NETWORK,
    OTHER_DETECTOR,
    detecting,
    diagnosing,
    explaining,
    indexing,
    painting,
    training,
    verifying,
)

Open = Callable[[str], Store]

NAMES = tuple(f"kind-{i}" for i in range(len(CLASSES)))
OTHER_NAMES = f"curator:ssd?classes={','.join(NAMES)}&{NETWORK}"
MAP = dict(zip(NAMES, CLASSES, strict=True))


def test_a_detection_on_the_side_changes_no_stage(fresh: Open, inpainter: Path, tmp_path: Path) -> None:
    """The model is the diagnosed one, not the newest that ran."""
    store = fresh("diagnosed")
    pipeline.detect(store, detecting(detector=OTHER_DETECTOR))
    model = store.outcomes()[0].model_id
    fingerprint = store.model(model).fingerprint
    pipeline.explain(store, explaining())
    for stage, config in (
        ("explain", explaining()),
        ("index", indexing()),
        ("synthesize", painting(inpainter)),
        ("verify", verifying(arms=("nothing",))),
    ):
        getattr(pipeline, stage)(store, config)
        assert store.runs(stage=stage)[0].models[0] == fingerprint, stage
    out = tmp_path / "report.html"
    pipeline.report(store, ReportConfig(out=out))
    assert fingerprint[:12] in out.read_text(encoding="utf-8")


def test_the_class_map_of_the_diagnosis_is_everyones(fresh: Open, inpainter: Path, tmp_path: Path) -> None:
    store = fresh("added")
    pipeline.detect(store, detecting(detector=OTHER_NAMES))
    pipeline.diagnose(store, diagnosing(class_map=MAP))
    assert {o.category for o in store.outcomes()} <= set(CLASSES)
    out = tmp_path / "weights.safetensors"
    assert pipeline.train(store, training(out, detector=OTHER_NAMES)).summary["missing_classes"] == []
    assert pipeline.verify(store, verifying(arms=("nothing",))).summary["missing_classes"] == []
    pipeline.explain(store, explaining())
    pipeline.synthesize(store, painting(inpainter))
    assert store.samples(name="synthesis")


def test_the_class_map_of_a_former_diagnosis_is_no_ones(fresh: Open, tmp_path: Path) -> None:
    """Diagnosing again without a map means without a map: synthesize took the older one."""
    store = fresh("added")
    pipeline.detect(store, detecting(detector=OTHER_NAMES))
    pipeline.diagnose(store, diagnosing(class_map=MAP))
    pipeline.diagnose(store, diagnosing(class_map={NAMES[0]: CLASSES[0]}))
    trained = pipeline.train(store, training(tmp_path / "w.safetensors", detector=OTHER_NAMES))
    assert trained.summary["missing_classes"] == list(CLASSES[1:])
