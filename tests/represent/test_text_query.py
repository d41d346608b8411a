"""`curator query --text` through the stage, with a tiny CLIP beside the detector's own features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.run_current import read_current
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.query.run_examples import example_question
from curator.query.run_indexed import indexed
from curator.query.settings import IndexConfig, QueryConfig
from curator.represent.embedders.load import load_embedder
from curator.represent.projection import Projection
from store.store import Store

DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,8,16,16,16"


def test_words_rank_boxes_as_their_cosines_do(tmp_path: Path, tiny_vision: Path) -> None:
    """The words' vector, carried into the stored components, ranks boxes as it ranks the raw ones."""
    write_dataset(tmp_path / "data", sizes={"mine": 8, "pool": 8}, seed=2, size=96)
    embedder = f"detector:+transformers:{tiny_vision / 'clip'}"
    with Store.create(tmp_path / "ws") as store:
        for role in ("mine", "pool"):
            pipeline.add(store, AddConfig(format="coco", path=tmp_path / "data" / role, role=role))
        pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.4))
        pipeline.index(store, IndexConfig(device="cpu", embedder=embedder))
        config = QueryConfig(embedder=embedder, text="a red flower", budget=4)
        summary = pipeline.query(store, config).summary
        current = read_current(store, "test")
        state = indexed(store, embedder, current, store.image_ids(role="pool"))
        scorer = example_question(config, current, state).scorer
        rows = store.boxes(state.space, "offered")
        values = scorer.values(rows)
        assert pipeline.query(store, config).skipped == 1
        other = pipeline.query(
            store, QueryConfig(name="other", embedder=embedder, text="the sky", budget=4)
        ).summary
    assert len(summary["hits"]) == 4
    assert all(hit["reason"].startswith("text 'a red flower' ") for hit in summary["hits"])
    assert [h["score"] for h in summary["hits"]] != [h["score"] for h in other["hits"]]
    # All twelve components of the tiny model are kept, so that only rounding to int8 stands between.
    view = scorer.view  # type: ignore[attr-defined]
    words = load_embedder(f"transformers:{tiny_vision / 'clip'}", load_detector(DETECTOR, "cpu"))
    (vector,) = words.embed_text(["a red flower"])  # type: ignore[attr-defined]
    found = Projection.stored(state.shape.arrays, view)
    raw = found.mean + found.scale * ((rows.components(view) * found.deviation) @ found.matrix.T)
    assert np.corrcoef(raw @ vector, values)[0, 1] > 0.999
