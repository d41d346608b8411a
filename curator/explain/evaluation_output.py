"""What `evaluate-explanations` reports: the table's rows, the JSON file and the plot.

In: judged targets. Out: a summary in plain JSON (nan as null), written with the plot beside it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curator.bootstrap import bootstrap_interval, paired_difference
from curator.errors import InputError
from curator.explain.measures.plot import PlotPoint, Series, cost_plot
from curator.explain.settings import EvaluateConfig
from curator.tensors import resolve_device
from store.records import ModelRecord

if TYPE_CHECKING:
    from curator.explain.run_evaluate import Judged

MEASURES = (
    "passes",
    "seconds",
    "r",
    "r_corrected",
    "relative_error",
    "deletion",
    "insertion",
    "pointing",
    "energy",
)


def summarise(config: EvaluateConfig, model: ModelRecord, judged: Sequence[Judged]) -> dict[str, Any]:
    """Rows per method and number of samples, cheapest first, and every target's own numbers."""
    kept = [j for j in judged if j.evidence]
    images = [j.image.id for j in kept]
    keys = list(dict.fromkeys(key for j in kept for key in j.measures))
    tables = {
        key: {
            name: np.array([j.measures.get(key, {}).get(name, math.nan) for j in kept]) for name in MEASURES
        }
        for key in keys
    }
    rows: list[dict[str, Any]] = []
    for key, table in tables.items():
        interval = bootstrap_interval(table["r"], clusters=images, seed=config.seed)
        rows.append(
            {
                "method": f"{key[0]}@{key[1]}",
                "targets": int((~np.isnan(table["deletion"])).sum()),
                **{name: _mean(values) for name, values in table.items()},
                "r_low": _number(interval.low),
                "r_high": _number(interval.high),
            }
        )
    rows.sort(key=lambda row: (row["passes"], row["method"]))
    best = max(
        (key for key in keys if _mean(tables[key]["r"]) is not None),
        key=lambda key: float(np.nanmean(tables[key]["r"])),
        default=None,
    )
    if best is not None:
        for row in rows:
            key = next(k for k in keys if f"{k[0]}@{k[1]}" == row["method"])
            behind = paired_difference(tables[best]["r"], tables[key]["r"], clusters=images, seed=config.seed)
            row["behind_best"] = behind.plain()
    known = [j.reliability for j in kept if not math.isnan(j.reliability)]
    return {
        "detector": model.spec,
        "fingerprint": model.fingerprint,
        "device": str(resolve_device(config.device)),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "config": _plain(config.everything()),
        "images": len({j.image.id for j in judged}),
        "targets": dict(sorted(Counter(j.outcome.kind for j in judged).items())),
        "without_evidence": len(judged) - len(kept),
        "segments": _mean(np.array([len(j.phi) for j in kept], dtype=np.float64)),
        "reference_pairs": config.reference_pairs,
        "reliability": _mean(np.array(known)),
        "reliability_least": min(known, default=None),
        "rows": rows,
        "conclusion": conclusion(rows),
        "each": [_target(j) for j in judged],
        "out": str(config.out),
        "plot": str(config.plot),
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: the method with the highest mean r for each cost, from the cheapest on."""
    known = [row for row in rows if row["r"] is not None]
    if not known:
        return "No method could be compared: no target carried evidence."
    front: list[Mapping[str, Any]] = []
    for row in sorted(known, key=lambda row: (row["passes"], -row["r"])):
        if not front or row["r"] > front[-1]["r"]:
            front.append(row)
    steps = ", then ".join(
        f"{row['method']} from {row['passes']:.0f} passes (r {row['r']:.2f})" for row in front
    )
    close = [
        row["method"]
        for row in known
        if row is not front[-1] and (row["behind_best"]["low"] is None or row["behind_best"]["low"] <= 0)
    ]
    told = f"; these targets do not tell it from {', '.join(close)}" if close else ""
    return f"Most faithful at its cost: {steps}{told}."


def check_outputs(config: EvaluateConfig) -> None:
    """Make the folders of the outputs before the long work begins.

    Raises:
        InputError: a folder that cannot be made or written to, or an output that is one.
    """
    for option, path in (("--out", config.out), ("--plot", config.plot)):
        with _written(option, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        if path.is_dir():
            raise InputError(f"{option} {path}: expected a file, got a folder")


def write_outputs(config: EvaluateConfig, summary: Mapping[str, Any]) -> None:
    """Write the JSON file and the plot, each beside itself first and then renamed.

    Raises:
        InputError: a file that cannot be written.
    """
    by_method: dict[str, list[PlotPoint]] = {}
    for row in summary["rows"]:
        point = PlotPoint(*(_or_nan(row[name]) for name in ("passes", "r", "r_low", "r_high")))
        by_method.setdefault(row["method"].rpartition("@")[0], []).append(point)
    picture = cost_plot(
        [Series(name, tuple(points)) for name, points in by_method.items()],
        title="Fidelity against cost",
        x_label="cost per target: forward passes, a backward counting one",
        y_label="Pearson r to permutation Shapley (mean, 95% interval)",
    )
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    for option, path, content in (("--out", config.out, text), ("--plot", config.plot, picture)):
        temporary = path.with_name(path.name + ".part")
        with _written(option, path):
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, path)


@contextmanager
def _written(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{option} {path}: expected a writable file ({error.strerror})") from error


def _target(j: Judged) -> dict[str, Any]:
    return {
        "image": j.image.uri,
        "sha256": j.image.sha256,
        "outcome": j.outcome.key,
        "kind": j.outcome.kind,
        "cause": j.outcome.cause,
        "class": j.outcome.category,
        "box": [round(float(v), 2) for v in j.outcome.box],
        "evidence": j.evidence,
        "reliability": _number(j.reliability),
        "reference": [float(f"{v:.6g}") for v in j.phi],
        "measures": {
            f"{name}@{samples}": {measure: _number(value) for measure, value in numbers.items()}
            for (name, samples), numbers in j.measures.items()
        },
    }


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in table.items()}
