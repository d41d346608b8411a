"""The exact answer: a scan of the rows in blocks, and exact scores of some rows.

The scan is the ruler of the other kinds (recall), their answer where a filter leaves little, and the whole of
the kind "flat". FAISS multiplies (`faiss.knn`); the memory is that of one block, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curator.represent.index.allowed import Allowed
from curator.represent.index.base import CHUNK, Floats, Ints, Metric, Rows, library

_VALUES = 1 << 20  # float32 values of candidates that are held at once: 4 MB stay in the processor's cache


def scan(
    rows: Rows, queries: Floats, k: int, *, metric: Metric, allowed: Allowed | None = None
) -> tuple[Floats, Ints]:
    """The k nearest of all, or of the allowed rows, exactly: (scores (Q, k), rows (Q, k)), best first.

    Where fewer rows exist: row -1 and the worst score, -inf (ip) or inf (l2). Equal scores: lower row first.
    """
    faiss = library()
    kind = faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2
    best = nothing(len(queries), k, metric)
    for numbers, block in _blocks(rows, allowed):
        scores, places = faiss.knn(queries, block, min(k, len(block)), metric=kind)
        best = merge(best, (scores, numbers[places]), k, metric)
    if not (best[1] >= 0).any():
        return best
    return rescore(rows, queries, best[1], k, metric=metric)


def rescore(rows: Rows, queries: Floats, candidates: Ints, k: int, *, metric: Metric) -> tuple[Floats, Ints]:
    """The k best of (Q, n) candidate rows (-1 is none) by their exact scores."""
    scores, best = nothing(len(queries), k, metric)
    step = max(1, _VALUES // max(1, candidates.shape[1] * rows.dimension))
    for first in range(0, len(queries), step):
        part = candidates[first : first + step]
        exact = _scores(rows, queries[first : first + step], part, metric)
        scores[first : first + step], best[first : first + step] = _top(exact, part, k, metric)
    return scores, best


def merge(
    one: tuple[Floats, Ints], other: tuple[Floats, Ints], k: int, metric: Metric
) -> tuple[Floats, Ints]:
    """The k best of two answers to the same queries, each (scores (Q, n), rows (Q, n))."""
    scores = np.concatenate([one[0], other[0]], 1)
    return _top(scores, np.concatenate([one[1], other[1]], 1), k, metric)


def nothing(queries: int, k: int, metric: Metric) -> tuple[Floats, Ints]:
    """An answer without rows."""
    worst = -np.inf if metric == "ip" else np.inf
    return np.full((queries, k), worst, np.float32), np.full((queries, k), -1, np.int64)


def _blocks(rows: Rows, allowed: Allowed | None) -> Iterator[tuple[Ints, Floats]]:
    if allowed is None:
        for first, block in rows.chunks():
            yield np.arange(first, first + len(block)), block
    else:
        for numbers in allowed.blocks(CHUNK):
            yield numbers, rows.read(numbers)


def _scores(rows: Rows, queries: Floats, candidates: Ints, metric: Metric) -> Floats:
    """(Q, n) exact scores; the worst one for -1."""
    vectors = rows.read(np.maximum(candidates, 0).reshape(-1)).reshape(*candidates.shape, -1)  # (Q, n, D)
    if metric == "ip":
        scores = np.matmul(vectors, queries[:, :, None])[..., 0]
        return np.where(candidates >= 0, scores, np.float32(-np.inf))
    vectors -= queries[:, None]
    return np.where(candidates >= 0, np.einsum("qnd,qnd->qn", vectors, vectors), np.float32(np.inf))


def _top(scores: Floats, numbers: Ints, k: int, metric: Metric) -> tuple[Floats, Ints]:
    """The k best columns of each line, best first; lines shorter than k are filled up with nothing."""
    keys = -scores if metric == "ip" else scores
    if keys.shape[1] > 4 * k:
        near = np.argpartition(keys, k - 1, axis=1)[:, :k]
        keys, scores = np.take_along_axis(keys, near, 1), np.take_along_axis(scores, near, 1)
        numbers = np.take_along_axis(numbers, near, 1)
    order = np.lexsort((numbers, keys))[:, :k]
    scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    if scores.shape[1] == k:
        return scores, numbers
    full = nothing(len(scores), k, metric)
    full[0][:, : scores.shape[1]], full[1][:, : scores.shape[1]] = scores, numbers
    return full
