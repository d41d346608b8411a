"""The four papers' own tables and figures, in kind, on what data is at hand.

    python benchmarks/explain_papers.py [--quick] [--seed N] [--out FILE.json] [--shared DIR] [--work DIR]
                                        [--only e2x,gmethods,vebi,dve] [--pictures DIR]

e2x        E2X (Gudovskiy et al., 2018): Fig. 2, E[rho] against LIME and PDA references beside seconds; the
           claim of section 4.1 about what causes misses and false positives.
gmethods   "G-methods" (Agarwal & Nguyen, ACCV 2020): Tables 1-4 and S1, sections 5.1 and 5.2.
vebi       VEBI (Oramas et al., ICLR 2019): Fig. 4 (filter ablation), 5 (average images), 8 and 9.
dve        DVE (Babiker & Goebel, NIPS-W 2017): Figs. 4, 6 (blur sweep) and 7 (layer by layer).

All of it runs on the built-in SSD and rendered flower scenes of 192 px: two of the papers need an inpainter
or part masks of the very domain, which only the built-in example has here. The papers used VOC on SSD300,
ImageNet and Places365, an8Flower and MNIST, COCO on VGG-16. So a claim that fails here is no refutation, and
one that holds no replication; every table's caption states what departs. "acceptance" lists the papers'
claims with what was measured; nothing is tuned to them. Time is counted in seconds of this machine: nothing
else should run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environment import machine, versions
from papers_dve import dve
from papers_e2x import e2x
from papers_gmethods import gmethods
from papers_scenes import Part, Setting
from papers_vebi import vebi

PARTS = {"e2x": e2x, "gmethods": gmethods, "vebi": vebi, "dve": dve}


def printed(name: str, part: Part) -> None:
    """Print a part's tables and claims."""
    for title, table in part.tables.items():
        print(f"\n{name}: {title}\n  {table.caption}")
        for row in table.rows:
            print("  " + "  ".join(f"{key} {_text(value)}" for key, value in row.items()))
    for claim in part.acceptance:
        print(
            f"{'holds' if claim['ok'] else 'FAILS'}  {claim['claim']}: {claim['value']} ({claim['target']})",
            flush=True,
        )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else str(value)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer images and samples")
    parser.add_argument("--seed", type=int, default=515007, help="of the rendered scenes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shared", type=Path, help="taken for likeness with its siblings; nothing is read")
    parser.add_argument("--work", type=Path, help="folder for workspaces; default: a temporary one")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--pictures", type=Path, help="folder for picture sheets (PNG)")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := sorted(set(wanted) - set(PARTS)):
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    start = time.monotonic()
    work = options.work or Path(tempfile.mkdtemp(prefix="explain-papers-"))
    setting = Setting(work=work, seed=options.seed, quick=options.quick, pictures=options.pictures)
    parts: dict[str, Part] = {}
    seconds: dict[str, float] = {}
    for name in (name for name in PARTS if name in wanted):
        began = time.monotonic()
        parts[name] = PARTS[name](setting)
        seconds[name] = round(time.monotonic() - began, 1)
        printed(name, parts[name])
        print(f"{name}: {seconds[name]:.0f} s", file=sys.stderr, flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps(
                {
                    "benchmark": "explain_papers",
                    "quick": options.quick,
                    "seed": options.seed,
                    "machine": machine(),
                    "versions": versions("diffusers", "scikit-image", "spgl1"),
                    "seconds": round(time.monotonic() - start, 1),
                    "seconds_per_part": seconds,
                    "tables": {
                        f"{name}: {title}": {"caption": table.caption, "rows": table.rows}
                        for name, part in parts.items()
                        for title, table in part.tables.items()
                    },
                    "acceptance": [
                        {"paper": name, **claim} for name, part in parts.items() for claim in part.acceptance
                    ],
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
