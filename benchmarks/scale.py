"""What a workspace of 10,000 to a million images costs: to add to, to find duplicates in, to read labels of.

    python benchmarks/scale.py                       10 k and 100 k images: some minutes on two cores
    python benchmarks/scale.py --million             a workspace of 1 M too: an hour, 9 GB on disk
    python benchmarks/scale.py --radius 12 10        what another radius of the candidates would cost

The rule, stated before the figures: nothing costs more than linear in the number of images (DESIGN.md, rule
8), so what is done for one image may grow with it by an exponent of 1 at most, and labels of a batch by 0.
The exponent is the slope of log(seconds) over log(images).

Images exist only as rows: hashes and thumbnails are made up from photographs (`scale_pictures.py`, which says
how near they come), 5% are of the holdout, 5% mined, the rest pool; each has one version of labels, every
tenth two, without boxes. They are stored by plain inserts: adding a million one by one would take days, which
is what `add` at each size shows. SQLite; each size is filled in one process and measured in another. Seconds
are of the processor, since the machine may be shared; `add wall s` beside them.

add           seconds an image for batches of 64 new images with a box each, through `Store.add_images`: rows,
              labels, the look-up of near-duplicates and the judging of what it finds. The first batch, which
              reads all hashes, stands alone.
look-up       milliseconds an image to look 64 up by their hashes (`store.hash_table`); `scan`: by comparing
              rows of 11 hashes, how it was before. `tables`: the same without a workspace, to a million:
              hashes of 20,000 pictures, each time with other 24 of 64 bits turned over, the same ones in all
              hashes of a picture.
candidates    of an image, as it is and mirrored; `judge`: milliseconds to judge one by `store.likeness`.
leaks         seconds for `Store.leaks` of 64 pool images, asked for the second time.
state         seconds for `Store.catalogue_state`, which a query's key holds.
draw          seconds for `query --method random` of 100 images once it has its failures: the pool's ids, and
              leaks asked about the images alone that would be taken; `all leaks`: about the whole pool, which
              every query did before; to 100,000 images, since it grows with the square.
again         `detect` and `index` given again where all is done (`scale_again.py`): microseconds an image,
              and bytes an image by which the process grew at most; `index` after `detect`, in its process.
labels        milliseconds for `Store.annotations` of 100 images drawn anywhere.
peak          bytes an image by which the measuring process grew at most; `resident`: hashes in memory.
disk          bytes of the workspace an image.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from curator.query.run_choice import draw
from curator.query.run_pool import may_answer
from curator.query.settings import QueryConfig
from store import hash_table, lookalikes
from store.appearance import HASHES, Appearance
from store.duplicates import popcount
from store.models import AnnotationVersion, AppearanceRow, Dataset, Image, Member
from store.records import NewAnnotation, NewImage
from store.session import table
from store.store import Store

BATCH, BATCHES, LABELS, PIECE, MOST = 64, 3, 100, 2000, 100_000
KEPT = (
    "add s",
    "look-up ms",
    "scan ms",
    "leaks s",
    "state s",
    "draw s",
    "all leaks s",
    "labels ms",
    "first read s",
)
AN_IMAGE = ("detect again us", "index again us")  # the whole: these times the images


def fill(folder: Path, count: int, data: Path) -> None:
    """Make a workspace of `count` images, and pictures to ask about."""
    from scale_pictures import Pictures
    from sqlalchemy import insert

    pictures = Pictures(data)
    started = time.perf_counter()
    with Store.create(folder / "workspace") as store:
        run = store.begin_run("add", config={})
        with store._database.writing() as connection:
            connection.execute(insert(table(Dataset)), [{"id": 1, "name": "made up"}])
        for start in range(0, count, PIECE):
            numbers = range(start, min(count, start + PIECE))
            hashes, thumbnails = pictures.make(start, len(numbers))
            rows: dict[Any, list[dict[str, Any]]] = {
                Image: [_image(i, hashes[k]) | {"id": i + 1} for k, i in enumerate(numbers)],
                Member: [{"image_id": i + 1, "dataset_id": 1, "role": _role(i)} for i in numbers],
                AppearanceRow: [
                    {"image_id": i + 1, "hashes": hashes[k].astype("<u8").tobytes(), "thumbnail": t.tobytes()}
                    for k, (i, t) in enumerate(zip(numbers, thumbnails, strict=True))
                ],
                AnnotationVersion: [
                    {"image_id": i + 1, "version": v, "key": f"{i}.{v}", "status": "human"}
                    for i in numbers
                    for v in range(1, 2 + (i % 10 == 0))
                ],
            }
            with store._database.writing() as connection:
                for model, some in rows.items():
                    connection.execute(insert(table(model)), [{**row, "run_id": run} for row in some])
    hashes, thumbnails = pictures.make(count + 1, BATCH * (BATCHES + 1))
    np.savez(folder / "asked.npz", hashes=hashes, thumbnails=thumbnails)
    (folder / "filled.json").write_text(json.dumps({"fill s": time.perf_counter() - started}))


def _role(number: int) -> str:
    return {0: "holdout", 1: "mine"}.get(number % 20, "pool")


def _image(number: int, hashes: np.ndarray) -> dict[str, Any]:
    return {
        "uri": f"/images/{number:09d}.jpg",
        "sha256": f"{number:064x}",
        "phash": f"{int(hashes[0]):016x}",
        "width": 640,
        "height": 480,
    }


def measure(folder: Path, count: int, radius: int) -> dict[str, Any]:
    """All figures of a workspace that is filled."""
    hash_table.RADIUS = radius
    asked = np.load(folder / "asked.npz")
    hashes = asked["hashes"]
    new = [
        NewImage(
            **_image(count + k, hashes[k]),
            appearance=Appearance(
                hashes=hashes[k].astype("<u8").tobytes(), thumbnail=asked["thumbnails"][k].tobytes()
            ),
            dataset="made up",
            role="pool",
            annotations=(NewAnnotation(category="car", box=(1.0, 2.0, 30.0, 40.0)),),
        )
        for k in range(len(hashes))
    ]
    judged = {"pairs": 0, "s": 0.0}
    lookalikes.unlikeness = _counted(lookalikes.unlikeness, judged)  # type: ignore[attr-defined]
    row: dict[str, Any] = {"images": count, "radius": radius}
    row["disk bytes"] = round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / count)
    before = _peak()
    rng = np.random.default_rng(0)
    with Store.open(folder / "workspace") as store:
        visible = [i + 1 for i in range(count) if _role(i) != "holdout"]
        ids = [rng.choice(visible, LABELS, replace=False).tolist() for _ in range(10)]
        row["labels ms"] = 1e3 * _median(
            [lambda some=some: store.annotations(some, reader="oracle") for some in ids]
        )
        run = store.begin_run("add", config={})
        row["first batch s"] = _seconds(lambda: store.add_images(run, new[:BATCH]))
        judged.update({"pairs": 0, "s": 0.0})
        parts = [new[start : start + BATCH] for start in range(BATCH, len(new), BATCH)]
        started = time.perf_counter()
        row["add s"] = _median([lambda part=part: store.add_images(run, part) for part in parts]) / BATCH
        row["add wall s"] = (time.perf_counter() - started) / BATCH / BATCHES
        row["judged an image"] = judged["pairs"] / BATCH / BATCHES
        row["judge ms"] = 1e3 * judged["s"] / max(1, judged["pairs"])
        pool = [int(i) for i in range(3, count, max(1, count // BATCH))][:BATCH]
        store.leaks(pool)
        row["leaks s"] = _seconds(lambda: store.leaks(pool))
        row["state s"] = _seconds(store.catalogue_state)
        row["draw s"] = _seconds(lambda: drawn(store))
        row["peak bytes"] = round((_peak() - before) / count)
        if count <= MOST:
            row["all leaks s"] = _seconds(lambda: store.leaks(store.image_ids(role="pool")))
        known = store._lookalikes._known
        last = hashes[-BATCH:]
        row["look-up ms"] = 1e3 * _median([lambda: list(known.table.near(last))] * 3) / BATCH
        own = np.arange(len(known) - BATCH, len(known))  # the last that were added
        row["candidates"] = sum(int((j != own[i]).sum()) for i, j, _ in known.table.near(last)) / BATCH
        rows = known.table.rows(np.arange(len(known)))
        row["scan ms"] = 1e3 * _median([lambda: scan(last[:4], rows, radius)]) / 4
        assert scan(last[:4], rows, radius) == sum(len(i) for i, _, _ in known.table.near(last[:4]))
    with Store.open(folder / "workspace") as store:
        row["first read s"] = _seconds(store._lookalikes._refresh)
    row["resident bytes"] = round((known.table.nbytes + 17 * len(known)) / count)
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}


def drawn(store: Store) -> int:
    """Images that chance chooses, as `query --method random` does."""
    current: Any = SimpleNamespace(explained_by=None, digest="")
    config = QueryConfig(name="chance", method="random", budget=100)
    return len(draw(store, config, "", [], current, may_answer(store, "", (), beside=())).hits)


def again(folder: Path, count: int) -> None:
    """`detect` and `index` where all is done: made in one process, measured in another."""
    for phase in ("fill", "measure"):
        script = Path(__file__).with_name("scale_again.py")
        subprocess.run([sys.executable, str(script), phase, str(folder), str(count)], check=True)


def tabled(folder: Path, count: int, data: Path, radius: int) -> dict[str, Any]:
    """The look-up alone, of a table in memory."""
    from scale_pictures import Pictures

    saved = folder / "hashes.npy"
    if not saved.exists():
        np.save(saved, Pictures(data).make(0, 20_064)[0])
    base = np.load(saved)
    rng = np.random.default_rng(0)
    table_, asked = hash_table.HashTable(), base[20_000:]
    for start in range(0, count, 20_000):
        bits = np.argsort(rng.random((20_000, 64)), axis=1)[:, :24].astype(np.uint64)
        turned = np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)
        table_.append((base[:20_000] ^ turned[:, None])[: count - start])
    hash_table.RADIUS = radius
    once = _seconds(lambda: list(table_.near(asked[:1])))
    found: dict[str, Any] = {"images": count, "radius": radius}
    found["look-up ms"] = 1e3 * _median([lambda: list(table_.near(asked))] * 3) / BATCH
    found["look-up of one ms"] = 1e3 * once
    found["candidates"] = sum(len(i) for i, _, _ in table_.near(asked)) / BATCH
    rows = table_.rows(np.arange(count))
    found["scan ms"] = 1e3 * _median([lambda: scan(asked[:4], rows, radius)] * 3) / 4
    found["resident bytes"] = table_.nbytes / count
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in found.items()}


def scan(left: np.ndarray, right: np.ndarray, radius: int) -> int:
    """Candidates by all 38 comparisons of each pair, over rows of 11 hashes: how it was before."""
    found = 0
    step = max(1, 500_000 // len(right))
    for start in range(0, len(left), step):
        own = left[start : start + step]
        for side in (0, HASHES - 1):
            near = np.zeros((len(own), len(right)), dtype=bool)
            for window in range(HASHES - 1):
                near |= popcount(own[:, None, side] ^ right[None, :, window]) <= radius
                if window:
                    near |= popcount(own[:, None, window] ^ right[None, :, side]) <= radius
            found += int(near.sum())
    return found


def _counted(call: Callable[..., float], tally: dict[str, Any]) -> Callable[..., float]:
    def counted(*planes: Any) -> float:
        started = time.process_time()
        found = call(*planes)
        tally["pairs"] += 1
        tally["s"] += time.process_time() - started
        return found

    return counted


def _seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _median(calls: list[Callable[[], Any]]) -> float:
    return float(np.median([_seconds(call) for call in calls]))


def _peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log(value) over log(images)."""
    sizes = np.log([row["images"] for row in rows])
    found = {}
    for name in KEPT:
        has = [name in row for row in rows]
        values = np.log([max(row[name], 1e-9) for row in rows if name in row])
        if len(values) > 1:
            found[name] = round(float(np.polyfit(sizes[has], values, 1)[0]), 2)
    for name in AN_IMAGE:
        values = np.log([row[name] * row["images"] for row in rows])
        found[name] = round(float(np.polyfit(sizes, values, 1)[0]), 2)
    return found


