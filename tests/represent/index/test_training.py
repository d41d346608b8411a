"""What training an index holds in memory: blocks of rows, and one sample that FAISS needs no copy of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curator.represent.index import build
from curator.represent.index.base import ArrayRows, Floats, Ints, library
from curator.represent.index.faiss_index import open_index
from curator.represent.index.ivf import IvfPq, OpqIvfPq
from curator.represent.index.plan import plan

COUNT, DIMENSION = 2400, 13
VALUES = np.random.default_rng(3).normal(size=(COUNT, DIMENSION)).astype(np.float32)


class CountedRows(ArrayRows):
    """Rows that say how many were read at a time."""

    def __init__(self) -> None:
        super().__init__(VALUES)
        self.reads: list[int] = []

    def read(self, rows: Ints) -> Floats:
        """Rows by number."""
        self.reads.append(len(rows))
        return super().read(rows)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_the_sample_is_read_in_blocks(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHUNK", 500)
    rows = CountedRows()
    open_index(rows, tmp_path, plan=plan(COUNT, DIMENSION, kind=kind))
    blocks = [count for count in rows.reads if count >= 400]
    assert blocks[:5] == [500, 500, 500, 500, 400]


@pytest.mark.parametrize("kind", [IvfPq, OpqIvfPq])
@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("codes", [5, 13, 20])  # padded, as they are, longer than the rows
def test_padding_before_training_changes_no_index(kind: type[IvfPq], metric: str, codes: int) -> None:
    faiss, made = library(), kind()
    parameters = {"lists": 8, "codes": codes, "bits": 4}
    longer = made.sample_dimension(parameters, dimension=DIMENSION)
    sample = np.zeros((COUNT, longer), np.float32)
    sample[:, :DIMENSION] = VALUES
    options = {"dimension": DIMENSION, "metric": metric, "seed": 0}
    padded = made.train(sample, parameters, **options)  # type: ignore[arg-type]
    by_faiss = made.train(VALUES, parameters, **options)  # type: ignore[arg-type]
    assert padded.is_trained
    made.add(padded, VALUES, 0)
    made.add(by_faiss, VALUES, 0)
    assert np.array_equal(faiss.serialize_index(padded), faiss.serialize_index(by_faiss))
    if padded.d != longer:  # what the lists learn from is the sample itself
        assert faiss.extract_index_ivf(padded).d == longer
