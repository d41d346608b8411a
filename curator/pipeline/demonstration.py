"""`demo`: the whole loop on the built-in example, from rendering to the report, in a few minutes.

In: a folder and a seed. Out: the folder with `data/`, `workspace/` and `report.html`, and the figures of one
training seed: an illustration, not the claim (that is benchmarks/loop_gaps.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curator.config import ReportConfig, StageConfig
from curator.data.settings import AddConfig, ExportConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.gaps import CONDITION_TAG
from curator.explain.settings import ExplainConfig
from curator.jobs.stage import StageResult
from curator.pipeline.loop import Step, run_steps
from curator.prove.settings import VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from curator.synthesize.settings import SynthesizeConfig
from store.records import ROLES, Role
from store.store import Store

SIZES: dict[Role, int] = {"train": 300, "mine": 160, "pool": 560, "holdout": 200}
BUDGET = 50


def demo(
    out: Path, *, seed: int = 0, device: str = "auto", announce: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Run the demonstration; a second call with the same folder continues or only reports.

    Args:
        out: folder to work in. seed: of the renderer and of every stage.
        announce: receives a line per finished step.
    Returns:
        plain values: "steps" (stage, seconds, counts), "columns" and "rows" of the table, "report" (path),
        "lines" (the same for people).
    """
    from curator.prove.run_verify import trial_table

    start = time.monotonic()
    data, workspace, page = out / "data", out / "workspace", out / "report.html"
    announce(f"rendering {sum(SIZES.values())} scenes of flowers ...")
    write_dataset(data, sizes=SIZES, seed=seed)
    timings: list[dict[str, Any]] = []

    def record(step: Step, result: StageResult, seconds: float) -> None:
        timings.append(
            {
                "stage": step.stage,
                "seconds": round(seconds, 1),
                "done": result.done,
                "skipped": result.skipped,
                "failed": result.failed,
            }
        )
        announce(
            f"{step.stage:10s} {seconds:6.1f} s  {result.done} done, {result.skipped} already stored"
            f"   [{time.monotonic() - start:.0f} s so far]"
        )

    exists = (workspace / "workspace.json").exists()
    with Store.open(workspace) if exists else Store.create(workspace) as store:
        run_steps(store, tuple(_steps(data, out, page, seed, device)), announce=record)
        columns, rows = trial_table(store.trials("demo"))
    lines = [
        *_aligned(columns, rows),
        "One training seed on one rendering: an illustration. The measured claim: benchmarks/loop_gaps.py",
        f"report: {page}",
        f"augmented training set: {out / 'augmented'}",
    ]
    return {
        "steps": timings,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "report": str(page),
        "seconds": round(time.monotonic() - start, 1),
        "lines": lines,
    }


def _steps(data: Path, out: Path, page: Path, seed: int, device: str) -> list[Step]:
    common: dict[str, Any] = {"seed": seed, "device": device}
    detector = "builtin:"
    configs: list[tuple[str, StageConfig]] = [
        *(("add", AddConfig(format="coco", path=data / role, role=role, **common)) for role in ROLES),
        ("detect", DetectConfig(detector=detector, **common)),
        ("diagnose", DiagnoseConfig(**common)),
        ("explain", ExplainConfig(samples=8, segments=100, successes=4, **common)),
        ("index", IndexConfig(**common)),
        ("query", QueryConfig(budget=BUDGET, **common)),
        ("synthesize", SynthesizeConfig(selection="query", budget=BUDGET, gate_images=80, **common)),
        (
            "export",
            ExportConfig(
                format="coco", out=out / "augmented", selections=("query",), samples=("synthesis",), **common
            ),
        ),
        (
            "verify",
            VerifyConfig(
                name="demo",
                arms=("nothing", "random", "query", "synthesis"),
                budget=BUDGET,
                seeds=(seed,),
                steps=60,
                condition_tag=CONDITION_TAG,
                **common,
            ),
        ),
        ("report", ReportConfig(out=page, **common)),
    ]
    return [Step(stage, config) for stage, config in configs]


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
