"""What an index is asked, and what it says of itself.

Rows are numbered 0 .. count - 1, and new ones only ever come at the end. An index knows nothing of images and
of the Store: it reads `Rows`, and keeps its files in a folder. The files can always be made again from the
rows.

Scores are inner products ("ip", larger is nearer) or squared Euclidean distances ("l2", smaller is nearer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curator.errors import InputError

if TYPE_CHECKING:
    from curator.represent.index.allowed import Allowed

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Metric = Literal["ip", "l2"]
Progress = Callable[[int, int], None]
"""Called with the rows done and the rows to do."""

CHUNK = 65_536
_BLAS = 800  # values of queries, per thread, from which on matrices are multiplied
RECALL = 0.95
"""recall@10 that an index promises: the part of the ten truly nearest rows that it finds."""


class Rows(Protocol):
    """Numbered vectors, usually in memory-mapped files. A row never changes once it is written."""

    @property
    def dimension(self) -> int:
        """D, values a row."""

    @property
    def count(self) -> int:
        """N, number of rows."""

    def read(self, rows: Ints) -> Floats:
        """Rows (n, D) by number, in any order, with repeats."""

    def chunks(self, start: int = 0, *, size: int = CHUNK) -> Iterator[tuple[int, Floats]]:
        """(number of the first row, rows (n <= size, D)) from `start` on, in order."""


class ArrayRows:
    """Rows of an array in memory or of a memory-mapped file.

    Args:
        values: (N, D), any type; `numpy.load(path, mmap_mode="r")` keeps it on disk.
        scale: what the values are divided by, such as 25 for int8 rows of the Store.
    """

    def __init__(self, values: NDArray[Any], *, scale: float = 1.0) -> None:
        if values.ndim != 2 or not values.shape[1]:
            raise InputError(f"rows: expected an array (N, D), got {values.shape}; reshape it")
        self._values = values
        self._scale = np.float32(scale)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._values.shape[1])

    @property
    def count(self) -> int:
        """N."""
        return len(self._values)

    def read(self, rows: Ints) -> Floats:
        """(n, D) float32."""
        return self._scaled(self._values[rows])

    def chunks(self, start: int = 0, *, size: int = CHUNK) -> Iterator[tuple[int, Floats]]:
        """Blocks of at most `size` rows from `start` on."""
        for first in range(start, self.count, size):
            yield first, self._scaled(self._values[first : first + size])

    def _scaled(self, values: NDArray[Any]) -> Floats:
        found = np.asarray(values, np.float32)
        return found if self._scale == 1 else np.asarray(found / self._scale, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """Which index for how many rows, and why.

    Attributes:
        kind: name in `curator.registry.INDEXES`.
        parameters: what the kind is made with; `shard_rows` (all kinds): rows of a file at most.
        mapped: True where the FAISS files stay on disk and only what is touched is read.
        why: one sentence.
        resident_bytes, disk_bytes: expected, in all; the rows themselves are not counted.
        recall: expected recall@10.
    """

    kind: str
    parameters: Mapping[str, int]
    mapped: bool
    why: str
    resident_bytes: int
    disk_bytes: int
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What finds `rank` nearest rows with the promised recall, as measured at build.

    Attributes:
        width: lists that are searched (IVF), length of the candidate list (HNSW).
        factor: rows that are rescored exactly, per wanted row.
        recall: recall@rank found with these.
    """

    rank: int
    width: int
    factor: int
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What is known of an index once it is built.

    Attributes:
        count, dimension: rows and values a row. dead: rows that are never returned.
        sample: rows it was trained on. seconds: build time in this process, 0 where it was loaded.
        resident_bytes, disk_bytes: of FAISS and of what is kept beside it, in all.
        recall: recall@10 measured against the exact scan on `queries` rows, at `measured_at` rows.
        efforts: by rising rank.
    """

    kind: str
    metric: Metric
    count: int
    dimension: int
    dead: int
    shards: int
    sample: int
    seconds: float
    resident_bytes: int
    disk_bytes: int
    recall: float
    queries: int
    measured_at: int
    efforts: Sequence[Effort]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A FAISS index over the rows `first` .. `first + count - 1`; `key` tells it from all others."""

    first: int
    index: Any
    key: str

    @property
    def count(self) -> int:
        """Rows it holds."""
        return int(self.index.ntotal)

    @property
    def end(self) -> int:
        """Number after its last row."""
        return self.first + self.count


class Kind(Protocol):
    """One type of FAISS index; stateless. `stored` False: the rows are scanned, there are no files.

    `exact_share`: where no more than this share of the rows is allowed, they are scanned exactly.
    """

    name: str
    stored: bool
    exact_share: float

    def sample_dimension(self, parameters: Mapping[str, int], *, dimension: int) -> int:
        """Values of a row of the sample: D, or more, of which the last are to be 0."""

    def train(
        self, sample: Floats, parameters: Mapping[str, int], *, dimension: int, metric: Metric, seed: int
    ) -> Any:
        """An empty trained FAISS index.

        Args:
            sample: (n, `sample_dimension`); the largest thing in memory while an index is built.
            dimension: D of the rows.
        """

    def add(self, index: Any, rows: Floats, first: int) -> None:
        """Append rows, the first of which has the number `first`."""

    def widths(self, index: Any) -> list[int]:
        """Rising widths to try, the last of which is the most that helps."""

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
        """(Q, n) rows, best first by the index's own scores, enough for k; -1 where fewer were found.

        Args:
            width: ranks -> widths that find as many of all rows (`calibrate.widths`).
            allowed: the only rows that may come.
        """

    def load(self, path: str, *, mapped: bool) -> Any:
        """Read a FAISS file."""

    def resident_bytes(self, index: Any, *, mapped: bool) -> int:
        """Bytes that the index keeps in memory."""


def library() -> Any:
    """FAISS, imported when it is first needed, and told when to multiply matrices.

    From 1.15 on FAISS compares up to 128,000 query values one by one, which on few cores is twenty times
    slower than BLAS (facebookresearch/faiss#5109, whose figure this is). The setting is the process's; it
    changes no answers but the last bit of distances.
    """
    faiss: Any = import_module("faiss")
    if faiss.cvar.distance_compute_blas_threshold > _BLAS * faiss.omp_get_max_threads():
        faiss.cvar.distance_compute_blas_threshold = _BLAS * faiss.omp_get_max_threads()
    return faiss


def check_queries(queries: ArrayLike, dimension: int, k: int) -> Floats:
    """(Q, D) float32 and contiguous.

    Raises:
        InputError: other shapes, values that are not finite, k < 1.
    """
    found = np.ascontiguousarray(np.atleast_2d(np.asarray(queries)), np.float32)
    if found.ndim != 2 or found.shape[1] != dimension or k < 1:
        raise InputError(
            f"search: expected queries (Q, {dimension}) and k >= 1, got {found.shape} and k = {k}"
        )
    if not np.isfinite(found).all():
        raise InputError("search: expected finite queries, got NaN or infinity; check what made them")
    return found