def main() -> None:
    """Fill, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--million", action="store_true", help="a million images too")
    parser.add_argument("--radius", type=int, nargs="+", default=[hash_table.RADIUS])
    parser.add_argument("--folder", type=Path, help="where workspaces are made (default: a temporary one)")
    parser.add_argument("--phase", nargs="+", help=argparse.SUPPRESS)  # a process of its own
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shared = os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared")
    if options.phase:
        name, folder, count, radius = options.phase
        if name == "again":
            again(Path(folder), int(count))
        elif name == "fill":
            fill(Path(folder), int(count), Path(shared) / "data")
        elif name == "tabled":
            print(json.dumps(tabled(Path(folder), int(count), Path(shared) / "data", int(radius))))
        else:
            print(json.dumps(measure(Path(folder), int(count), int(radius))))
        return
    base = options.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    sizes = sorted({*options.sizes, *([1_000_000] if options.million else [])})
    rows: dict[int, list[dict[str, Any]]] = {radius: [] for radius in options.radius}
    for count in sizes:
        folder = base / str(count)
        folder.mkdir(parents=True)
        done = json.loads(_phase("again", folder / "again", count, 0))
        shutil.rmtree(folder / "again")
        _phase("fill", folder, count, 0)
        for radius in options.radius:
            place = folder
            if len(options.radius) > 1:  # each begins with what was filled
                place = base / "copy"
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(folder, place)
            row = json.loads(_phase("measure", place, count, radius))
            row.update(json.loads((place / "filled.json").read_text()))
            row.update(done)
            rows[radius].append(row)
            shutil.rmtree(place)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    tables = []
    for count in sorted({*sizes, 1_000_000}):
        for radius in options.radius:
            tables.append(json.loads(_phase("tabled", base, count, radius)))
            print("  ".join(f"{name} {value}" for name, value in tables[-1].items()), flush=True)
    shutil.rmtree(base)
    from environment import machine, versions  # late: a child's peak is at least what its parent holds
    from scale_pictures import Pictures

    report = {
        "sizes": [row for some in rows.values() for row in some],
        "exponents": {str(radius): exponents(some) for radius, some in rows.items() if len(some) > 1},
        "tables": tables,
        "pictures": Pictures(Path(shared) / "data").check(),
        "seed": 0,
        "machine": machine(),
        "versions": versions("sqlalchemy"),
    }
    print(report["exponents"], report["pictures"])
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _phase(name: str, folder: Path, count: int, radius: int) -> str:
    command = [sys.executable, __file__, "--phase", name, str(folder), str(count), str(radius)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
