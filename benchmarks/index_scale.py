"""Indexes over 100 thousand to 10 million rows against bare FAISS and against the exact scan.

    python benchmarks/index_scale.py --sizes 100000                      a minute
    python benchmarks/index_scale.py --sizes 100000 1000000 --full       about an hour on two cores
    python benchmarks/index_scale.py --only 10000000                     build and search, nothing else

Rows: int8 in a memory-mapped file (value = 25 x component), drawn from a Gaussian mixture of 1,000 components
in 64 dimensions with a falling spectrum, or the rows of `--rows FILE.npy` (repeated with noise where they are
too few). Queries: 1,000 further draws, and 200 differences of two draws, which stand for what a linear model
asks. Everything is resumable: rows, builds and the growth go on where they were stopped.

Measured for each size and kind: seconds to build; bytes on disk and in memory a row (FAISS's own, and what
a fresh process grows by on opening); recall@10; queries a second, of bare FAISS (the same index file, nprobe
and number of rescored rows, read from the mapped file), and of the exact scan. Filters: seconds and recall by
the share of rows that they let through, against the scan of those rows. Growth: additions without training
anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions

from curator.represent.index.allowed import Allowed
from curator.represent.index.base import ArrayRows, library
from curator.represent.index.calibrate import factor, widths
from curator.represent.index.exact import scan
from curator.represent.index.faiss_index import RowIndex, open_index
from curator.represent.index.plan import explain, plan

DIMENSION, COMPONENTS, PIECE, SCALE = 64, 1000, 100_000, 25
ADDED = 520_000  # rows of 10,000 images
SHARES = (0.002, 0.01, 0.02, 0.05, 0.1, 0.3, 0.7)


def draw(count: int, seed: int, source: np.ndarray | None) -> np.ndarray:
    """(count, D) int8 rows."""
    random = np.random.default_rng([7, seed])
    if source is not None:
        chosen = np.asarray(source[np.sort(random.integers(0, len(source), count))], np.float32)
        scale = 1 if source.dtype == np.int8 else SCALE
        noise = random.normal(size=chosen.shape).astype(np.float32) * 2
        return np.clip(np.rint(chosen * scale + noise), -127, 127).astype(np.int8)
    spectrum = ((1 + np.arange(DIMENSION)) ** -0.5).astype(np.float32)
    centres = np.random.default_rng(7).normal(size=(COMPONENTS, DIMENSION)).astype(np.float32)
    weights = np.random.default_rng(8).dirichlet(np.full(COMPONENTS, 0.7))
    values = centres[random.choice(COMPONENTS, count, p=weights)]
    values = (values + random.normal(size=values.shape).astype(np.float32)) * spectrum
    return np.clip(np.rint(values * SCALE), -127, 127).astype(np.int8)


def make_rows(folder: Path, count: int, source: np.ndarray | None) -> np.ndarray:
    """Mapped rows (count, D), made in pieces; what is there stays."""
    path, dimension = folder / "rows.i8", DIMENSION if source is None else source.shape[1]
    done = path.stat().st_size // (dimension * PIECE) if path.exists() else 0
    with open(path, "r+b" if path.exists() else "wb") as stream:
        stream.truncate(done * PIECE * dimension)
        stream.seek(0, 2)
        for piece in range(done, -(-count // PIECE)):
            stream.write(draw(PIECE, piece + 1, source).tobytes())
    return np.memmap(path, np.int8, "r").reshape(-1, dimension)[:count]


def best_of(call: Any, times: int = 3) -> tuple[float, Any]:
    """(least seconds, answer)."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - started)
    return min(seconds), answer


def bare(folder: Path, index: RowIndex, values: np.ndarray, queries: np.ndarray, k: int) -> Any:
    """A search as one would write it with FAISS alone; None where there are several files."""
    faiss = library()
    facts = index.facts
    paths = sorted(folder.glob("*-0*.faiss"))
    if facts.kind not in ("ivfpq", "hnsw") or len(paths) != 1:
        return None
    loaded = faiss.read_index(str(paths[0]))
    most = 1 << 30 if facts.kind == "hnsw" else loaded.nlist
    width = int(widths(facts.efforts, count=facts.count, most=most)(np.array(float(k))))
    n = factor(facts.efforts, k) * k
    if facts.kind == "hnsw":
        faiss.downcast_index(loaded.index).hnsw.efSearch = width
    else:
        loaded.nprobe = width

    def search() -> tuple[np.ndarray, np.ndarray]:
        asked = queries
        if facts.kind == "hnsw":
            asked = np.concatenate([queries, np.zeros((len(queries), 1), np.float32)], 1)
        _, found = loaded.search(asked, n)
        near = values[found.ravel()].astype(np.float32).reshape(*found.shape, -1) / SCALE
        scores = np.matmul(near, queries[:, :, None])[..., 0]
        order = np.argsort(-scores, 1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)

    return search


