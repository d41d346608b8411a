"""Removal against the truth: real defects of circuit boards, taken out, and the same boards without them.

    curator -w WS train-inpainter --out DIR      # WS: images of DeepPCB's trainval alone, as loop_real.py's
    python benchmarks/deeppcb_inpaint.py --inpainter curator:DIR [--images 120] [--out FILE.json]

DeepPCB (`deeppcb_1bit`) photographs each board with its defects and keeps the template without them. The
hole is that of the recipe `removal`: a defect's box, grown by 4 pixels. Every defect of the first `--images`
boards of its test list (by the hash of their names; none was trained on) is taken out of the tested board by
itself, and compared with the template where the hole is: peak signal to noise, and structural similarity
(Wang et al., IEEE TIP 2004; Gaussian window, sigma 1.5), its map averaged over the pixels of the hole.

Ours: the recipe's own composition (patches of the surroundings; its constants were chosen on boards of
`--list trainval`), and each inpainter as the recipe asks it, with that composition as exemplar, at strengths
1 and 0.6. Rivals: the biharmonic equation (scikit-image) and, where OpenCV is installed, Telea's fast
marching and Navier-Stokes (radius 5). Intervals: 95%, bootstrapped over boards; differences are paired with
the best rival by mean SSIM.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions
from numpy.typing import NDArray
from query_sets import SHARED
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from curator.inpaint.completion import completed
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.painting import load_inpainter
from curator.synthesize.recipes.removal import hole_of
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import NewAnnotation

KINDS = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
AROUND = 48  # pixels of board around the hole that the slower rivals are given
Board = tuple[str, Tensor, Tensor, list[tuple[str, NewAnnotation]]]
Filling = Callable[[Tensor, Mask], Tensor]


def boards(
    folder: Path, listed: str, count: int
) -> list[tuple[str, Tensor, Tensor, list[tuple[str, NewAnnotation]]]]:
    """Name, tested board, template and defects of the first boards of a list."""
    lines = [line.split() for line in (folder / f"{listed}.txt").read_text().splitlines() if line.strip()]
    lines.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).hexdigest())
    found = []
    for image, labels in lines[:count]:
        stem = folder / image.removesuffix(".jpg")
        tested, template = (image_tensor(read_pixels(f"{stem}_{part}.png")) for part in ("test", "temp"))
        defects = []
        for line in (folder / labels).read_text().splitlines():
            x1, y1, x2, y2, kind = (int(v) for v in line.replace(",", " ").split())
            box = (float(x1), float(y1), float(x2), float(y2))
            defects.append((KINDS[kind], NewAnnotation(category=KINDS[kind], box=box)))
        found.append((stem.name, tested, template, defects))
    return found


def classical() -> dict[str, Filling]:
    """Name -> what fills a hole from its surroundings."""

    def biharmonic(image: Tensor, hole: Mask) -> Tensor:
        solved = inpaint_biharmonic(image.permute(1, 2, 0).numpy(), hole, channel_axis=-1)
        return torch.from_numpy(np.clip(solved, 0, 1).astype(np.float32)).permute(2, 0, 1)

    methods: dict[str, Filling] = {"biharmonic": biharmonic}
    try:
        import cv2
    except ImportError:
        return methods

    def by_opencv(method: int) -> Filling:
        def fill(image: Tensor, hole: Mask) -> Tensor:
            pixels = np.ascontiguousarray((image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            out = cv2.inpaint(pixels, hole.astype(np.uint8), 5, method)
            return torch.from_numpy(out.astype(np.float32) / 255).permute(2, 0, 1)

        return fill

    return methods | {"telea": by_opencv(cv2.INPAINT_TELEA), "navier-stokes": by_opencv(cv2.INPAINT_NS)}


def ours(specs: list[str]) -> dict[str, Filling]:
    """Name -> what fills a hole: patches, and models that go on from what these make."""
    methods: dict[str, Filling] = {"patches": completed}
    for spec in specs:
        inpainter = load_inpainter(spec, 12, "cpu")

        def paint(image: Tensor, hole: Mask, strength: float, inpainter: Any) -> Tensor:
            composed, mask = completed(image, hole), torch.from_numpy(hole)[None]
            x1, y1, x2, y2 = bounds(hole)
            painted: Tensor = inpainter.inpaint(
                image[None],
                mask,
                initial=composed[None],
                strength=strength,
                prompts=["background"],
                exemplars=[composed[:, y1:y2, x1:x2]],
                seeds=[0],
            )[0]
            return painted

        for strength in (1.0, 0.6):
            methods[f"{spec} at {strength:g}"] = partial(paint, strength=strength, inpainter=inpainter)
    return methods


def likeness(found: Tensor, truth: Tensor, hole: Mask) -> tuple[float, float]:
    """(PSNR in dB, at most 60; SSIM) of what a hole (h, w) holds against the truth; images (3, h, w)."""
    a, b = found.mean(0).numpy(), truth.mean(0).numpy()
    error = float(((a - b)[hole] ** 2).mean())
    _, similar = structural_similarity(
        a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return min(-10 * np.log10(max(error, 1e-6)), 60.0), float(similar[hole].mean())


def interval(values: NDArray[np.float64], of: NDArray[np.int64]) -> list[float]:
    """[mean, low, high] at 95%, bootstrapped over boards; values (N,), `of` (N,) numbers the boards."""
    sums, counts = np.bincount(of, values), np.bincount(of)
    drawn = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(values.mean()), *(float(v) for v in np.quantile(means, [0.025, 0.975]))]


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inpainter", action="append", default=[], help="a spec; may be repeated")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--list", choices=("test", "trainval"), default="test")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rivals, painters = classical(), ours(arguments.inpainter)
    methods, rows = {**rivals, **painters}, []
    seconds = dict.fromkeys(methods, 0.0)
    for number, (name, tested, template, defects) in enumerate(
        boards(SHARED / "data" / "deeppcb_1bit", arguments.list, arguments.images)
    ):
        for kind, annotation in defects:
            hole = hole_of(annotation, tested)
            x1, y1, x2, y2 = bounds(hole)
            top, left = max(0, y1 - AROUND), max(0, x1 - AROUND)
            window = slice(top, y2 + AROUND), slice(left, x2 + AROUND)
            part, truth, inside = tested[:, *window], template[:, *window], hole[window]
            for method, fill in methods.items():
                began = time.perf_counter()
                done = fill(part, inside)
                seconds[method] += time.perf_counter() - began
                assert torch.equal(done[:, ~inside], part[:, ~inside])
                # Outside the hole the template too is the tested board: other defects are no error of this.
                psnr, ssim = likeness(done, torch.where(torch.from_numpy(inside), truth, part), inside)
                rows.append((number, kind, method, psnr, ssim))
        print(f"{number + 1} {name}", flush=True)
    of = np.array([row[0] for row in rows if row[2] == "patches"])
    kinds = np.array([row[1] for row in rows if row[2] == "patches"])
    table: dict[str, Any] = {}
    values = {m: np.array([row[3:] for row in rows if row[2] == m]) for m in methods}  # (N, 2) each
    for method, own in values.items():
        table[method] = {
            "psnr": interval(own[:, 0], of),
            "ssim": interval(own[:, 1], of),
            "ssim_by_kind": {k: round(float(own[kinds == k, 1].mean()), 3) for k in sorted(set(kinds))},
            "seconds": seconds[method] / len(of),
        }
    best = max(rivals, key=lambda m: table[m]["ssim"][0])
    for method in painters:
        table[method]["ssim_over_best_rival"] = interval(values[method][:, 1] - values[best][:, 1], of)
    for method, row in table.items():
        print(method, json.dumps(row))
    verdict = any(table[m]["ssim_over_best_rival"][1] > 0 for m in painters)
    print(f"{len(of)} defects of {len(set(of))} boards; best rival {best}; one of ours above it: {verdict}")
    if arguments.out:
        text = {
            "defects": len(of),
            "boards": len(set(of)),
            "best_rival": best,
            "methods": table,
            "machine": machine(),
            "versions": versions("scikit-image", "opencv-python", "diffusers"),
        }
        arguments.out.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
