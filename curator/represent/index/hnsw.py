"""Navigable small-world graph over rows of one byte a value.

Malkov, Yashunin, Efficient and robust approximate nearest neighbor search using hierarchical navigable small
world graphs, PAMI 2020. Fast and near exact, for 64 + 148 bytes a row (D = 64), all of them in memory.

A graph finds distances, not inner products. With one more value a row, they are the same (Bachrach et al.,
Speeding up the Xbox recommender system using a Euclidean transformation, RecSys 2014):

    x' = (x, sqrt(M^2 - |x|^2)), q' = (q, 0):   |x' - q'|^2 = M^2 + |q|^2 - 2 <x, q>     M: largest norm

M lies in the FAISS file as what a `CenteringTransform` takes off that value. Rows longer than M count as of
length M in the graph; their exact scores are right.

With a filter the graph is walked as without, and only allowed rows are kept; the list of candidates is made
as long as the allowed part of the rows around the query says (`calibrate`). Where next to none of these is
allowed, nothing is returned, and `faiss_index` scans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.represent.index.allowed import Allowed
from curator.represent.index.base import Floats, Ints, Metric, Shard, library
from curator.represent.index.exact import merge, nothing

_BUILD = 80  # length of the candidate list while the graph is built
_MOST = 4096
_MARGIN = 1.1  # on the largest norm of the sample
_AROUND = 64  # rows around a query that are looked at for a filter, at least
_SPARSE = 10  # one allowed in as many around the query, or the rows are scanned


class Hnsw:
    """HNSW over 8-bit rows. Parameters: `links` (M)."""

    name = "hnsw"
    stored = True
    exact_share = 0.1

    def sample_dimension(self, parameters: Mapping[str, int], *, dimension: int) -> int:
        """D."""
        return dimension

    def train(
        self, sample: Floats, parameters: Mapping[str, int], *, dimension: int, metric: Metric, seed: int
    ) -> Any:
        """Learns the range of each value from (n, D) rows, and the largest norm."""
        faiss = library()
        more = 1 if metric == "ip" else 0
        graph = faiss.index_factory(dimension + more, f"HNSW{parameters['links']},SQ8", faiss.METRIC_L2)
        graph.hnsw.efConstruction = _BUILD
        centre = np.zeros(dimension + more, np.float32)
        if more:
            centre[-1] = _MARGIN * float(np.sqrt(np.einsum("nd,nd->n", sample, sample).max()))
        shift = faiss.CenteringTransform(dimension + more)
        faiss.copy_array_to_vector(centre, shift.mean)
        shift.is_trained = True
        index = faiss.IndexPreTransform(shift, graph)
        graph.train(shift.apply(_longer(index, sample, query=False)))
        index.is_trained = True
        return faiss.deserialize_index(faiss.serialize_index(index))  # which then owns its parts

    def add(self, index: Any, rows: Floats, first: int) -> None:
        """Append rows; the graph numbers them itself."""
        index.add(_longer(index, rows, query=False))

    def widths(self, index: Any) -> list[int]:
        """Lengths of the candidate list."""
        return [1 << power for power in range(4, _MOST.bit_length())]

    def candidates(
        self,
        shards: Sequence[Shard],
        queries: Floats,
        n: int,
        *,
        k: int,
        width: Callable[[NDArray[np.float64]], Ints],
        allowed: Allowed | None,
    ) -> Ints:
        """See `base.Kind`."""
        asked = _longer(shards[0].index, queries, query=True)
        if allowed is None:
            return _walk(shards, asked, n, int(width(np.array(float(k)))), None)
        around = max(_AROUND, 4 * k)
        near = _walk(shards, asked, around, int(width(np.array(float(around)))), None)
        kept = ((near >= 0) & allowed.mask[near]).sum(1)  # (Q,) allowed rows of those around the query
        lengths = np.asarray(width(k * around / np.maximum(kept, 0.5)), np.int64)
        found = np.full((len(queries), n), -1, np.int64)
        steps = np.ceil(np.log2(lengths))
        for step in np.unique(steps[kept * _SPARSE >= around]):
            chosen = np.flatnonzero((steps == step) & (kept * _SPARSE >= around))
            found[chosen] = _walk(shards, asked[chosen], n, 1 << int(step), allowed)
        return found

    def load(self, path: str, *, mapped: bool) -> Any:
        """From a file, always into memory."""
        faiss = library()
        return faiss.read_index(path)

    def resident_bytes(self, index: Any, *, mapped: bool) -> int:
        """Codes, links, offsets and levels."""
        graph = _graph(index)
        links = graph.hnsw
        size = index.ntotal * graph.d + 4 * links.neighbors.size() + 8 * links.offsets.size()
        return int(size + 4 * links.levels.size())


def _graph(index: Any) -> Any:
    faiss = library()
    return faiss.downcast_index(index.index)


def _longer(index: Any, vectors: Floats, *, query: bool) -> Floats:
    """Rows or queries (n, D) as the index takes them: with one more value for inner products."""
    faiss = library()
    if index.d == vectors.shape[1]:
        return vectors
    more = np.zeros((len(vectors), 1), np.float32)
    if not query:
        shift = faiss.downcast_VectorTransform(index.chain.at(0))
        norm = float(faiss.vector_to_array(shift.mean)[-1])
        more[:, 0] = np.sqrt(np.maximum(norm**2 - np.einsum("nd,nd->n", vectors, vectors), 0))
    return np.ascontiguousarray(np.concatenate([vectors, more], 1), np.float32)


def _walk(shards: Sequence[Shard], queries: Floats, n: int, length: int, allowed: Allowed | None) -> Ints:
    """(Q, n) rows of all shards, -1 beyond what a candidate list of that length holds."""
    faiss = library()
    best = nothing(len(queries), n, "l2")
    for shard in shards:
        selector = None if allowed is None else allowed.selector(shard.first)
        graph = faiss.SearchParametersHNSW(efSearch=length, sel=selector)
        parameters = faiss.SearchParametersPreTransform(index_params=graph)
        scores, found = shard.index.search(queries, min(n, length), params=parameters)
        best = merge(best, (scores, np.where(found >= 0, found + shard.first, -1)), n, "l2")
    return best[1]
