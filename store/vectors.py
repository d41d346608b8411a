"""Vector files and the FAISS indexes built from them.

In: float32 rows and how many are committed. Out: rows by position; nearest neighbours. A vector file is
append-only: rows are written and synced first, then counted in SQL, so a kill leaves at most an uncounted
tail, which is cut off later. A FAISS file is a cache: its first line names the vectors that it holds, and
it is built again whenever that is not what SQL says, or its checksum is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptionError
from store.records import Floats, Ints

Metric = Literal["ip", "l2"]
_BYTES = 4


class VectorFile:
    """Rows of `dimension` little-endian float32 values."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension

    def write(self, position: int, vectors: Floats) -> None:
        """Write rows from row `position` on, over any uncounted tail; not yet synced.

        Raises:
            CorruptionError: the file is shorter than `position` rows.
        """
        self._check(position)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "x+b") as stream:
            stream.truncate(position * self.dimension * _BYTES)
            stream.seek(0, os.SEEK_END)
            stream.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())

    def sync(self) -> None:
        """Have the operating system put all rows on disk."""
        with open(self.path, "r+b") as stream:
            os.fsync(stream.fileno())

    def read(self, positions: Ints, count: int) -> Floats:
        """Rows at `positions` (N,) of the `count` committed ones -> (N, D) float32.

        Raises:
            CorruptionError: the file is shorter than recorded.
        """
        self._check(count)
        if not len(positions):
            return np.zeros((0, self.dimension), np.float32)
        rows = np.memmap(self.path, dtype="<f4", mode="r", shape=(count, self.dimension))
        return np.asarray(rows[positions], dtype=np.float32)

    def tail(self, count: int) -> bool:
        """True when the file goes on after `count` rows."""
        return self.path.exists() and self.path.stat().st_size > count * self.dimension * _BYTES

    def truncate(self, count: int) -> None:
        """Cut off what follows `count` rows."""
        if self.tail(count):
            with open(self.path, "r+b") as stream:
                stream.truncate(count * self.dimension * _BYTES)

    def _check(self, count: int) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < count * self.dimension * _BYTES:
            raise CorruptionError(
                f"{self.path}: expected {count} vectors of {self.dimension} values, got {size} bytes; "
                "restore the file from a backup, or make a new workspace and run `curator index` there"
            )


class FaissCache:
    """A flat FAISS index with SQL ids, kept beside the vector file.

    Args:
        path: of the cache file. metric: inner product or squared Euclidean distance.
    """

    def __init__(self, path: Path, metric: Metric) -> None:
        self.path = path
        self.metric = metric

    def load(self, ids: Ints) -> Any | None:
        """The stored index, or None when it is absent, damaged, or holds other vectors than `ids`."""
        import faiss

        try:
            header, _, body = self.path.read_bytes().partition(b"\n")
            facts = json.loads(header)
            if facts != {**_facts(ids, self.metric), "crc32": zlib.crc32(body)}:
                return None
            return faiss.deserialize_index(np.frombuffer(body, dtype=np.uint8))
        except (OSError, ValueError, RuntimeError):
            return None

    def save(self, index: Any, ids: Ints) -> None:
        """Write the index, saying which vectors it holds; complete or not at all."""
        import faiss

        body = faiss.serialize_index(index).tobytes()
        header = json.dumps({**_facts(ids, self.metric), "crc32": zlib.crc32(body)}).encode()
        temporary = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.part")
        temporary.write_bytes(header + b"\n" + body)
        os.replace(temporary, self.path)


def build_index(vectors: Floats, ids: Ints, metric: Metric) -> Any:
    """An exact FAISS index over (N, D) vectors under their (N,) SQL ids."""
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1]) if metric == "ip" else faiss.IndexFlatL2(vectors.shape[1])
    index = faiss.IndexIDMap2(flat)
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))
    return index


def search_index(index: Any, queries: Floats, k: int, allowed: Ints) -> tuple[Floats, Ints]:
    """Search among the `allowed` ids: (Q, D) -> scores (Q, k), ids (Q, k) with -1 where fewer exist."""
    faiss: Any = import_module("faiss")
    mask: NDArray[np.bool_] = np.zeros(int(allowed.max(initial=0)) + 1, dtype=bool)
    mask[allowed] = True
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    scores, ids = index.search(queries, k, params=faiss.SearchParameters(sel=selector))
    return np.asarray(scores, np.float32), np.asarray(ids, np.int64)


def _facts(ids: Ints, metric: Metric) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(ids, dtype="<i8").tobytes()).hexdigest()
    return {"format": 1, "metric": metric, "count": len(ids), "ids_sha256": digest}
