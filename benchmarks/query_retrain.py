"""Does retraining with what a query chose beat class-wise uncertainty and chance, at equal labelling cost?

    python benchmarks/query_retrain.py --set bccd|vehicles [--method NAME ...] [--seeds 0,1,2] [--budget 30]
                                       [--mode images|boxes|asked ...] [--failures SELECTOR]
                                       [--cache FOLDER] [--out FILE.json]

bccd as in docs/examples/bccd.toml: an SSD trained on part 0-35 of the published training split, the pool is
the rest of it, failures are mined on val, the published test split proves. vehicles likewise, with train,
valid and test of vehicles_openimages. Everything goes through the product: add, train, detect, diagnose,
index, query, verify. Each method chooses three times:

    images   the first `--budget` images of its query
    boxes    the first images in its order, as many as together hold no more true boxes than `--budget`
             images of the pool do on the average
    asked    the same number of true boxes, in the order of a query that was asked with --budget-boxes: most
             expected failures per box first. Random knows no such order: its row is that of `boxes`

Random is drawn anew for every training seed. A killed run given the same cache continues. Differences are
paired by training seed; with three of them intervals are hints.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from environment import machine, versions
from query_sets import CACHE, SHARED, SQUEEZENET

from curator import pipeline
from curator.bootstrap import bootstrap_interval, paired_difference
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from store.keys import content_key
from store.records import Role
from store.store import Store

FIGURES = ("fn_fixed", "fp_fixed", "broken", "new_false_per_image", "ap50")
LESS_IS_BETTER = ("broken", "new_false_per_image")
MODES = ("images", "boxes", "asked")
DEPTH = 3  # budgets that a query is asked for, before it is cut at a number of boxes


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A data set's splits and its base detector."""

    format: str
    path: str
    splits: dict[str, tuple[str, str]]
    detector: str
    steps: int = 400
    learning_rate: float = 0.0005


SETS = {
    "bccd": Experiment(
        format="voc",
        path="bccd/BCCD",
        splits={
            "train": ("train", "0-35"),
            "pool": ("train", "35-100"),
            "mine": ("val", "0-100"),
            "holdout": ("test", "0-100"),
        },
        detector=f"curator:ssd?classes=RBC,WBC,Platelets&size=256&anchors=24,48,90,140,200&{SQUEEZENET}",
    ),
    "vehicles": Experiment(
        format="yolo",
        path="vehicles_openimages",
        splits={
            "train": ("train", "0-35"),
            "pool": ("train", "35-100"),
            "mine": ("valid", "0-100"),
            "holdout": ("test", "0-100"),
        },
        detector="curator:ssd?classes=Ambulance,Bus,Car,Motorcycle,Truck&size=256"
        f"&anchors=32,64,120,180,240&{SQUEEZENET}",
        steps=600,
    ),
}
ROLES: tuple[Role, ...] = ("train", "pool", "mine", "holdout")


def prepared(store: Store, experiment: Experiment, folder: Path) -> None:
    """Images, base detector, diagnosis, index."""
    for role in ROLES:
        split, part = experiment.splits[role]
        pipeline.add(
            store,
            AddConfig(
                format=experiment.format,
                path=SHARED / "data" / experiment.path,
                split=split,
                part=part,
                role=role,
            ),
        )
    base = folder / "base.safetensors"
    pipeline.train(
        store,
        TrainConfig(
            detector=experiment.detector.format(weights=SHARED / "data" / "weights"),
            out=base,
            steps=experiment.steps,
            batch_size=8,
            learning_rate=experiment.learning_rate,
            batch_norm="train",
        ),
    )
    pipeline.detect(store, DetectConfig(detector=f"curator:{base}"))
    pipeline.diagnose(store, DiagnoseConfig())
    pipeline.index(store, IndexConfig())


def chosen(store: Store, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, str]:
    """Asks the pool -> per mode the name of the selection."""
    pool = store.image_ids(role="pool")
    labels = store.annotations(pool, reader="oracle")
    cost = {i: len(labels[i].annotations) if i in labels else 0 for i in pool}
    allowed = arguments.budget * sum(cost.values()) / len(pool)
    names = {}
    wanted = [m for m in arguments.mode if m != "asked" or method != "random"]
    if method == "random" and "asked" in arguments.mode and "boxes" not in wanted:
        wanted.append("boxes")  # stands for it
    for mode in wanted:
        name = f"{method}-{mode}" + (f"-{seed}" if method == "random" else "")
        deep = {"images": arguments.budget, "boxes": arguments.budget * DEPTH, "asked": len(pool)}[mode]
        config = QueryConfig(
            name=name if mode == "images" else f"{name}-deep",
            method=method,
            failures=arguments.failures,
            budget=min(deep, len(pool)),
            budget_boxes=round(allowed * DEPTH) if mode == "asked" else 0,
            seed=seed if method == "random" else 0,
        )
        run = pipeline.query(store, config)
        if mode != "images":
            found, hits, spent = store.selection(config.name), [], 0
            for hit in found.hits:
                spent += cost[hit.image_id]
                if spent > allowed:
                    break
                hits.append(hit)
            key = content_key("equal boxes", found.key, allowed)
            store.put_selection(run.run_id, replace(found, name=name, hits=tuple(hits), key=key, id=None))
        names[mode] = name
    return {mode: names.get(mode, names.get("boxes", "")) for mode in arguments.mode}


