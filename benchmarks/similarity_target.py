"""A target followed by its box against one followed by its candidate, where both exist.

    python benchmarks/similarity_target.py [--images N] [--samples N] [--out FILE.json]

Where queries are drawn from the input no candidate's index survives a masked input, so that a target is
followed by s(z) = max_q IoU(box_q(z), B) p_q(z)[c] (curator/explain/target.py). Here the same detections are
explained both ways by detectors whose candidates are fixed: YOLOX-nano and NanoDet (pretrained on COCO), on
photographs of coco_val128, and a tiny DETR with random weights, as no trained one is at hand. Printed:
Pearson's r of the maps of E2X and of E2X-kernel (segments), medians and the lower quartile; E2X with one seed
against another, which bounds what could be reached; and D-RISE, which follows boxes too, against both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions

from curator.detect.load import load_detector
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.measures.fidelity import pearson
from curator.explain.segments import slic_segments
from curator.registry import ATTRIBUTIONS
from curator.tensors import image_tensor
from store.images import read_pixels

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "detect"))
WANTED = 0.9
LEAST_SCORE = 0.4
PER_IMAGE = 2


def phi(name: str, detector: Any, u: Any, pin: Any, labels: Any, target: Target, **options: Any) -> Any:
    """A map by segments (M,)."""
    seed = options.pop("seed", 0)
    method = ATTRIBUTIONS.load(name)(AttributionOptions(**options))
    found = method.explain(detector, u, pin, labels, MeanFill(), [target], seed=seed, image_key="s")[0]
    if hasattr(found, "phi"):
        return np.asarray(found.phi, np.float64)
    return by_segments(found, labels, u.shape[-2:])


def by_segments(found: Any, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean of a grid's map over each segment."""
    grid = torch.from_numpy(np.asarray(found.values, np.float32))[None, None]
    whole = torch.nn.functional.interpolate(grid, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    count = int(labels.max()) + 1
    mass = np.bincount(labels.ravel(), weights=whole.ravel(), minlength=count)
    return np.asarray(mass / np.maximum(np.bincount(labels.ravel(), minlength=count), 1))


def compare(detector: Any, images: list[Path], samples: int, drise: bool) -> dict[str, list[float]]:
    """Correlations of every target."""
    rows: dict[str, list[float]] = defaultdict(list)
    for path in images:
        stored = image_tensor(read_pixels(str(path)))
        ((found, pin),) = detector.predict([stored], score_threshold=LEAST_SCORE)
        u = detector.prepare(stored, pin)
        labels = slic_segments(u, pin, 120)
        for at in range(min(PER_IMAGE, len(found))):
            box = tuple(float(v) for v in found.boxes[at])
            maps: dict[str, Any] = {}
            for fixed in (True, False):
                detector.fixed_candidates = fixed
                way = "candidate" if fixed else "box"
                target = Target(
                    candidate=int(found.candidates[at]),
                    label=int(found.labels[at]),
                    kind="log_odds",
                    box=box,  # type: ignore[arg-type]
                )
                maps["e2x", way] = phi("e2x", detector, u, pin, labels, target, samples=samples)
                maps["e2x_kernel", way] = phi("e2x_kernel", detector, u, pin, labels, target, samples=256)
            detector.fixed_candidates = True
            again = phi("e2x", detector, u, pin, labels, target, samples=samples, seed=1)
            rows["e2x: candidate, box"].append(pearson(maps["e2x", "candidate"], maps["e2x", "box"]))
            rows["e2x: candidate, other seed"].append(pearson(maps["e2x", "candidate"], again))
            rows["e2x_kernel: candidate, box"].append(
                pearson(maps["e2x_kernel", "candidate"], maps["e2x_kernel", "box"])
            )
            if drise:
                seen = Target(candidate=target.candidate, label=target.label, box=target.box)
                other = phi("drise", detector, u, pin, labels, seen, samples=500)
                rows["e2x_kernel by candidate, drise"].append(pearson(maps["e2x_kernel", "candidate"], other))
                rows["e2x_kernel by box, drise"].append(pearson(maps["e2x_kernel", "box"], other))
            print(path.name, at, {k: round(v[-1], 3) for k, v in rows.items()}, flush=True)
    return rows


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--drise", action="store_true", help="D-RISE too: 500 passes a target")
    parser.add_argument("--only", default="", help="detectors whose name holds this; all by default")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    weights = options.shared / "data" / "weights"
    images = sorted((options.shared / "data" / "coco_val128" / "images").rglob("*.jpg"))[: options.images]
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        from tiny_models import save_tiny

        specs = {
            "yolox": f"onnx:{weights}/yolox_nano/yolox_nano.onnx",
            "nanodet": f"onnx:{weights}/nanodet_m/nanodet_m_416.onnx",
            "tiny detr, random": f"hf:{save_tiny('detr', Path(folder) / 'detr')}",
        }
        for name, spec in specs.items():
            if options.only and options.only.lower() not in name.lower():
                continue
            detector = load_detector(spec, "cpu")
            rows = compare(detector, images, options.samples, options.drise)
            table[name] = {
                what: {
                    "median": round(float(np.median(found)), 3),
                    "lower quartile": round(float(np.quantile(found, 0.25)), 3),
                    "targets": len(found),
                }
                for what, found in rows.items()
            }
    claims = [
        {
            "claim": f"{name}, {what}, median r",
            "value": row[what]["median"],
            "target": WANTED,
            "ok": row[what]["median"] >= WANTED,
        }
        for name, row in table.items()
        for what in ("e2x: candidate, box", "e2x_kernel: candidate, box")
        if what in row
    ]
    print(json.dumps(table, indent=1))
    for claim in claims:
        print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']:.3f} ({WANTED})")
    if options.out:
        seconds = round(time.perf_counter() - start)
        report = {"machine": machine(), "versions": versions(), "seconds": seconds, "table": table}
        options.out.write_text(json.dumps(report | {"acceptance": claims}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
