"""How many of the pool images that a query selects show a planted gap, against similarity and random.

    python benchmarks/query_precision.py [--quick] [--seed N] [--out FILE.json] [--no-explain]

Renders the built-in example (a pool of 3,000 with each of six gaps at 1.5%), runs add, detect, diagnose,
index and query with the shipped detector, and counts by the renderer's own tags, which no stage reads. The
failures are explained first, so that the index holds attribution-weighted region vectors; --no-explain
leaves that out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from environment import machine, versions

from curator import pipeline
from curator.bootstrap import paired_difference
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.gaps import GAPS
from curator.explain.settings import ExplainConfig
from curator.query.settings import IndexConfig, QueryConfig
from store.records import Role
from store.store import Store

METHODS = ("predictor", "contrastive", "class-uncertainty", "similarity", "random")
BUDGET = 100
FAILURES = "FN;FP:background"  # badly placed boxes of found objects are no gap in the data
ROLES: tuple[Role, ...] = ("train", "mine", "pool")
TARGETS = {"precision": 0.9, "least": 10}


def measure(
    folder: Path, *, seed: int, mine: int, pool: int, detector: str, explain: bool
) -> list[dict[str, Any]]:
    """Rows (one per method) for one rendering."""
    data = write_dataset(folder / "data", sizes={"train": 30, "mine": mine, "pool": pool}, seed=seed)
    with Store.create(folder / "workspace") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=data[role], role=role))
        pipeline.detect(store, DetectConfig(detector=detector))
        diagnosis = pipeline.diagnose(store, DiagnoseConfig())
        if explain:
            pipeline.explain(store, ExplainConfig(samples=8, segments=120, successes=0))
        start = time.perf_counter()
        pipeline.index(store, IndexConfig())
        indexing = time.perf_counter() - start
        truth = {
            image: tags["gap"]
            for image, tags in store.tags(store.image_ids(role="pool"), reader="oracle").items()
        }
        rows = []
        for method in METHODS:
            start = time.perf_counter()
            summary = pipeline.query(
                store, QueryConfig(name=method, failures=FAILURES, method=method, budget=BUDGET, seed=seed)
            ).summary
            found = Counter(truth[hit["image"]] for hit in summary["hits"])
            rows.append(
                {
                    "seed": seed,
                    "method": method,
                    "precision": 1 - found["none"] / len(summary["hits"]),
                    "found": {gap: found[gap] for gap in GAPS},
                    "in_pool": {gap: sum(g == gap for g in truth.values()) for gap in GAPS},
                    "index_seconds": round(indexing, 1),
                    "query_seconds": round(time.perf_counter() - start, 1),
                    "groups": [
                        {name: group[name] for name in ("name", "failures", "hits")}
                        for group in summary["groups"]
                    ],
                    "failures": diagnosis.summary.get("causes"),
                }
            )
    return rows


def acceptance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Claims about these rows."""
    asked = [row for row in rows if row["method"] == "predictor"]
    worst = min(row["precision"] for row in asked)
    least = min(min(row["found"].values()) for row in asked)
    of = {m: [row["precision"] for row in rows if row["method"] == m] for m in METHODS}
    gain = paired_difference(of["predictor"], of["similarity"], clusters=[row["seed"] for row in asked])
    return [
        {
            "claim": "precision of the query, worst seed",
            "target": TARGETS["precision"],
            "value": worst,
            "ok": worst >= TARGETS["precision"],
        },
        {
            "claim": "images found of the least covered gap, worst seed",
            "target": TARGETS["least"],
            "value": least,
            "ok": least >= TARGETS["least"],
        },
        {
            "claim": "mean precision above similarity's",
            "target": 0.0,
            "value": gain.mean,
            "interval": gain.plain(),
            "ok": gain.mean > 0,
        },
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two renderings instead of four")
    parser.add_argument("--seed", type=int, default=0, help="of the first rendering")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--shared", type=Path, help="folder of real data; not used here")
    parser.add_argument("--mine", type=int, default=960, help="mined images")
    parser.add_argument("--pool", type=int, default=3000, help="pool images")
    parser.add_argument("--detector", default="builtin:", help="detector spec")
    parser.add_argument(
        "--no-explain", dest="explain", action="store_false", help="query without attributions"
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seed, arguments.seed + (2 if arguments.quick else 4)):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(
                Path(folder),
                seed=seed,
                mine=arguments.mine,
                pool=arguments.pool,
                detector=arguments.detector,
                explain=arguments.explain,
            )
        for row in rows[-len(METHODS) :]:
            counts = "  ".join(f"{gap} {row['found'][gap]:>2}/{row['in_pool'][gap]}" for gap in GAPS)
            print(f"seed {seed}  {row['method']:<12} precision {row['precision']:.2f}   {counts}", flush=True)
    claims = acceptance(rows)
    for claim in claims:
        verdict = "ok  " if claim["ok"] else "MISS"
        around = claim.get("interval", {"low": None})
        text = "" if around["low"] is None else f" [{around['low']:.2f}, {around['high']:.2f}]"
        print(f"{verdict} {claim['claim']}: {claim['value']:.2f}{text} (target {claim['target']})")
    report = {
        "machine": machine(),
        "versions": versions(),
        "seed": arguments.seed,
        "quick": arguments.quick,
        "explain": arguments.explain,
        "rows": rows,
        "acceptance": claims,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