def trained(store: Store, selection: str, seed: int, steps: int, *, arm: str = "query") -> dict[str, Any]:
    """One training and its figures on the holdout; done once."""
    hits = store.selection(selection).image_ids if arm == "query" else ()
    name = f"{selection}-{seed}"
    pipeline.verify(
        store,
        VerifyConfig(
            name=name,
            arms=(arm,),
            selection=selection if arm == "query" else "query",
            budget=max(1, len(hits)),
            seeds=(seed,),
            steps=steps,
            batch_size=8,
            learning_rate=0.0003,
            added_weight=2.0,
        ),
    )
    (trial,) = [t for t in store.trials(name) if t.arm == arm and t.seed == seed][-1:]
    worse = trial.metrics["worse"]
    labels = store.annotations(list(hits), reader="oracle") if hits else {}
    return {
        "fn_fixed": worse["fn"]["rate"],
        "fp_fixed": worse["fp"]["rate"],
        "broken": worse["broken"]["rate"],
        "new_false_per_image": worse["new_false_per_image"],
        "ap50": trial.metrics["ap50"],
        "images": len(hits),
        "boxes": sum(len(found.annotations) for found in labels.values()),
        "base": trial.metrics["base"],
    }


def measure(store: Store, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per method, mode and training seed."""
    rows = []
    for seed in arguments.seeds:
        nothing = trained(store, "nothing", seed, arguments.steps, arm="nothing")
        rows += [{"method": "nothing", "mode": mode, "seed": seed, **nothing} for mode in arguments.mode]
        for method in arguments.method:
            for mode, name in chosen(store, method, seed, arguments).items():
                row = {"method": method, "mode": mode, "seed": seed}
                rows.append(row | trained(store, name, seed, arguments.steps))
                print({k: v for k, v in rows[-1].items() if k != "base"}, flush=True)
    return rows


def values(rows: list[dict[str, Any]], method: str, mode: str, figure: str) -> list[float]:
    """By training seed; nan where there is none."""
    own = sorted((r for r in rows if (r["method"], r["mode"]) == (method, mode)), key=lambda r: r["seed"])
    return [math.nan if r[figure] is None else float(r[figure]) for r in own]


def report(
    rows: list[dict[str, Any]], methods: list[str], judged: str, modes: list[str]
) -> dict[str, Any]:
    """Means per method and mode, and the judged method's differences from the others."""
    table, claims = {}, []
    for mode in modes:
        for method in ("nothing", *methods):
            means = {f: bootstrap_interval(values(rows, method, mode, f)) for f in FIGURES}
            spent = {f: sum(own := values(rows, method, mode, f)) / len(own) for f in ("images", "boxes")}
            table[f"{mode}: {method}"] = {f: found.plain() for f, found in means.items()} | spent
            cells = "  ".join(f"{f} {found.mean:.3f}" for f, found in means.items())
            print(f"{mode:7s} {method:18s} {cells}")
        for rival in methods:
            if judged in methods and rival != judged:
                for figure in FIGURES:
                    sign = -1 if figure in LESS_IS_BETTER else 1
                    ours, theirs = (values(rows, m, mode, figure) for m in (judged, rival))
                    gain = paired_difference(ours, theirs)
                    claims.append(
                        {
                            "claim": f"{mode}: {figure}, {judged} against {rival}",
                            "value": gain.mean,
                            "interval": gain.plain(),
                            "ok": bool(sign * gain.mean >= 0),
                        }
                    )
                    mark = "ok  " if claims[-1]["ok"] else "MISS"
                    print(f"{mark} {claims[-1]['claim']}: {gain.mean:+.3f} [{gain.low:.3f}, {gain.high:.3f}]")
    return {"claims": claims, "table": table}


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--method", nargs="+", default=["predictor", "class-uncertainty", "random"])
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--judge", default="predictor")
    parser.add_argument("--seeds", type=lambda text: [int(v) for v in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--steps", type=int, default=200, help="of every retraining")
    parser.add_argument("--failures", default="", help="as for curator query; all by default")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    folder = arguments.cache.expanduser() / f"retrain-{arguments.set}"
    workspace = folder / "workspace"
    folder.mkdir(parents=True, exist_ok=True)
    known = (workspace / "workspace.json").is_file()
    with Store.open(workspace) if known else Store.create(workspace) as store:
        prepared(store, SETS[arguments.set], folder)
        rows = measure(store, arguments)
    found = report(rows, arguments.method, arguments.judge, arguments.mode)
    if arguments.out:
        plain = {
            "set": arguments.set,
            "budget": arguments.budget,
            "steps": arguments.steps,
            "failures": arguments.failures,
            **found,
            "rows": [{k: v for k, v in row.items() if k != "base"} for row in rows],
            "base": rows[0]["base"],
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "versions": versions(),
        }
        arguments.out.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
