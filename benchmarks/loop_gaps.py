"""Does the loop mend planted gaps better than spending the same budget at random?

Renders the built-in example with renderer seeds drawn from the commit's hash, runs add, detect, diagnose,
explain, index, query and verify (arms nothing, random, query, oracle), and prints what each arm fixes and
breaks on the holdout. The shipped detector (`builtin:`) is the base: its training never saw a gap.

    python benchmarks/loop_gaps.py --quick    2 renderer x 3 training seeds; about 20 min on two cores
    python benchmarks/loop_gaps.py            3 renderer x 5 training seeds; about 90 min
    python benchmarks/loop_gaps.py --smoke    plumbing only, about 2 min; makes no claim

A killed run given the same --work folder continues where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions

from curator import pipeline
from curator.bootstrap import bootstrap_interval
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.gaps import CONDITION_TAG, GAPS
from curator.explain.settings import ExplainConfig
from curator.prove.readings import FEWEST
from curator.prove.settings import VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from store.records import ROLES, Role, Trial
from store.store import Store

ARMS = ("nothing", "random", "query", "oracle")
OLD = "worse_at_matched_threshold"
FIGURES = (("fn", "FN fixed"), ("fp", "FP fixed"), ("broken", "broken"))


def main() -> None:
    """Parse the options, run every renderer seed, print tables, write JSON."""
    options = _options()
    start = time.monotonic()
    root = Path(__file__).resolve().parents[1]
    commit = _commit(root)
    if options.smoke:
        sizes: dict[Role, int] = {"train": 40, "mine": 40, "pool": 80, "holdout": 24}
        renderers, steps, budget = 1, 4, 8
        seeds: tuple[int, ...] = (0,)
    else:
        sizes = {"train": 600, "mine": options.mine, "pool": options.pool, "holdout": options.holdout}
        renderers, seeds = (2, (0, 1, 2)) if options.quick else (3, (0, 1, 2, 3, 4))
        steps, budget = options.steps, options.budget
    work = options.work or Path(tempfile.mkdtemp(prefix="loop-gaps-"))
    drawn = renderer_seeds(commit, options.seed, renderers)
    print(f"commit {commit[:12]}, renderer seeds {drawn}, work in {work}", file=sys.stderr)
    trials: list[tuple[int, Trial]] = []
    runs = []
    for renderer in drawn:
        found, facts = run_loop(
            work / f"renderer-{renderer}",
            renderer,
            sizes=sizes,
            seeds=seeds,
            steps=steps,
            budget=budget,
            detector=options.detector,
            device=options.device,
            added_weight=options.added_weight,
        )
        trials += [(renderer, trial) for trial in found]
        runs.append(facts)
    rows, gaps = arm_rows(trials), gap_rows(trials)
    _print_tables(rows, gaps, runs)
    acceptance = [] if options.smoke else claims(trials, gaps, runs, budget)
    for claim in acceptance:
        print(
            f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']} "
            f"(target {claim['target']})"
        )
    if options.smoke:
        print("smoke: plumbing only, no claim")
    report = {
        "benchmark": "loop_gaps",
        "smoke": options.smoke,
        "quick": options.quick,
        "commit": commit,
        "seed": options.seed,
        "renderer_seeds": drawn,
        "training_seeds": list(seeds),
        "sizes": sizes,
        "steps": steps,
        "budget": budget,
        "machine": machine(),
        "versions": versions("faiss-cpu", "hotcoco"),
        "seconds": round(time.monotonic() - start, 1),
        "runs": runs,
        "rows": rows,
        "gaps": gaps,
        "trials": [_trial_row(renderer, trial) for renderer, trial in trials],
        "acceptance": acceptance,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"{time.monotonic() - start:.0f} s")


def _trial_row(renderer: int, trial: Trial) -> dict[str, Any]:
    """The worse reading of a trial in short."""
    worse = trial.metrics["worse"]
    rates = {name: worse[kind]["rate"] for kind, name in FIGURES}
    return {
        "renderer_seed": renderer,
        "arm": trial.arm,
        "seed": trial.seed,
        "ap50": trial.metrics["ap50"],
        **rates,
        "new FP/img": worse["new_false_per_image"],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 renderer seeds x 3 training seeds")
    parser.add_argument("--smoke", action="store_true", help="check the plumbing, claim nothing")
    parser.add_argument("--seed", type=int, default=0, help="mixed into the renderer seeds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--shared", type=Path, help="not used: all data is rendered")
    parser.add_argument("--work", type=Path, help="folder to work in; default: a new temporary one")
    parser.add_argument("--mine", type=int, default=1000, help="mined images")
    parser.add_argument("--pool", type=int, default=3200, help="pool images")
    parser.add_argument("--holdout", type=int, default=600, help="holdout images")
    parser.add_argument("--budget", type=int, default=100, help="images that every arm adds")
    parser.add_argument("--steps", type=int, default=240, help="optimiser steps of every training")
    parser.add_argument("--added-weight", type=float, default=4.0)
    parser.add_argument("--detector", default="builtin:", help="the base")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def renderer_seeds(commit: str, seed: int, count: int) -> list[int]:
    """Seeds that nobody chose: from the commit's hash."""
    return [
        int.from_bytes(hashlib.sha256(f"{commit}:{seed}:{number}".encode()).digest()[:4], "big") >> 2
        for number in range(count)
    ]


