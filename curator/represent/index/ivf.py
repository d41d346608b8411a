"""Inverted lists of product codes: k-means cells, and in each the codes of its rows (IVF-PQ; OPQ + IVF-PQ).

[1] Jégou, Douze, Schmid, Product quantization for nearest neighbor search, PAMI 2011: row x of cell c is
kept as c and the code of x - c: m bytes. [2] Ge, He, Ke, Sun, Optimized product quantization, CVPR 2013: a
rotation before, which pays where a code byte stands for more than two values.

A search visits the cells nearest to the query. With a filter it visits further ones: the rows that are
passed, cell by cell, until k allowed ones are among them say how deep among all rows the k-th allowed one
lies, and a measured curve says how many cells that takes (`calibrate`). Cells without an allowed row are
passed, not searched. So a filter that has to do with the query (a class, a place) is searched as deep as it
must.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.represent.index.allowed import Allowed
from curator.represent.index.base import Floats, Ints, Metric, Shard, library
from curator.represent.index.calibrate import RANKS
from curator.represent.index.exact import merge, nothing

_TABLE_BYTES = 4  # per row that tables for faster L2 distances may take
_MARGIN = 2.0  # on the number of cells with a filter, which was not there when the curve was measured
_AHEAD = 4  # cells looked at in a first go, times the expected number
_QUERIES = 1024
_BY_LIST, _BY_QUERY = 1, 3  # FAISS's parallel modes; the default one runs given lists on one thread


class IvfPq:
    """IVF-PQ. Parameters: `lists`, `codes` (bytes a row), `bits` (8 but for tiny samples)."""

    name = "ivfpq"
    stored = True
    exact_share = 0.01
    rotated = False

    def sample_dimension(self, parameters: Mapping[str, int], *, dimension: int) -> int:
        """As many as the codes divide, so that FAISS needs no longer copy of the sample."""
        codes = parameters["codes"]
        return dimension if self._rotates(dimension, codes) else -(-dimension // codes) * codes

    def train(
        self, sample: Floats, parameters: Mapping[str, int], *, dimension: int, metric: Metric, seed: int
    ) -> Any:
        """Trained on rows (n, `sample_dimension`), n >= lists and n >= 2 ** bits."""
        faiss = library()
        lists, codes, bits = (parameters[name] for name in ("lists", "codes", "bits"))
        index = faiss.index_factory(
            dimension,
            f"{self._before(dimension, codes)}IVF{lists},PQ{codes}x{bits}",
            faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2,
        )
        ivf = _ivf(index)
        for clustering in (ivf.cp, ivf.pq.cp):
            clustering.seed = seed % (1 << 31)
            clustering.min_points_per_centroid = 1
        if self.rotated and isinstance(index, faiss.IndexPreTransform):
            rotation = faiss.downcast_VectorTransform(index.chain.at(0))
            quantizer = faiss.ProductQuantizer(rotation.d_out, codes, bits)
            quantizer.cp.min_points_per_centroid = 1
            rotation.pq = quantizer
        ivf.use_precomputed_table = -1
        ivf.do_polysemous_training = False  # most of the time, and unused
        if index.d == sample.shape[1]:
            index.train(sample)
        else:  # padded already: what comes before the lists has nothing to learn
            ivf.train(sample)
            index.is_trained = True
        return faiss.deserialize_index(faiss.serialize_index(index), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)

    def _before(self, dimension: int, codes: int) -> str:
        if self._rotates(dimension, codes):
            return f"OPQ{codes}_{dimension // codes * codes},"
        return f"Pad{-(-dimension // codes) * codes}," if dimension % codes else ""

    def _rotates(self, dimension: int, codes: int) -> bool:
        return self.rotated and dimension >= codes

    def add(self, index: Any, rows: Floats, first: int) -> None:
        """Append rows under their numbers."""
        index.add_with_ids(rows, np.arange(first, first + len(rows), dtype=np.int64))

    def widths(self, index: Any) -> list[int]:
        """Numbers of lists: powers of two, then all."""
        lists = int(_ivf(index).nlist)
        return [*(1 << power for power in range(lists.bit_length()) if 1 << power < lists), lists]

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
        """Best rows of the lists that `width` and the filter ask for; see `base.Kind`."""
        found = np.full((len(queries), n), -1, np.int64)
        selector = None if allowed is None else allowed.selector()
        for first in range(0, len(queries), _QUERIES):
            turned = _turned(shards[0].index, queries[first : first + _QUERIES])
            if allowed is None:
                near, lists = _ivf(shards[0].index).quantizer.search(turned, int(width(np.array(float(k)))))
            else:
                near, lists = self._lists(shards, turned, k, width, allowed)
            found[first : first + _QUERIES] = _search(shards, turned, n, near, lists, selector)
        return found

    def _lists(
        self,
        shards: Sequence[Shard],
        queries: Floats,
        k: int,
        width: Callable[[NDArray[np.float64]], Ints],
        allowed: Allowed,
    ) -> tuple[Floats, Ints]:
        """(nearness, number) of the lists to search for each query, (Q, W); -1: none."""
        ivf = _ivf(shards[0].index)
        sizes, kept = _sizes(shards), _kept(shards, allowed)
        k = max(k, RANKS[0][0])  # of fewer rows the place says too little
        ahead = int(width(np.array(k / max(allowed.share, 1e-9)))) * _AHEAD
        for count in dict.fromkeys((min(ahead, ivf.nlist), ivf.nlist)):
            near, lists = ivf.quantizer.search(queries, count)
            if count < ivf.nlist and (kept[lists].sum(1) < min(k, allowed.size)).any():
                continue
            wanted = np.ceil(_MARGIN * width(_depth(sizes[lists], kept[lists], k)))  # (Q,) lists
            if wanted.max() <= count:
                break
        chosen = (np.arange(count) < wanted[:, None]) & (kept[lists] > 0)
        order = np.argsort(~chosen, axis=1, kind="stable")[:, : max(1, int(chosen.sum(1).max()))]
        lists = np.take_along_axis(np.where(chosen, lists, -1), order, 1)
        return np.take_along_axis(near, order, 1), lists

    def load(self, path: str, *, mapped: bool) -> Any:
        """From a file; mapped: only the lists that a search visits are read."""
        faiss = library()
        flags = faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
        if mapped:
            flags |= faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index = faiss.read_index(path, flags)
        ivf = _ivf(index)
        table = 4 * ivf.nlist * ivf.pq.M * ivf.pq.ksub
        if ivf.metric_type == faiss.METRIC_L2 and not mapped and table <= _TABLE_BYTES * index.ntotal:
            ivf.use_precomputed_table = 0
            ivf.precompute_table()
        return index

    def resident_bytes(self, index: Any, *, mapped: bool) -> int:
        """Centroids, code books, rotation and tables; codes and row numbers unless mapped."""
        faiss = library()
        ivf = _ivf(index)
        size = 4 * ivf.nlist * ivf.d + 4 * ivf.pq.centroids.size() + 4 * ivf.precomputed_table.size()
        size += 8 * ivf.nlist  # how long each list is
        if isinstance(index, faiss.IndexPreTransform):
            for place in range(index.chain.size()):
                transform = faiss.downcast_VectorTransform(index.chain.at(place))
                size += 4 * (transform.A.size() if hasattr(transform, "A") else 0)
        return int(size + (0 if mapped else index.ntotal * (ivf.code_size + 8)))


class OpqIvfPq(IvfPq):
    """IVF-PQ after a learnt rotation."""

    name = "opq"
    rotated = True


def _ivf(index: Any) -> Any:
    faiss = library()
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def _depth(sizes: Ints, kept: Ints, k: int) -> NDArray[np.float64]:
    """(Q,) rows passed until k allowed ones are: as deep among all rows as the k-th allowed one lies.

    sizes, kept: (Q, W) rows and allowed rows of the lists, nearest first. Within a list rows are taken to lie
    evenly, so that the first list, however long, does not count as a whole.
    """
    passed, held = sizes.cumsum(1), kept.cumsum(1)
    place = np.minimum((held < k).sum(1), sizes.shape[1] - 1)[:, None]  # the list that holds the k-th
    size, inside = np.take_along_axis(sizes, place, 1), np.take_along_axis(kept, place, 1)
    before, missing = (
        np.take_along_axis(passed, place, 1) - size,
        k - np.take_along_axis(held, place, 1) + inside,
    )
    part = np.clip(missing / np.maximum(inside, 1), 0, 1)
    return np.asarray((before + part * size)[:, 0], np.float64)


def _turned(index: Any, queries: Floats) -> Floats:
    """Queries as the lists see them: padded or rotated."""
    faiss = library()
    if isinstance(index, faiss.IndexPreTransform):
        for place in range(index.chain.size()):
            queries = faiss.downcast_VectorTransform(index.chain.at(place)).apply(queries)
    return np.ascontiguousarray(queries, np.float32)


def _search(
    shards: Sequence[Shard], queries: Floats, n: int, near: Floats, lists: Ints, selector: Any
) -> Ints:
    """(Q, n) best rows of given lists of all shards, by their codes."""
    faiss = library()
    lists, near = np.ascontiguousarray(lists, np.int64), np.ascontiguousarray(near, np.float32)
    metric: Metric = "ip" if _ivf(shards[0].index).metric_type == faiss.METRIC_INNER_PRODUCT else "l2"
    best = None
    for shard in shards:
        scores, found = nothing(len(queries), n, metric)
        parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector)
        pointers = (faiss.swig_ptr(array) for array in (lists, near, scores, found))
        ivf = _ivf(shard.index)
        ivf.parallel_mode = _BY_QUERY if len(queries) > 1 else _BY_LIST
        ivf.search_preassigned_c(len(queries), faiss.swig_ptr(queries), n, *pointers, False, parameters)
        best = (scores, found) if best is None else merge(best, (scores, found), n, metric)
    assert best is not None
    return best[1]


def _sizes(shards: Sequence[Shard]) -> Ints:
    """Rows of each list."""
    total = np.zeros(_ivf(shards[0].index).nlist, np.int64)
    for shard in shards:
        lists = _ivf(shard.index).invlists
        total += [lists.list_size(number) for number in range(len(total))]
    return total


def _kept(shards: Sequence[Shard], allowed: Allowed) -> Ints:
    """Allowed rows of each list; worked out once per `Allowed` and shard."""
    faiss = library()
    total = np.zeros(_ivf(shards[0].index).nlist, np.int64)
    for shard in shards:
        key = shard.key
        if key not in allowed.notes:
            lists = _ivf(shard.index).invlists
            counts = np.zeros(len(total), np.int64)
            for number in range(len(total)):
                size = lists.list_size(number)
                if size:
                    counts[number] = np.count_nonzero(
                        allowed.mask[faiss.rev_swig_ptr(lists.get_ids(number), size)]
                    )
            allowed.notes[key] = counts
        total += allowed.notes[key]
    return total
