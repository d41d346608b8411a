"""Which index for how many rows and how much memory: one sentence of why, and what it costs.

| rows | index | bytes a row in memory, on disk (D = 64) |
|---|---|---|
| up to 100,000 | flat: scan of the rows | 0, 0 |
| up to 2,000,000 where memory allows | hnsw | 213, 213 |
| more | ivfpq; opq where a code byte stands for more than two values | 41, 40 |
| more than memory holds | the same, lists mapped from disk in files of limited size | 1, 40 |

The default memory is 64 bytes a row. FAISS answers approximately; the exact rows rescore what it finds.
"""

from __future__ import annotations

from curator.errors import InputError
from curator.represent.index.base import RECALL, IndexPlan
from curator.represent.index.calibrate import GOAL

SAMPLE = 500_000
"""Rows that an index is trained on at most."""
GROWTH = 4
"""An index is trained anew once the rows are this many times as many as when it was trained."""
FLAT_MOST = 100_000
PLANNED = ("flat", "hnsw", "ivfpq", "opq")
"""Kinds that are planned here; others bring their own `IndexPlan`."""
HNSW_MOST = 2_000_000
MEMORY_PER_ROW = 64
_LEAST_INDEXED = 64
_LINKS = 16
_CODES = 32  # bytes of a code at most
_PER_LIST = 39  # rows of the sample per list and code word at least
_MOST_LISTS = 16_384
_LEAST_SHARD = 1_000_000
_BUILD_BYTES = 2.2  # memory of a shard while it is built, in times its bytes: lists grow by doubling


def plan(
    count: int,
    dimension: int,
    *,
    memory_bytes: int | None = None,
    threads: int | None = None,
    kind: str | None = None,
) -> IndexPlan:
    """The index for `count` rows of `dimension` values.

    Args:
        memory_bytes: what the index may keep in memory; None: 64 bytes a row.
        threads: that build it; a graph is chosen only where they build it within minutes. None: two.
        kind: "flat", "hnsw", "ivfpq" or "opq" whatever the size; None: by size and memory.

    Raises:
        InputError: numbers below 0 or 1, or an unknown kind.
    """
    if count < 0 or dimension < 1 or (memory_bytes is not None and memory_bytes < 0):
        raise InputError(
            f"index: expected rows >= 0, dimension >= 1 and memory >= 0, "
            f"got {count}, {dimension} and {memory_bytes}"
        )
    if kind is not None and kind not in PLANNED:
        raise InputError(f"index: expected one of the kinds {', '.join(PLANNED)}, got {kind!r}")
    memory = MEMORY_PER_ROW * count if memory_bytes is None else memory_bytes
    if kind is None:
        kind, reason = _choose(count, dimension, memory, threads or 2)
    else:
        reason = "as asked"
    if count < _LEAST_INDEXED:
        kind = "flat"
    if kind == "flat":
        return IndexPlan(
            kind=kind,
            parameters={},
            mapped=False,
            why=f"{count:,} rows: {reason}, nothing is stored or kept in memory.",
            resident_bytes=0,
            disk_bytes=0,
            recall=1.0,
        )
    if kind == "hnsw":
        return _hnsw(count, dimension, reason)
    return _lists(kind, count, dimension, memory, reason)


def explain(found: IndexPlan) -> str:
    """The plan in three lines, for `curator index --plan`."""
    parameters = ", ".join(f"{name} {value:,}" for name, value in found.parameters.items()) or "none"
    return (
        f"{found.kind}{' on disk' if found.mapped else ''} ({parameters})\n{found.why}\n"
        f"expected: {found.resident_bytes / 1e6:,.1f} MB in memory, "
        f"{found.disk_bytes / 1e6:,.1f} MB on disk, recall@10 {found.recall:.2f}"
    )


def _choose(count: int, dimension: int, memory: int, threads: int) -> tuple[str, str]:
    if count <= FLAT_MOST:
        return "flat", "few enough to scan all of them exactly in milliseconds"
    if count <= HNSW_MOST * threads / 2 and _graph_bytes(count, dimension) <= memory:
        return "hnsw", "a graph is fastest, and memory holds it"
    if -(-dimension // _codes(dimension)) > 2:
        return "opq", "too many for a graph in this memory; a code byte stands for more than two values"
    return "ivfpq", "too many for a graph in this memory"


def _hnsw(count: int, dimension: int, reason: str) -> IndexPlan:
    size = _graph_bytes(count, dimension)
    return IndexPlan(
        kind="hnsw",
        parameters={"links": _LINKS},
        mapped=False,
        why=f"{count:,} rows: {reason} ({size / 1e6:,.0f} MB).",
        resident_bytes=size,
        disk_bytes=size,
        recall=GOAL,
    )


def _lists(kind: str, count: int, dimension: int, memory: int, reason: str) -> IndexPlan:
    sample = max(1, min(count, SAMPLE))
    most = max(1, min(sample // _PER_LIST, _MOST_LISTS))
    lists = 1 << min(most.bit_length() - 1, round(4 * max(1.0, count**0.5)).bit_length() - 1)
    codes = _codes(dimension)
    bits = min(8, max(1, (max(2, sample // _PER_LIST)).bit_length() - 1))
    each = (codes * bits + 7) // 8 + 8
    fixed = 4 * lists * (dimension + 2) + 4 * (1 << bits) * dimension
    mapped = fixed + each * count > memory
    shard = max(_LEAST_SHARD, int(memory / _BUILD_BYTES / each)) if mapped else 0
    where = (
        f"the lists stay on disk, as memory holds {memory / 1e6:,.0f} MB of {each * count / 1e6:,.0f}"
        if mapped
        else f"codes of {each} bytes a row fit into memory"
    )
    return IndexPlan(
        kind=kind,
        parameters={"lists": lists, "codes": codes, "bits": bits, "shard_rows": shard},
        mapped=mapped,
        why=f"{count:,} rows: {reason}; {where}, and the rows rescore what they find.",
        resident_bytes=fixed + (0 if mapped else each * count),
        disk_bytes=fixed + each * count,
        recall=RECALL,
    )


def _graph_bytes(count: int, dimension: int) -> int:
    return count * (dimension + 4 * (2 * _LINKS + 2) + 12)


def _codes(dimension: int) -> int:
    """Bytes of a code: at least two values each, with the least padding, then the most bytes."""
    most = min(_CODES, -(-dimension // 2))
    choices = range(max(1, most // 2), most + 1)
    return int(min(choices, key=lambda codes: (-dimension % codes, -codes)))