def run_loop(
    folder: Path,
    renderer: int,
    *,
    sizes: Mapping[Role, int],
    seeds: Sequence[int],
    steps: int,
    budget: int,
    detector: str,
    device: str,
    added_weight: float,
) -> tuple[list[Trial], dict[str, Any]]:
    """The loop on one rendering; returns its trials and facts (seconds per stage, gap images of the pool)."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        value = call()
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - begin, 1)
        print(f"[{renderer}] {name}: {seconds[name]:.0f} s", file=sys.stderr, flush=True)
        return value

    timed("render", lambda: write_dataset(folder / "data", sizes=sizes, seed=renderer))
    workspace = folder / "workspace"
    exists = (workspace / "workspace.json").exists()
    with Store.open(workspace) if exists else Store.create(workspace) as store:
        for role in ROLES:
            timed(
                "add",
                lambda role=role: pipeline.add(  # type: ignore[misc]
                    store, AddConfig(format="coco", path=folder / "data" / role, role=role)
                ),
            )
        timed("detect", lambda: pipeline.detect(store, DetectConfig(detector=detector, device=device)))
        diagnosis = timed("diagnose", lambda: pipeline.diagnose(store, DiagnoseConfig(device=device)))
        timed(
            "explain",
            lambda: pipeline.explain(
                store, ExplainConfig(samples=8, segments=120, successes=8, device=device)
            ),
        )
        timed("index", lambda: pipeline.index(store, IndexConfig(device=device)))
        timed(
            "query", lambda: pipeline.query(store, QueryConfig(budget=budget, seed=renderer, device=device))
        )
        verified = timed(
            "verify",
            lambda: pipeline.verify(
                store,
                VerifyConfig(
                    name="loop-gaps",
                    arms=ARMS,
                    budget=budget,
                    seeds=tuple(seeds),
                    steps=steps,
                    seed=renderer,
                    added_weight=added_weight,
                    condition_tag=CONDITION_TAG,
                    device=device,
                ),
            ),
        )
        trials = store.trials("loop-gaps")
    return trials, {
        "renderer_seed": renderer,
        "seconds": seconds,
        "pool_gaps": pool_gaps(folder / "data" / "pool"),
        "diagnosis": diagnosis.summary["causes"],
        "base": verified.summary["base"],
        "unscored_gaps": verified.summary["unscored_conditions"],
    }


def pool_gaps(folder: Path) -> dict[str, int]:
    """Pool images per planted gap, from the rendered file (no stage reads it)."""
    counts: dict[str, int] = defaultdict(int)
    for image in json.loads((folder / "annotations.json").read_text())["images"]:
        counts[image["tags"]["gap"]] += 1
    counts["all images"] = sum(counts.values())
    return dict(counts)


def worse_rates(trials: Sequence[tuple[int, Trial]], arm: str, kind: str) -> dict[str, float]:
    """ "renderer/seed" -> the worse reading's rate."""
    return {
        f"{renderer}/{trial.seed}": trial.metrics["worse"][kind]["rate"]
        for renderer, trial in trials
        if trial.arm == arm and trial.metrics["worse"][kind]["rate"] is not None
    }


def arm_rows(trials: Sequence[tuple[int, Trial]]) -> list[dict[str, Any]]:
    """One row per arm and figure: mean, its 95% interval, worst trial."""
    rows = []
    for arm in ARMS:
        of_arm = [(renderer, trial) for renderer, trial in trials if trial.arm == arm]
        for kind, label in FIGURES:
            worst = max if kind == "broken" else min
            rows.append(_row(arm, label, of_arm, lambda m, k=kind: m["worse"][k]["rate"], worst))
        for label, read, worst in (
            ("new FP/img", lambda m: m["worse"]["new_false_per_image"], max),
            ("FP fixed*", lambda m: m[OLD]["fp"]["rate"], min),
            ("new FP/img*", lambda m: m[OLD]["new_false_per_image"], max),
            ("AP50", lambda m: m["ap50"], min),
        ):
            rows.append(_row(arm, label, of_arm, read, worst))
    return rows


def _row(
    arm: str,
    figure: str,
    trials: Sequence[tuple[int, Trial]],
    read: Callable[[Mapping[str, Any]], float | None],
    worst: Callable[[Sequence[float]], float],
) -> dict[str, Any]:
    """Renderings are the clusters, training seeds the second level; a trial may lack the figure."""
    known = [(renderer, trial.seed, read(trial.metrics)) for renderer, trial in trials]
    known = [row for row in known if row[2] is not None]
    values = [value for _, _, value in known]
    found = bootstrap_interval(
        values, clusters=[renderer for renderer, _, _ in known], seeds=[seed for _, seed, _ in known]
    )
    return {
        "arm": arm,
        "figure": figure,
        "trials": found.count,
        **found.plain(),
        "worst": worst(values) if values else None,
    }


