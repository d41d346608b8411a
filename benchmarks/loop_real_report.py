"""What `loop_real.py` has stored, as tables and claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from loop_real_sets import EXPERIMENTS, TAG

from curator.data.additions import refused_images
from curator.prove.comparisons import Comparison, Fates, compare_arms, read_fates
from curator.prove.group_readings import compare_group
from curator.prove.readings import Base
from curator.prove.run_compared import video_of
from curator.prove.run_verify import read_holdout
from curator.prove.statistics import holm
from curator.prove.trial_tables import newest_trials
from curator.prove.trials import SCORE_FLOOR
from store.records import Trial
from store.store import Store

RIVALS = ("selection:class-uncertainty", "selection:image-similarity", "selection:crop-similarity")
CONDITIONS = ("withheld", "small", "other")
MENDS = ("fn_fixed", "fp_fixed", "ap50")  # figures in which a win over random counts


def report(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Print every table and the claims.

    Args:
        folders: set -> where its workspace lies.
    """
    sets, wins, losses = {}, [], []
    for name, folder in folders.items():
        if not (folder / "workspace" / "workspace.json").is_file():
            continue
        with Store.open(folder / "workspace") as store:
            sets[name] = found = of_set(store)
        found["withheld"] = EXPERIMENTS[name].withheld
        if not found["verifications"]:
            del sets[name]
            continue
        print_set(name, found)
        for table in found["verifications"].values():
            wins += [(name, d["arm"], d["figure"]) for d in table["differences"] if won(d)]
            losses += [(name, d["arm"], d["figure"]) for d in table["differences"] if lost(d)]
    claims = [
        {
            "claim": "sets where the query beats random in a figure at a budget (of three)",
            "value": len({name for name, *_ in wins}),
            "where": [" ".join(w) for w in wins],
            "ok": len({name for name, *_ in wins}) >= 2,
        },
        {
            "claim": "figures in which the query is significantly worse than a plain rival",
            "value": len(losses),
            "where": [" ".join(lost_to) for lost_to in losses],
            "ok": not losses,
        },
    ]
    for claim in claims:
        print("ok  " if claim["ok"] else "MISS", claim["claim"], claim["value"], *claim["where"], sep="  ")
    return {"claims": claims, "sets": sets}


def of_set(store: Store) -> dict[str, Any]:
    """Every verification of a set."""
    found: dict[str, Any] = {"verifications": {}}
    for name in dict.fromkeys(t.verification for t in store.trials()):
        trials = newest_trials(store.trials(name))
        base = trials[0].metrics["base"]
        found["base"] = {k: base[k] for k in ("images", "objects", "missed", "false", "ap50", "ap", "ar")}
        found["base"]["smallest_effect"] = base["smallest_effect"]
        found["verifications"][name] = of_verification(store, trials)
    return found


def of_verification(store: Store, trials: list[Trial]) -> dict[str, Any]:
    """Figures, differences and conditions."""
    groups = video_of(store)
    references = ("random", "query")
    compared = compare_arms(trials, store.blob, floor=SCORE_FLOOR, groups=groups, references=references)
    fates = read_fates(trials, store.blob, groups=groups)
    assert compared is not None
    assert fates is not None
    fates = _with_conditions(store, fates)
    missed = Counter(fates.holdout.base.objects.condition[_missed(fates.holdout.base)].tolist())
    return {
        "seeds": {arm: list(seeds) for arm, seeds in fates.seeds.items()},
        "added": {
            arm: {
                "images": _mean([t.metrics["n_added"] for t in trials if t.arm == arm]),
                "withheld": _mean([_withheld(store, t) for t in trials if t.arm == arm]),
            }
            for arm in fates.seeds
        },
        "seconds": _mean([t.metrics["train_seconds"] + t.metrics["predict_seconds"] for t in trials]),
        "arms": _arms(compared),
        "ap": {arm: _mean([t.metrics["ap"] for t in trials if t.arm == arm]) for arm in fates.seeds},
        "differences": _told(compared),
        "missed": dict(missed),
        "conditions": {
            condition: _arms(compare_group(fates, "condition", condition, floor=SCORE_FLOOR))
            for condition in CONDITIONS
        },
        "condition_differences": [
            {"condition": condition, **d}
            for condition in CONDITIONS
            for d in _told(
                compare_group(fates, "condition", condition, floor=SCORE_FLOOR, references=references)
            )
            if d["figure"] == "fn_fixed"
        ],
    }


