"""Conditions that training images lack, on photographs: does synthesis mend what copy-paste and chance do
not?

    python benchmarks/synth_gaps.py --set bccd [--split 3] [--seeds 0,1,2,3] [--out FILE.json]
        [--recipe object ...]    others than the default; for development

Data, detector, diagnosis and training are those of loop_real.py, whose cache is copied (and made where it is
missing). One class is withheld from training images; mined images hold it as it comes. (Rule of this file,
written before any arm was trained: `synthesize` with its defaults, composition of real pixels, all failures,
and the judge on MobileNet; 40 accepted samples; six plans a sample at most; arms of 40 images each:)

    nothing, random     as in loop_real
    copy-paste          missed objects pasted into training images anywhere
    synthesis           the accepted samples
    oracle              pool images that hold what fails

Splits: 0 for development; 1 was the report until its first four seeds showed that groups in equal turns spend
the samples on odd single failures; since groups are weighted, 2 reported (written before it was prepared).
Since a recipe brings the surroundings along and the gate knows what was pasted at home (both chosen on splits
0 and 1 and on rendered scenes), 3 reports (written before it was prepared).

Printed: FN fixed, of the withheld class and of all, AP50, broken; synthesis minus each other arm, paired; the
share of the oracle's. Asked (issue 12): at least .40 of the oracle's with an interval above random, and above
copy-paste.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from environment import machine, versions
from loop_real import BUDGET, opened, prepared, verification
from loop_real_report import CONDITIONS, _arms, _missed, _with_conditions
from loop_real_sets import EXPERIMENTS, Experiment, prepare
from query_sets import CACHE, SHARED
from synth_gate import MOBILENET

from curator import pipeline
from curator.prove.comparisons import compare_arms, read_fates
from curator.prove.group_readings import compare_group
from curator.prove.run_compared import video_of
from curator.prove.trial_tables import newest_trials
from curator.prove.trials import SCORE_FLOOR
from curator.synthesize.settings import SynthesizeConfig
from store.store import Store

NAME, ARMS = "synth-gaps", ("nothing", "random", "copy-paste", "synthesis", "oracle")
FIGURES = ("fn_fixed", "fp_fixed", "broken", "new_false_per_image", "ap50")


def run(
    store: Store, seeds: tuple[int, ...], experiment: Experiment, name: str, recipes: tuple[str, ...]
) -> dict[str, Any]:
    """Synthesize, then every trial, seed by seed."""
    judge = MOBILENET.format(weights=SHARED / "data" / "weights")
    config = SynthesizeConfig(name=name, budget=BUDGET, attempts=6, judge=judge)
    made = pipeline.synthesize(store, replace(config, recipes=recipes) if recipes else config)
    print(json.dumps(made.summary), flush=True)
    for count in range(1, len(seeds) + 1):
        pipeline.verify(store, verification(experiment, name, ARMS, seeds[:count], samples=name))
    kept = ("accepted", "rejected", "unplaced", "plans", "per_group", "per_recipe", "reasons", "gate")
    return {key: made.summary[key] for key in kept}


def report(store: Store, name: str) -> dict[str, Any]:
    """Figures of arms, whole and by condition, and synthesis minus each other arm."""
    trials = newest_trials(store.trials(name))
    groups, against = video_of(store), tuple(arm for arm in ARMS if arm != "synthesis")
    fates = read_fates(trials, store.blob, groups=groups)
    compared = compare_arms(trials, store.blob, floor=SCORE_FLOOR, groups=groups, references=against)
    assert fates is not None
    assert compared is not None
    fates = _with_conditions(store, fates)
    parts = {
        condition: compare_group(fates, "condition", condition, floor=SCORE_FLOOR, references=against)
        for condition in CONDITIONS
    }
    found = {
        "seeds": {arm: list(seeds) for arm, seeds in fates.seeds.items()},
        "missed": int(_missed(fates.holdout.base).sum()),
        "arms": _arms(compared),
        "conditions": {name: _arms(part) for name, part in parts.items()},
        "differences": [
            {"objects": name, **d.plain()}
            for name, part in (("all", compared), *parts.items())
            for d in part.differences
            if d.arm == "synthesis" and d.figure in ("fn_fixed", "ap50")
        ],
    }
    for arm in ARMS:
        own = compared.arms[arm]
        text = "  ".join(
            f"{f} {own[f].mean:.3f} [{own[f].low:.3f}, {own[f].high:.3f}]" for f in FIGURES if f in own
        )
        withheld = parts["withheld"].arms[arm]["fn_fixed"]
        print(
            f"{arm:<11} {text}  FN fixed withheld {withheld.mean:.3f} "
            f"[{withheld.low:.3f}, {withheld.high:.3f}]"
        )
    for d in found["differences"]:
        low, high = (d[k] if d[k] is not None else float("nan") for k in ("low", "high"))
        print(
            f"  synthesis - {d['against']:<10} {d['objects']:<9} {d['figure']:<9} {d['mean']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}]"
        )
    for name, part in (("all", compared), ("withheld", parts["withheld"])):
        mine, best = part.arms["synthesis"]["fn_fixed"].mean, part.arms["oracle"]["fn_fixed"].mean
        found[f"share of the oracle, {name}"] = round(mine / best, 3) if best else None
        print(f"share of the oracle's FN fixed, {name}: {found[f'share of the oracle, {name}']}")
    return found


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=sorted(EXPERIMENTS), required=True)
    parser.add_argument("--split", type=int, default=3)
    parser.add_argument("--recipe", nargs="*", default=[])
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    top = arguments.cache.expanduser()
    source = top / f"loop-real-{arguments.split}" / arguments.set
    folder = top / f"synth-gaps-{arguments.split}" / arguments.set
    if not folder.is_dir():
        if not (source / "workspace").is_dir():
            prepare(arguments.set, arguments.split, source)
            with opened(source) as store:
                prepared(store, EXPERIMENTS[arguments.set], source)
        shutil.copytree(source / "workspace", folder / "workspace")
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    with opened(folder) as store:
        name = "-".join((NAME, *arguments.recipe))
        made = run(store, seeds, EXPERIMENTS[arguments.set], name, tuple(arguments.recipe))
        found = {"set": arguments.set, "split": arguments.split, "samples": made, **report(store, name)}
    if arguments.out:
        text = {**found, "machine": machine(), "versions": versions()}
        arguments.out.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
