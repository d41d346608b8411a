"""Every kind of index against the exact scan: sizes, filters of all shares, tombstones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import InputError
from curator.represent.index.allowed import Allowed
from curator.represent.index.base import ArrayRows, Metric
from curator.represent.index.exact import scan
from curator.represent.index.faiss_index import RowIndex, open_index
from curator.represent.index.plan import plan

DIMENSION = 16
KINDS = ["flat", "hnsw", "ivfpq", "opq"]


def rows_like_real_ones(count: int, seed: int = 0) -> ArrayRows:
    """int8 rows around 60 centres with a falling spectrum."""
    random = np.random.default_rng(seed)
    spectrum = (1 + np.arange(DIMENSION)) ** -0.5
    centres = random.normal(size=(60, DIMENSION)) * spectrum
    values = centres[random.integers(0, 60, count)] + 0.6 * random.normal(size=(count, DIMENSION)) * spectrum
    return ArrayRows(np.clip(np.rint(25 * values), -127, 127).astype(np.int8), scale=25)


def brute(rows: ArrayRows, queries: Any, k: int, metric: Metric, mask: Any = None) -> tuple[Any, Any]:
    """(scores, rows) by one matrix product."""
    values = rows.read(np.arange(rows.count)).astype(np.float64)
    products = queries.astype(np.float64) @ values.T
    keys = -products if metric == "ip" else (queries**2).sum(1)[:, None] + (values**2).sum(1) - 2 * products
    if mask is not None:
        keys[:, ~mask] = np.inf
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(keys, order, 1)
    return (-scores if metric == "ip" else scores), np.where(np.isfinite(scores), order, -1)


def recall(scores: Any, truth: Any, metric: Metric) -> float:
    """Part of the answers that are as near as the true k-th: of equal rows any will do."""
    reach = truth[:, -1:]
    good = scores >= reach - 1e-3 if metric == "ip" else scores <= reach + 1e-3
    return float(np.mean(good))


@pytest.fixture(scope="module")
def indexes() -> dict[tuple[str, str], RowIndex]:
    """Each kind and metric over 4,000 rows; never a scan because of small size."""
    rows = rows_like_real_ones(4000)
    return {
        (kind, metric): open_index(
            rows, metric=metric, plan=plan(rows.count, DIMENSION, kind=kind), exact_rows=0
        )
        for kind in KINDS
        for metric in ("ip", "l2")
    }


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_scan_is_exact(metric: Metric, count: int) -> None:
    rows = rows_like_real_ones(count)
    queries = rows_like_real_ones(7, seed=1).read(np.arange(7))
    for k in (1, 3, 8):
        scores, found = scan(rows, queries, k, metric=metric)
        truth, _ = brute(rows, queries, k, metric)
        assert ((found >= 0).sum(1) == min(k, count)).all()
        np.testing.assert_allclose(scores[:, :count], truth, atol=1e-3)
        assert all(len(set(line)) == min(k, count) for line in found[:, :count].tolist())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(["ip", "l2"]),
    k=st.sampled_from([1, 10, 40]),
    form=st.sampled_from(["random", "range", "value", "near", "far"]),
    share=st.sampled_from([0.0, 0.002, 0.03, 0.12, 0.3, 0.6, 0.95, 1.0]),
    seed=st.integers(0, 1000),
)
def test_filters_equal_the_exact_filtered_search(
    indexes: dict[tuple[str, str], RowIndex],
    kind: str,
    metric: Metric,
    k: int,
    form: str,
    share: float,
    seed: int,
) -> None:
    rows = rows_like_real_ones(4000)
    random = np.random.default_rng(seed)
    queries = rows.read(random.choice(rows.count, 100, replace=False))
    values = rows.read(np.arange(rows.count))
    size = round(share * rows.count)
    order = {
        "random": random.permutation(rows.count),
        "range": np.roll(np.arange(rows.count), int(random.integers(rows.count))),
        "value": np.argsort(values[:, int(random.integers(DIMENSION))]),
        "near": np.argsort(-values @ queries[0]),
        "far": np.argsort(values @ queries[0]),
    }[form]
    mask = np.zeros(rows.count, np.bool_)
    mask[order[:size]] = True
    scores, found = indexes[kind, metric].search(queries, k, allowed=Allowed(mask))
    truth, _ = brute(rows, queries, k, metric, mask)
    assert ((found >= 0).sum(1) == min(k, size)).all()
    assert mask[found[found >= 0]].all()
    if kind == "flat" or size <= indexes[kind, metric]._kind.exact_share * rows.count:
        np.testing.assert_allclose(scores[:, :size], truth[:, :size], atol=1e-3)
    elif size:
        assert recall(scores[:, :size], truth[:, :size], metric) >= 0.95


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_deleted_rows_never_come_back(kind: str, metric: Metric) -> None:
    rows = rows_like_real_ones(3000)
    index = open_index(rows, metric=metric, plan=plan(rows.count, DIMENSION, kind=kind), exact_rows=0)
    queries = rows.read(np.arange(0, 3000, 60))
    dead = np.unique(index.search(queries, 5)[1])
    index.delete(dead)
    mask = np.ones(rows.count, np.bool_)
    mask[dead] = False
    for allowed in (None, np.arange(0, 3000, 2), np.arange(3000) % 3 > 0):
        scores, found = index.search(queries, 10, allowed=allowed)
        assert not np.isin(found, dead).any()
        kept = mask.copy()
        if allowed is not None:
            kept &= Allowed.of(allowed, total=3000).mask
        assert recall(scores, brute(rows, queries, 10, metric, kept)[0], metric) >= 0.95
    index.delete(np.arange(rows.count))
    assert (index.search(queries, 3)[1] == -1).all()


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_many_rows_are_found_too(indexes: dict[tuple[str, str], RowIndex], kind: str) -> None:
    rows = rows_like_real_ones(4000)
    queries = rows.read(np.arange(30))
    for k in (100, 1000):
        scores, _ = indexes[kind, "ip"].search(queries, k)
        assert recall(scores, brute(rows, queries, k, "ip")[0], "ip") >= 0.95


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq", "opq"])
def test_scores_are_the_rows_own(indexes: dict[tuple[str, str], RowIndex], kind: str) -> None:
    rows = rows_like_real_ones(4000)
    queries = rows.read(np.array([5, 6]))
    for metric in ("ip", "l2"):
        scores, found = indexes[kind, metric].search(queries, 10)
        exact = np.einsum("qkd,qd->qk", rows.read(found.ravel()).reshape(2, 10, -1), queries)
        if metric == "l2":
            exact = ((rows.read(found.ravel()).reshape(2, 10, -1) - queries[:, None]) ** 2).sum(2)
        np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-4)


def test_the_recall_that_is_stored_is_the_recall(indexes: dict[tuple[str, str], RowIndex]) -> None:
    rows = rows_like_real_ones(4000)
    queries = rows.read(np.random.default_rng(9).choice(4000, 500, replace=False))
    for (kind, metric), index in indexes.items():
        scores, _ = index.search(queries, 10)
        measured = recall(scores, brute(rows, queries, 10, metric)[0], metric)  # type: ignore[arg-type]
        assert index.facts.recall >= 0.95
        assert measured == pytest.approx(index.facts.recall, abs=0.02), (kind, metric)


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        (np.array([4000]), "expected rows within 0 .. 3999, got 4000"),
        (np.array([-1]), "expected rows within 0 .. 3999, got -1"),
        (np.ones(5, np.bool_), "expected a mask of 4000 rows, got 5"),
    ],
)
def test_rows_that_do_not_exist_are_refused(
    indexes: dict[tuple[str, str], RowIndex], allowed: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        indexes["flat", "ip"].search(np.ones(DIMENSION), 1, allowed=allowed)


def test_queries_that_do_not_fit_are_refused(indexes: dict[tuple[str, str], RowIndex]) -> None:
    with pytest.raises(InputError, match=r"expected queries \(Q, 16\)"):
        indexes["ivfpq", "ip"].search(np.ones(15), 1)
    with pytest.raises(InputError, match="k = 0"):
        indexes["ivfpq", "ip"].search(np.ones(16), 0)
    with pytest.raises(InputError, match="finite"):
        indexes["ivfpq", "ip"].search(np.full(16, np.nan), 1)


def test_ranges_ids_and_masks_say_the_same() -> None:
    ranges = Allowed.of_ranges([2, 8, 9], [3, 2, 0], total=12)
    assert np.flatnonzero(ranges.mask).tolist() == [2, 3, 4, 8, 9]
    assert (Allowed.of_ids([9, 8, 2, 3, 4, 4], total=12).mask == ranges.mask).all()
    assert ranges.span is None
    assert Allowed.of_ranges([2, 4], [3, 2], total=12).span == (2, 6)
    with pytest.raises(InputError, match=r"expected ranges within 0 \.\. 12"):
        Allowed.of_ranges(10, 3, total=12)
