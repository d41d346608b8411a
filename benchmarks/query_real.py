"""Does a query find the images that hold the asked failures, on photographs?

    python benchmarks/query_real.py [--set NAME ...] [--detector NAME ...] [--method NAME ...] [--judge NAME]
                                    [--split N ...] [--unread] [--cache FOLDER] [--out FILE.json]

Sets: vehicles_openimages, bccd, voc100 with coco_val128, deeppcb_1bit; detectors: YOLOX-nano, NanoDet, and
for bccd and deeppcb an SSD trained here (`query_sets.py`). Splits, selectors and episodes are those of the
rule in `query_splits.py`, which was committed before any figure was looked at; its unread split is run once,
at the end, and reported apart. What the detectors see is computed once and kept in the cache
(`query_looks.py`); methods are functions by name (`query_episodes.METHODS`); figures and claims:
`query_figures.py`.

`oracle` chooses by the hidden truth: the ceiling. Intervals are a bootstrap over selectors (set, detector,
kind, class, cause); selectors overlap (a cause is a part of its class), sets are four: read them with that in
mind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from environment import machine, versions
from query_episodes import METHODS, SHRUNK, Answer, episodes
from query_figures import calibration, claims, difference, parts, row, selectors, table
from query_looks import Packing, cached
from query_sets import CACHE, PAIRS, SETS
from query_splits import DEVELOPMENT, UNREAD

EVERY = METHODS | SHRUNK
SHOWN = ("hit@40", "fpi@40", "hit@10%", "fpi@10%", "ap")


def measure(arguments: argparse.Namespace, packing: Packing) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per episode, and facts per set and detector."""
    rows, facts = [], {}
    for dataset, detector in PAIRS:
        if dataset not in arguments.set or detector not in arguments.detector:
            continue
        seen = cached(dataset, detector, arguments.cache.expanduser())
        facts[f"{dataset} {detector}"] = seen.facts | {"images": len(seen.sha256)}
        for split in arguments.split:
            start, count = time.perf_counter(), 0
            for episode, truth in episodes(
                seen,
                dataset=dataset,
                detector=detector,
                split=split,
                packing=packing,
                unread=arguments.unread,
            ):
                answers = {name: EVERY[name](episode) for name in arguments.method}
                answers["oracle"] = Answer(scores=truth.astype(float), expected=truth.astype(float))
                rows.append(row(episode, truth, answers))
                count += 1
            took = time.perf_counter() - start
            print(f"{dataset} {detector} split {split}: {count} episodes, {took:.0f} s", file=sys.stderr)
    return rows, facts


def report(rows: list[dict[str, Any]], methods: list[str], judged: str) -> dict[str, Any]:
    """Tables and claims."""
    divided = parts(rows)
    shown = {name: table(own, methods) for name, own in divided.items()}
    for name, own in shown.items():
        print(f"\n{name}: {own['selectors']} selectors, {own['episodes']} episodes")
        for method in methods:
            cells = [f"{_cell(own['methods'][method][figure])}" for figure in SHOWN]
            print(f"  {method:24s}", "  ".join(cells))
    print("\n ", "figures:", ", ".join(SHOWN))
    calibrated = {m: told for m in methods if (told := calibration(rows, m)) is not None}
    for method in methods:
        count = sum(r["methods"][method]["fell back"] for r in rows)
        if count:
            print(f"{method} fell back in {count:.0f} of {len(rows)} episodes")
    for method, told in calibrated.items():
        print(f"expected over true failures, {method}: {told}")
    differences = {
        f"{judged} - {m}": {
            name: difference(rows, judged, m, name).plain() for name in ("hit@40", "fpi@40", "ap")
        }
        for m in methods
        if judged in methods and m != judged
    }
    made = claims(rows, judged)
    for claim in made:
        mark = "ok  " if claim["ok"] else "MISS"
        print(f"{mark} {claim['claim']}: {claim['value']:.3f} (wanted {claim['target']:g})")
    return {
        "claims": made,
        "differences": differences,
        "calibration": calibrated,
        "tables": shown,
        "selectors": selectors(rows, methods),
    }


def _cell(values: list[float | None]) -> str:
    return "-" if values[0] is None else f"{values[0]:.3f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", choices=sorted(SETS), default=sorted(SETS))
    detectors = sorted({detector for _, detector in PAIRS})
    parser.add_argument("--detector", nargs="+", choices=detectors, default=detectors)
    parser.add_argument("--method", nargs="+", choices=sorted(EVERY), default=list(METHODS))
    parser.add_argument("--judge", default="predictor", help="the method that the claims are about")
    parser.add_argument("--split", nargs="+", type=int, default=list(DEVELOPMENT))
    parser.add_argument("--unread", action="store_true", help="the unread split instead; once, at the end")
    parser.add_argument("--candidates", type=int, default=Packing.candidates, help="kept per image")
    parser.add_argument("--windows", type=int, default=Packing.windows, help="kept per image")
    parser.add_argument("--components", type=int, default=Packing.components, help="kept per view")
    parser.add_argument("--views", nargs="+", default=list(Packing.views))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.unread:
        arguments.split = [UNREAD[-1]]
    packing = Packing(
        candidates=arguments.candidates,
        windows=arguments.windows,
        components=arguments.components,
        views=tuple(arguments.views),
    )
    start = time.perf_counter()
    rows, facts = measure(arguments, packing)
    found = report(rows, [*arguments.method, "oracle"], arguments.judge)
    if arguments.out:
        plain = {
            "splits": arguments.split,
            "judged": arguments.judge,
            **found,
            "facts": facts,
            "packing": {
                "candidates": packing.candidates,
                "windows": packing.windows,
                "components": packing.components,
                "views": packing.views,
            },
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "versions": versions("scikit-learn"),
        }
        arguments.out.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