def gap_rows(trials: Sequence[tuple[int, Trial]]) -> list[dict[str, Any]]:
    """Per gap and kind: every arm's mean fix rate over the trials where it is scored (30 failures)."""
    rates: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for _, trial in trials:
        for gap, figures in trial.metrics["worse"]["groups"]["condition"].items():
            for kind in ("fn", "fp"):
                if trial.arm == ARMS[0]:
                    numbers[gap, kind].append(figures[kind]["n"])
                if figures[kind]["rate"] is not None:
                    rates[gap, kind][trial.arm].append(figures[kind]["rate"])
    return [
        {
            "gap": gap,
            "kind": kind.upper(),
            "holdout_failures": [min(n), max(n)],
            **{arm: float(np.mean(rates[gap, kind][arm])) if rates[gap, kind][arm] else None for arm in ARMS},
        }
        for (gap, kind), n in sorted(numbers.items())
        if max(n)
    ]


def claims(
    trials: Sequence[tuple[int, Trial]],
    gaps: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    budget: int,
) -> list[dict[str, Any]]:
    """The acceptance rows of the issue, from this very run; FN and FP apart."""
    found = []

    def claim(text: str, target: str, value: float, ok: bool) -> None:
        found.append(
            {
                "claim": text,
                "target": target,
                "value": round(value, 4) if np.isfinite(value) else None,
                "ok": bool(ok),
            }
        )

    def mean(arm: str, kind: str) -> float:
        return float(np.mean(list(worse_rates(trials, arm, kind).values()) or [np.nan]))

    for kind in ("fn", "fp"):
        name = kind.upper()
        query, rival, best = (mean(arm, kind) for arm in ("query", "random", "oracle"))
        claim(f"{name} fix rate of query minus random's", ">= 0.25", query - rival, query - rival >= 0.25)
        claim(
            f"{name} fix rate of query over the oracle's",
            ">= 0.85",
            query / best if best else float("nan"),
            bool(best) and query / best >= 0.85,
        )
    broken = mean("query", "broken")
    claim("break rate of query", "<= 0.03", broken, broken <= 0.03)
    new = {
        arm: float(np.mean([t.metrics["worse"]["new_false_per_image"] for _, t in trials if t.arm == arm]))
        for arm in ("query", "random")
    }
    claim(
        "new false positives per image, query minus random",
        "<= 0",
        new["query"] - new["random"],
        new["query"] <= new["random"],
    )
    pool = min(run["pool_gaps"]["all images"] for run in runs)
    claim("pool images", ">= 3000", pool, pool >= 3000)
    planted = [{gap: run["pool_gaps"].get(gap, 0) for gap in GAPS} for run in runs]
    shares = [
        count / run["pool_gaps"]["all images"]
        for run, counts in zip(runs, planted, strict=True)
        for count in counts.values()
    ]
    claim("share of the rarest gap in a pool", ">= 0.01", min(shares), min(shares) >= 0.01)
    claim("share of the most frequent gap in a pool", "<= 0.02", max(shares), max(shares) <= 0.02)
    fewest = min(sum(gap.values()) for gap in planted)
    claim("gap images in the pool over the budget", ">= 2", fewest / budget, fewest >= 2 * budget)
    return found


def _print_tables(
    rows: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> None:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    print(f"{'arm':9s} {'figure':11s} {'mean':>6s} {'95% interval':>16s} {'worst seed':>11s} {'trials':>7s}")
    for row in rows:
        interval = f"[{text(row['low'])}, {text(row['high'])}]"
        print(
            f"{row['arm']:9s} {row['figure']:11s} {text(row['mean']):>6s} {interval:>16s} "
            f"{text(row['worst']):>11s} {row['trials']:7d}"
        )
    print("* read at the base's number of false positives (docs/decisions/0004)")
    print(
        f"\n{'gap':11s} {'kind':4s} {'failures':>9s} "
        + " ".join(f"{arm:>8s}" for arm in ARMS)
        + f"   (fewer than {FEWEST} failures: not scored)"
    )
    for row in gaps:
        number = "-".join(str(n) for n in row["holdout_failures"])
        print(
            f"{row['gap']:11s} {row['kind']:4s} {number:>9s} "
            + " ".join(f"{text(row[arm]):>8s}" for arm in ARMS)
        )
    scored = [row for row in gaps if row["query"] is not None]
    if scored:
        worst = min(scored, key=lambda row: row["query"])
        print(f"worst gap of query: {worst['gap']} ({worst['kind']}) {worst['query']:.3f}")
    for run in runs:
        stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in run["seconds"].items())
        print(f"renderer {run['renderer_seed']}: seconds {stages}; pool {run['pool_gaps']}")


def _commit(root: Path) -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else "no-commit"


if __name__ == "__main__":
    main()