def _with_conditions(store: Store, fates: Fates) -> Fates:
    """The conditions of holdout objects, which the trials were not told: the oracle would go by them."""
    mined = refused_images(store.leaks(store.image_ids(role="holdout"), roles=("mine",)))
    holdout = read_holdout(store, mined, TAG)
    assert [h.image.sha256 for h in holdout] == list(fates.holdout.sha256)
    named = np.array([name for h in holdout for name in h.conditions])

    def told(base: Base) -> Base:
        return replace(base, objects=replace(base.objects, condition=named))

    return replace(
        fates,
        holdout=replace(fates.holdout, base=told(fates.holdout.base)),
        bases={arm: [told(base) for base in of_arm] for arm, of_arm in fates.bases.items()},
    )


def _withheld(store: Store, trial: Trial) -> int:
    """How many of the added images hold the withheld class."""
    if trial.arm == "nothing":
        return 0
    name = trial.arm.partition("@")[0].removeprefix("selection:")
    if name in ("random", "oracle"):
        name = f"{trial.verification}-{trial.arm}-{trial.seed}"
    ids = store.selection(name).image_ids[: trial.metrics["n_added"]]
    labels = store.annotations(ids, reader="oracle")
    return sum(any(a.attributes.get(TAG) == "withheld" for a in s.annotations) for s in labels.values())


def _missed(base: Any) -> Any:
    return base.objects.counted & (base.matched.found_at < base.threshold)


def _told(compared: Comparison) -> list[dict[str, Any]]:
    """The query minus random, and each plain rival minus the query, Holm over the rivals."""
    ours = [
        d.plain() | {"better": d.better}
        for d in compared.differences
        if d.arm.partition("@")[0] == "query" and d.against.partition("@")[0] == "random"
    ]
    theirs = [d for d in compared.differences if d.arm in RIVALS and d.against == "query"]
    for figure in dict.fromkeys(d.figure for d in theirs):
        own = [d for d in theirs if d.figure == figure]
        adjusted = holm({d.arm: d.value.p for d in own})
        for d in own:
            again = replace(d, adjusted=adjusted[d.arm])
            ours.append(again.plain() | {"better": again.better})
    return ours


def _arms(compared: Comparison) -> dict[str, Any]:
    return {arm: {f: e.plain() for f, e in figures.items()} for arm, figures in compared.arms.items()}


def _mean(values: list[Any]) -> float:
    known = [float(v) for v in values if v is not None]
    return sum(known) / max(1, len(known))


def won(d: Mapping[str, Any]) -> bool:
    """Does the query beat random, with an interval that excludes zero?"""
    outside = d["low"] is not None and (d["low"] > 0 or d["high"] < 0)
    ours = d["arm"].startswith("query") and d["figure"] in MENDS
    return bool(ours and d["better"] and outside and d["seeds"] >= 2)


def lost(d: Mapping[str, Any]) -> bool:
    """Is a plain rival really better than the query (Holm over the rivals)?"""
    return bool(d["against"] == "query" and d["better"] and d["real"])


def print_set(name: str, found: Mapping[str, Any]) -> None:
    """A set's tables."""
    base = found["base"]
    print(
        f"\n{name}: holdout {base['images']} images, {base['objects']} objects, {base['missed']} missed; "
        f"AP50 {base['ap50']:.3f}; can show {base['smallest_effect']:.2f}"
    )
    for verification, table in found["verifications"].items():
        print(f" {verification} ({table['seconds']:.0f} s a trial)")
        for arm, figures in table["arms"].items():
            cells = "  ".join(f"{f} {_cell(e)}" for f, e in figures.items())
            own = "  ".join(
                f"{c} {_cell(of[arm]['fn_fixed'])}" for c, of in table["conditions"].items() if arm in of
            )
            added = table["added"][arm]
            print(
                f"  {arm:28s} {len(table['seeds'][arm])} seeds, withheld in {added['withheld']:.1f} of "
                f"{added['images']:.0f}: {cells}  AP {table['ap'][arm]:.3f} | FN fixed {own}"
            )
        for d in [*table["differences"], *table["condition_differences"]]:
            mark = "*" if d["real"] else " "
            where = d.get("condition", "")
            print(f"   {d['arm']} - {d['against']} {d['figure']} {where}: {_cell(d, '+')}{mark}")


def _cell(e: Mapping[str, Any], sign: str = "") -> str:
    if e["mean"] is None:
        return "-"
    bounds = "" if e["low"] is None else f" [{e['low']:{sign}.3f}, {e['high']:{sign}.3f}]"
    return f"{e['mean']:{sign}.3f}{bounds}"
