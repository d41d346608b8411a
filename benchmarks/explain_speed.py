"""How near is E2X to the cost of its own forward and backward passes?

    python benchmarks/explain_speed.py [--quick] [--seed N] [--detector NAME ...]
                                       [--out FILE.json] [--shared DIR]

For SSD300-VGG16 (fresh weights), the built-in SSD and YOLOX-nano: E2X's wall time over the raw loop of the
same forward and backward passes at the same batch size and precision; eight failures of an image together
against eight alone; bf16 against fp32. All is measured in alternation in one process; medians. Run it alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from environment import machine, versions
from explain_cases import BATCH, SEGMENTS, shared_folder, yolox

from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.example.dataset import scenes
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.e2x import E2X
from curator.explain.segments import slic_segments
from curator.explain.target import TargetScores
from curator.precision import autocast, fast_bf16
from curator.tensors import image_tensor

SAMPLES = 16
TOGETHER = 8
FAST_BF16 = fast_bf16(torch.device("cpu"))
Precision = Literal["fp32", "bf16"]
SSD300 = "torchvision:ssd300_vgg16?weights=random&classes=" + ",".join(f"c{i}" for i in range(20))


class Setting:
    """A detector with one image, ready to be explained."""

    def __init__(self, name: str, spec: str, seed: int) -> None:
        self.name = name
        self.detector: Detector = load_detector(spec, "cpu")
        scene = next(iter(scenes("mine", 1, seed=seed, size=416 if name == "yolox" else 192)))
        stored = image_tensor(scene.pixels)
        _, self.pin = self.detector.predict([stored], score_threshold=0.5)[0]
        self.image = self.detector.prepare(stored, self.pin)
        self.segments = slic_segments(self.image, self.pin, SEGMENTS)
        with torch.no_grad():
            scores = self.detector.candidates(self.image[None], self.pin).scores[0]
        best, labels = scores.max(1)
        self.targets = [Target(candidate=int(i), label=int(labels[i])) for i in best.topk(TOGETHER).indices]

    def explain(self, count: int, precision: Precision) -> np.ndarray[Any, Any]:
        """E2X of the first `count` targets together: phi (T, M)."""
        method = E2X(AttributionOptions(samples=SAMPLES, batch_size=BATCH, precision=precision))
        maps = method.explain(
            self.detector,
            self.image,
            self.pin,
            self.segments,
            MeanFill(),
            self.targets[:count],
            seed=0,
            image_key="speed",
        )
        return np.stack([m.phi for m in maps])  # type: ignore[union-attr]

    def raw(self, count: int, precision: Precision, *, backward: bool = True) -> None:
        """The same passes and nothing else: K images and the two ends forward, K backward per target."""
        scores = TargetScores(self.detector, self.pin, self.targets[:count])
        for start in range(0, SAMPLES, BATCH):
            u = self.image.expand(min(BATCH, SAMPLES - start), -1, -1, -1)
            u = u.contiguous(memory_format=torch.channels_last).requires_grad_(backward)
            with autocast(precision, u.device), torch.set_grad_enabled(backward):
                values = scores(u).sum(0)
            if backward:
                for t in range(count):
                    torch.autograd.grad(values[t], u, retain_graph=t + 1 < count)
        with torch.no_grad(), autocast(precision, self.image.device):
            ends = self.image.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            scores(ends)


def alternate(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, run in turns after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def measure(setting: Setting, repeats: int) -> dict[str, Any]:
    """One row: seconds and ratios of a detector."""
    calls: dict[str, Callable[[], object]] = {
        "e2x": lambda: setting.explain(1, "fp32"),
        "raw": lambda: setting.raw(1, "fp32"),
        "forward": lambda: setting.raw(1, "fp32", backward=False),
        "together": lambda: setting.explain(TOGETHER, "fp32"),
    }
    if FAST_BF16:  # elsewhere it is emulated, and slow
        calls["bf16"] = lambda: setting.explain(1, "bf16")
    seconds = alternate(calls, repeats)
    forward = seconds["forward"]
    backward = seconds["raw"] - forward
    ideal = (forward + TOGETHER * backward) / (TOGETHER * (forward + backward))
    shared = seconds["together"] / (TOGETHER * seconds["e2x"])
    found = {
        "detector": setting.name,
        "segments": int(setting.segments.max()) + 1,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "ratio_to_raw": seconds["e2x"] / seconds["raw"],
        "shared_ratio": shared,
        "ideal_ratio": ideal,
        "shared_over_ideal": shared / ideal,
    }
    if FAST_BF16:
        a, b = setting.explain(1, "fp32").ravel(), setting.explain(1, "bf16").ravel()
        found["bf16_speedup"] = seconds["e2x"] / seconds["bf16"]
        found["bf16_r"] = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else None
    return found


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Acceptance line 3 of the issue, from this run."""
    found: list[dict[str, Any]] = []

    def claim(text: str, target: str, value: float, ok: bool) -> None:
        found.append({"claim": text, "target": target, "value": round(value, 3), "ok": bool(ok)})

    for row in rows:
        name, ratio, over = row["detector"], row["ratio_to_raw"], row["shared_over_ideal"]
        claim(f"{name}: E2X over the raw loop", "<= 1.15", ratio, ratio <= 1.15)
        claim(f"{name}: {TOGETHER} failures together, over the ideal ratio", "<= 1.1", over, over <= 1.1)
    for row in rows:
        if not FAST_BF16 or row["detector"] != "ssd300":
            continue
        claim("ssd300: bf16's speed-up on AMX", ">= 2", row["bf16_speedup"], row["bf16_speedup"] >= 2)
        claim("ssd300: r of bf16 with fp32", ">= 0.99", row["bf16_r"] or 0.0, (row["bf16_r"] or 0) >= 0.99)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 repeats instead of 7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", nargs="+", choices=("ssd300", "builtin", "yolox"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shared", type=Path)
    options = parser.parse_args()
    specs = {"ssd300": SSD300, "builtin": "builtin:", "yolox": yolox(shared_folder(options.shared))}
    rows = []
    for name in options.detector or specs:
        spec = specs[name]
        usual = 3 if options.quick else 7
        rows.append(
            measure(Setting(name, spec, options.seed), 1 if options.quick and name == "ssd300" else usual)
        )
        print(f"{name} measured", file=sys.stderr, flush=True)
    for row in rows:
        print(
            f"{row['detector']:8s} E2X {row['seconds']['e2x']:.3f} s, over raw {row['ratio_to_raw']:.3f}; "
            f"{TOGETHER} together {row['shared_ratio']:.3f} of alone, ideal {row['ideal_ratio']:.3f} "
            f"(over ideal {row['shared_over_ideal']:.3f})"
            + (f"; bf16 {row['bf16_speedup']:.2f} times as fast, r {row['bf16_r']}" if FAST_BF16 else "")
        )
    if not FAST_BF16:
        print("no AMX here: the claims on bf16 are not tested")
    acceptance = claims(rows)
    for claim in acceptance:
        print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']} ({claim['target']})")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps(
                {
                    "benchmark": "explain_speed",
                    "quick": options.quick,
                    "seed": options.seed,
                    "machine": machine(),
                    "amx": FAST_BF16,
                    "versions": versions(),
                    "samples": SAMPLES,
                    "rows": rows,
                    "acceptance": acceptance,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
