"""How the page does with 100,000 failures: `python benchmarks/review_scale.py WORKSPACE [NUMBER]`.

Adds generated failures to a copy of the workspace, and times the API and a browser that scrolls. Prints a
table and writes benchmarks/results/review_scale.json. Wall time of a shared machine varies: the server's CPU
seconds stand beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from environment import machine, versions
from review_browser import TOKEN, page_of

from store.records import ItemStatus
from store.store import Store

REQUESTS = {
    "first page": "/failures?limit=60",
    "a class by size": "/failures?class=c3&sort=size&limit=60",
    "places of all pages": "/failures/places",
    "counts": "/failures/counts",
    "overview": "/overview",
}
BATCH = 5000


def add_failures(store: Store, number: int) -> None:
    run = store.current_run("diagnose")
    assert run is not None
    model = store.outcomes(kind="FN")[0]
    for start in range(0, number, BATCH):
        many = [
            replace(
                model,
                id=None,
                key=f"generated-{i}",
                score=(i * 7919 % 100_003) / 100_003,
                category=f"c{i % 9}",
            )
            for i in range(start, min(start + BATCH, number))
        ]
        with store.transaction():
            store.put_outcomes(run.id, model.image_id, many, item_key=f"generated-{start}")
            done = ItemStatus(key=f"generated-{start}", status="done", image_id=model.image_id)
            store.record_items(run.id, [done])


def timed(base: str, path: str) -> tuple[float, float]:
    """Wall and CPU seconds of the best of three."""
    request = urllib.request.Request(f"{base}/api{path}", headers={"cookie": f"curator-review={TOKEN}"})
    best = (float("inf"), float("inf"))
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        with urllib.request.urlopen(request) as answer:
            answer.read()
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
    return best


def main(workspace: Path, number: int = 100_000) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(workspace, Path(folder) / "ws")
        with Store.open(Path(folder) / "ws") as store:
            add_failures(store, number)
            with page_of(store, viewport={"width": 1360, "height": 840}) as (page, base):
                for name, path in REQUESTS.items():
                    wall, cpu = timed(base, path)
                    rows.append({"what": name, "seconds": round(wall, 3), "cpu": round(cpu, 3)})
                page.goto("/failures")
                page.wait_for_selector(".tile img.crop")
                for share in (0.5, 0.9, 0.1):
                    began = time.perf_counter()
                    page.locator(".grid").evaluate(
                        f"own => (own.scrollTop = own.firstElementChild.offsetHeight * {share})"
                    )
                    page.wait_for_selector(".blank", state="detached")
                    page.wait_for_selector(".tile img.crop")
                    passed = round(time.perf_counter() - began, 3)
                    tiles = page.locator(".tile").count()
                    what = f"jump to {share:.0%}: {tiles} tiles"
                    rows.append({"what": what, "seconds": passed, "cpu": None})
    for row in rows:
        cpu = "" if row["cpu"] is None else f"{row['cpu']:.3f} s CPU"
        print(f"{row['what']:<26} {row['seconds']:>7.3f} s  {cpu}")
    out = Path(__file__).parent / "results" / "review_scale.json"
    out.write_text(
        json.dumps(
            {
                "failures": number,
                "rows": rows,
                "machine": machine(),
                "versions": versions("fastapi", "uvicorn", "playwright"),
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