def opened_bytes(folder: Path, rows: Path, dimension: int, count: int, kind: str) -> int:
    """By how much a fresh process grows on opening the index and asking once."""
    code = f"""
import numpy as np
from pathlib import Path
from curator.represent.index.base import ArrayRows, library
from curator.represent.index.faiss_index import open_index
from curator.represent.index.plan import plan
library()
values = np.memmap({str(rows)!r}, np.int8, "r").reshape(-1, {dimension})[:{count}]
def private():
    text = open("/proc/self/status").read()
    return 1024 * int(text.split("RssAnon:")[1].split()[0])
before = private()
chosen = plan({count}, {dimension}, kind={kind!r})
index = open_index(ArrayRows(values, scale={SCALE}), Path({str(folder)!r}), plan=chosen)
print(private() - before)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(found.stdout.split()[-1])


def measure(
    folder: Path,
    values: np.ndarray,
    kind: str,
    queries: dict[str, np.ndarray],
    shares: tuple[float, ...] = SHARES,
) -> dict[str, Any]:
    """One size and kind; filters that let such shares through."""
    rows, count = ArrayRows(values, scale=SCALE), len(values)
    chosen = plan(count, rows.dimension, kind=kind)
    print(explain(chosen))
    place = folder / f"{kind}-{count}"
    index = open_index(rows, place, plan=chosen, progress=_progress)
    facts = index.facts
    note = place / "seconds.json"
    if facts.seconds > 0:
        note.write_text(json.dumps(facts.seconds))
    row: dict[str, Any] = {
        "rows": count,
        "kind": kind,
        "shards": facts.shards,
        "build_seconds": json.loads(note.read_text()),
        "resident_bytes": facts.resident_bytes / count,
        "disk_bytes": facts.disk_bytes / count,
        "process_bytes": opened_bytes(place, folder / "rows.i8", rows.dimension, count, kind) / count,
        "stored_recall": facts.recall,
        "efforts": [[e.rank, e.width, e.factor, e.recall] for e in facts.efforts],
    }
    asked = queries["rows"]
    row["scan_qps"] = len(asked) / best_of(lambda: scan(rows, asked, 10, metric="ip"), 1)[0]
    for name, some in queries.items():
        truth = scan(rows, some, 10, metric="ip")
        row[f"recall_{name}"] = _recall(index.search(some, 10)[0], truth[0])
    ours, theirs = [], []
    other = bare(place, index, values, asked, 10)
    for _ in range(3):  # in turns: whatever else runs on the machine hits both
        ours.append(best_of(lambda: index.search(asked, 10), 1)[0])
        if other is not None:
            seconds, answer = best_of(other, 1)
            theirs.append(seconds)
            row["bare_recall"] = _recall(answer[0], scan(rows, asked, 10, metric="ip")[0])
    row["qps"] = len(asked) / min(ours)
    if theirs:
        row["bare_qps"] = len(asked) / min(theirs)
    row["one_query_ms"] = 1e3 * best_of(lambda: index.search(asked[:1], 10), 20)[0]
    row["filters"] = [
        filtered(index, rows, asked[:200], share, form) for form in ("any", "value") for share in shares
    ]
    return row


def filtered(
    index: RowIndex, rows: ArrayRows, queries: np.ndarray, share: float, form: str
) -> dict[str, Any]:
    """A filter of rows drawn anyhow, or of those with the largest first value."""
    if form == "any":
        mask = np.random.default_rng(3).random(rows.count) < share
    else:
        first = np.concatenate([block[:, 0] for _, block in rows.chunks()])
        mask = first > np.quantile(first, 1 - share)
    allowed = Allowed(mask)
    kind = index._kind
    exact_share, rows_exact = type(kind).exact_share, index._exact_rows
    exact, truth = best_of(lambda: scan(rows, queries, 10, metric="ip", allowed=allowed), 1)
    one_exact, _ = best_of(lambda: scan(rows, queries[:1], 10, metric="ip", allowed=allowed), 3)
    try:
        type(kind).exact_share, index._exact_rows = 0.0, 0
        index.search(queries[:1], 10, allowed=allowed)  # the count of each list, once per filter
        seconds, (scores, _) = best_of(lambda: index.search(queries, 10, allowed=allowed), 1)
        one, _ = best_of(lambda: index.search(queries[:1], 10, allowed=allowed), 3)
    finally:
        type(kind).exact_share, index._exact_rows = exact_share, rows_exact
    return {
        "filter": form,
        "share": allowed.share,
        "recall": _recall(scores, truth[0]),
        "ms_a_query": 1e3 * seconds / len(queries),
        "scan_ms_a_query": 1e3 * exact / len(queries),
        "one_ms": 1e3 * one,
        "one_scan_ms": 1e3 * one_exact,
    }


def grow(
    folder: Path, values: np.ndarray, start: int, step: int, queries: np.ndarray
) -> list[dict[str, Any]]:
    """Add rows to an index of `start`, step by step, as far as it takes them without being trained anew."""
    place, found = folder / f"grown-{start}-{step}", []
    for count in range(start, min(len(values), 4 * start) + 1, step):
        rows = ArrayRows(values[:count], scale=SCALE)
        index = open_index(rows, place, plan=plan(count, rows.dimension, kind="ivfpq"))
        facts = index.facts
        truth = scan(rows, queries, 10, metric="ip")[0]
        seconds, (scores, _) = best_of(lambda index=index: index.search(queries, 10), 2)
        line = {
            "rows": count,
            "seconds": facts.seconds,
            "shards": facts.shards,
            "trained_on": facts.sample,
            "recall": _recall(scores, truth),
            "qps": len(queries) / seconds,
        }
        print("  ", line, flush=True)
        found.append(line)
    return found


def _recall(scores: np.ndarray, truth: np.ndarray) -> float:
    """Part of the answers as near as the tenth: of equal int8 rows any will do."""
    return float((scores >= truth[:, -1:] - 1e-3).mean())


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,}", end="", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--full", action="store_true", help="10 million rows too")
    parser.add_argument("--only", type=int, help="this size alone, without filters, growth and additions")
    parser.add_argument("--rows", type=Path, help="rows to draw from, .npy of int8 (x 25) or floats")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/index_scale"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "index_scale.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    library().omp_set_num_threads(options.threads)
    source = None if options.rows is None else np.load(options.rows, mmap_mode="r")
    sizes = sorted({*options.sizes, *([10_000_000] if options.full else [])})
    if options.only:
        sizes = [options.only]
    largest = options.only or max(sizes[-1] + ADDED if sizes[-1] >= 1_000_000 else 0, 4 * sizes[0])
    values = make_rows(options.folder, largest, source)
    fresh = draw(1400, 0, source).astype(np.float32) / SCALE
    queries = {"rows": fresh[:1000], "directions": fresh[1000:1200] - fresh[1200:1400]}
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("faiss-cpu"),
        "threads": options.threads,
        "rows": "mixture" if options.rows is None else str(options.rows),
        "sizes": [],
    }
    for size in sizes:
        for kind in ("ivfpq", "hnsw") if size <= 1_000_000 else ("ivfpq",):
            row = measure(
                options.folder, values[:size], kind, queries, () if options.only else SHARES
            )
            result["sizes"].append(row)
            _print(row)
    if not options.only:
        print("growth")
        result["growth"] = grow(options.folder, values, sizes[0], sizes[0], queries["rows"])
    if sizes[-1] >= 1_000_000 and not options.only:
        print(f"{ADDED:,} rows more")
        rows = ArrayRows(values[: sizes[-1] + ADDED], scale=SCALE)
        place = options.folder / f"ivfpq-{sizes[-1]}"
        index = open_index(rows, place, plan=plan(rows.count, rows.dimension, kind="ivfpq"))
        scores, _ = index.search(queries["rows"], 10)
        truth = scan(rows, queries["rows"], 10, metric="ip")[0]
        result["added"] = {
            "rows": ADDED,
            "seconds": index.facts.seconds,
            "shards": index.facts.shards,
            "recall": _recall(scores, truth),
        }
        print("  ", result["added"])
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))


def _print(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name == "filters":
            for line in value:
                print("  ", {key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()})
        else:
            print(f"  {name}: {round(value, 4) if isinstance(value, float) else value}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
