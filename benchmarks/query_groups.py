"""Do the groups of failures meet the causes that were planted?

    python benchmarks/query_groups.py [--quick] [--seed N] [--mine N] [--explain] [--out FILE.json]

Renders the built-in example's mined scenes (78% with one of six gaps), runs add, detect, diagnose, index and
groups with the shipped detector, and compares the groups with the tag `gap` of the missed object (of the
image, for a false positive), which no stage reads: adjusted Rand index over the failures with a planted
cause, over all (what fails without a gap being a cause of its own), and over the misses alone. Misses and
false positives are never in one group, though one gap causes both: the ceiling is the index that the true
causes reach when they are split so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions
from sklearn.metrics import adjusted_rand_score

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.gaps import CONDITION_TAG
from curator.explain.settings import ExplainConfig
from curator.query.settings import GroupsConfig, IndexConfig
from store.records import Outcome, Role
from store.store import Store

TARGET = 0.8
ROLES: tuple[Role, ...] = ("train", "mine", "pool")


def measure(folder: Path, *, seed: int, mine: int, detector: str, explain: bool) -> dict[str, Any]:
    """Figures of one rendering."""
    data = write_dataset(folder / "data", sizes={"train": 20, "mine": mine, "pool": 20}, seed=seed)
    with Store.create(folder / "workspace") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=data[role], role=role))
        pipeline.detect(store, DetectConfig(detector=detector))
        pipeline.diagnose(store, DiagnoseConfig())
        if explain:
            pipeline.explain(store, ExplainConfig(samples=8, segments=120, successes=0))
        pipeline.index(store, IndexConfig())
        start = time.perf_counter()
        summary = pipeline.groups(store, GroupsConfig()).summary
        seconds = time.perf_counter() - start
        failures = [o for o in store.outcomes() if o.kind != "TP"]
        causes = planted(store, failures)
    place = {i: g for g, group in enumerate(summary["groups"]) for i in group["outcomes"]}
    known = [o for o in failures if o.id in place]
    truth = np.array([causes[o.id or 0] for o in known])
    found = np.array([place[o.id or 0] for o in known])
    apart = np.array([f"{causes[o.id or 0]} {o.kind} {o.cause == 'background'}" for o in known])
    some, missed = truth != "none", np.array([o.kind == "FN" for o in known])
    return {
        "seed": seed,
        "failures": len(known),
        "groups": len(summary["groups"]),
        "planted": float(adjusted_rand_score(truth[some], found[some])),
        "ceiling": float(adjusted_rand_score(truth[some], apart[some])),
        "all": float(adjusted_rand_score(truth, found)),
        "misses": float(adjusted_rand_score(truth[some & missed], found[some & missed])),
        "stability": summary["stability"],
        "seconds": round(seconds, 1),
        "names": [
            {"name": group["name"], "causes": dict(Counter(causes[i] for i in group["outcomes"]))}
            for group in summary["groups"]
        ],
    }


def planted(store: Store, failures: list[Outcome]) -> dict[int, str]:
    """Outcome id -> the gap behind it, "none" without one."""
    images = sorted({o.image_id for o in failures})
    tags = store.tags(images, reader="oracle")
    objects = {
        annotation.id: annotation.attributes.get(CONDITION_TAG)
        for labels in store.annotations(images, reader="oracle").values()
        for annotation in labels.annotations
    }
    return {
        o.id or 0: str(
            (objects.get(o.annotation_id) if o.annotation_id else tags[o.image_id][CONDITION_TAG]) or "none"
        )
        for o in failures
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one rendering instead of four")
    parser.add_argument("--seed", type=int, default=10, help="of the first rendering")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--shared", type=Path, help="folder of real data; not used here")
    parser.add_argument("--mine", type=int, default=480, help="mined images")
    parser.add_argument("--detector", default="builtin:", help="detector spec")
    parser.add_argument("--explain", action="store_true", help="explain the failures first")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seed, arguments.seed + (1 if arguments.quick else 4)):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(
                Path(folder),
                seed=seed,
                mine=arguments.mine,
                detector=arguments.detector,
                explain=arguments.explain,
            )
        rows.append(row)
        print(
            f"seed {seed}: {row['failures']} failures in {row['groups']} groups; adjusted Rand index "
            f"{row['planted']:.2f} of planted causes (ceiling {row['ceiling']:.2f}), {row['misses']:.2f} of "
            f"misses, {row['all']:.2f} of all; {row['seconds']} s",
            flush=True,
        )
        for group in row["names"]:
            print(f"    {group['name']}: {group['causes']}")
    worst = min(row["planted"] for row in rows)
    claim = {
        "claim": "adjusted Rand index to the planted causes, worst rendering",
        "target": TARGET,
        "value": worst,
        "ok": worst >= TARGET,
    }
    print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {worst:.2f} (target {TARGET})")
    report = {
        "machine": machine(),
        "versions": versions("scikit-learn", "scipy"),
        "seed": arguments.seed,
        "quick": arguments.quick,
        "explain": arguments.explain,
        "rows": rows,
        "acceptance": [claim],
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
