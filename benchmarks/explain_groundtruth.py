"""Do the maps show what is known to be there: planted causes, flower parts, polygons of COCO's objects?

    python benchmarks/explain_groundtruth.py [--quick] [--seed N] [--out FILE.json] [--shared DIR]

(a) Built-in example: for failures whose planted cause is local (its mask covers at most 15% of the image),
does the strongest segment of the culprit's sign (negative for a miss, positive for a false positive) lie at
least half inside the culprit's mask? "No evidence" counts as a miss; beside it the rate of a random segment,
and how often hiding the whole culprit moves the score in the right direction at all ("moves"); those apart.
For found objects: does the map point at the part that bears the class's colour, and the area under IoU
against threshold (VEBI, Figs. 8 and 9).
(b) YOLOX-nano on coco_val128: pointing game and energy inside the mask for the methods of a few passes over
all true positives that have a polygon; for every method, with deletion and insertion (of the probability),
against its seconds per detection on a part of the images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions
from explain_cases import BATCH, SEGMENTS, open_workspace, shared_folder
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from curator import pipeline
from curator.boxes import iou
from curator.data.settings import AddConfig
from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import GapRates, draw_gaps, write_dataset
from curator.example.scene import RenderedScene, SceneParams, render_scene
from curator.explain.base import AttributionOptions, Target, TargetChoice
from curator.explain.fills.fill import make_fill
from curator.explain.game import coalition_game
from curator.explain.measures.localisation import energy_inside, overlap_area, points_at_mask
from curator.explain.measures.perturbation import deletion_insertion, hider
from curator.explain.segments import slic_segments
from curator.explain.target import TargetScores, target_kind
from curator.registry import ATTRIBUTIONS, Spec
from curator.represent.pixel_maps import Map, map_pixels, segment_values, strongest_point
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import Outcome, Pin
from store.store import Store

LOCAL = 0.15
LARGE = 32 * 32
TOLERANCE = 15.0
# method, with its fill where it is not the usual one -> samples: what a user would take by default
METHODS = {
    "e2x": 16,
    "e2x?low=0.5": 16,
    "e2x blur": 16,
    "e2x?low=0.8 blur": 16,
    "e2x_kernel": 16,
    "e2x_kernel blur": 16,
    "occlusion": 1,
    "ig_s": 16,
    "lime": 256,
    "kernel_shap": 256,
    "odam": 1,
    "drise": 500,
    "sp?patch=29&stride=13": 1,
    "e2x_path": 16,
    "ig": 32,
    "guided": 1,
    "dve": 1,
    "permutation": 1,
    "mp2": 1,
    "fido?steps=100&draws=2": 1,
}
DEAR = ("permutation", "mp2", "fido")  # measured on the first images alone
FIRST = 4
BLURRED = ("mp2", "fido")  # their papers' fill
CHEAP = (
    "e2x",
    "e2x?low=0.5",
    "e2x blur",
    "e2x?low=0.8 blur",
    "e2x_kernel",
    "e2x_kernel blur",
    "occlusion",
    "ig_s",
    "odam",
)  # measured on all images, the others on the first
FIGURES = (("points", 1), ("energy", 1), ("deletion", -1), ("insertion", 1))
Bools = NDArray[np.bool_]


def explained(
    name: str,
    samples: int,
    detector: Detector,
    image: Any,
    pin: Pin,
    segments: NDArray[np.uint16],
    outcomes: Sequence[Outcome],
    key: str,
    wanted: TargetChoice = "auto",
) -> tuple[list[Map], float]:
    """Maps of all outcomes by one method, and seconds per target."""
    spec = spec_of(name)
    options = AttributionOptions(samples=samples, batch_size=BATCH, precision="fp32", settings=spec.options)
    method = ATTRIBUTIONS.load(spec.name)(options)
    fill = make_fill(fill_of(name), detector, method=spec.name, takes=method.takes)
    kind = target_kind(wanted, detector, image, pin, [method])
    targets = [replace(target_of(outcome), kind=kind) for outcome in outcomes]
    start = time.perf_counter()
    maps = method.explain(detector, image, pin, segments, fill, targets, seed=0, image_key=key)
    return maps, (time.perf_counter() - start) / len(targets)


def spec_of(name: str) -> Spec:
    """The method that a name of `METHODS` names."""
    return Spec.of_method(name.partition(" ")[0])


def fill_of(name: str) -> str:
    """The fill that a name of `METHODS` names, or its paper's, or the detector's mean colour."""
    return name.partition(" ")[2] or ("blur" if spec_of(name).name in BLURRED else "mean")


def methods(wanted: str) -> dict[str, int]:
    """Those of `METHODS` that are named and that exist."""
    names = set(wanted.split(",")) if wanted else set()
    known = ATTRIBUTIONS.names()
    return {
        name: samples
        for name, samples in METHODS.items()
        if spec_of(name).name in known and (not names or {name, spec_of(name).name} & names)
    }


def target_of(outcome: Outcome) -> Target:
    """What an outcome's explanation explains."""
    return Target(candidate=outcome.target.candidate, label=outcome.target.label, box=outcome.box)


# ------------------------------------------------------------------- (a) planted causes


def planted(
    work: Path, count: int, seed: int, wanted: dict[str, int], per_cause: int, kind: TargetChoice = "auto"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of failures with a local planted cause, and rows of found objects on clean scenes."""
    gaps = draw_gaps("mine", count, seed, GapRates())
    with open_scenes(work, count, seed) as store:
        model, outcomes = store.models()[0], store.outcomes()
        by_image: dict[int, list[Outcome]] = {}
        for outcome in outcomes:
            by_image.setdefault(outcome.image_id, []).append(outcome)
        records = {image.id: image for image in store.images(reader="explain", ids=sorted(by_image))}
        found = store.detections(model.id, sorted(by_image))
    detector = load_detector(model.spec, "cpu")
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    done: dict[str, int] = {}
    for image_id, members in sorted(by_image.items()):
        record, pin = records[image_id], found[image_id].pin
        index = int(Path(record.uri).stem.rsplit("-", 1)[1])
        gap = gaps[index]
        scene = render_scene(SceneParams(role="mine", index=index, seed=seed, size=192, gap=gap))
        chosen = [o for o in members if o.kind == "TP"] if gap is None else failures_of(scene, members, gap)
        cause = gap or "clean"
        local = gap is None or 0 < scene.culprit_mask.mean() <= LOCAL
        if not chosen or not local or done.get(cause, 0) >= per_cause:
            continue
        done[cause] = done.get(cause, 0) + len(chosen)
        image = detector.prepare(image_tensor(read_pixels(record.uri, record.sha256)), pin)
        segments = slic_segments(image, pin, SEGMENTS)
        helps = {
            fill: culprit_moves(detector, image, pin, segments, chosen, scene.culprit_mask, fill)
            for fill in {fill_of(name) for name in wanted}
            if gap is not None
        }
        for name, samples in wanted.items():
            few = done[cause] <= 2 * FIRST
            if not few and name not in CHEAP:
                continue
            maps, seconds = explained(
                name, samples, detector, image, pin, segments, chosen, record.sha256, kind
            )
            for number, (outcome, found_map) in enumerate(zip(chosen, maps, strict=True)):
                base = {"method": name, "seconds": seconds, "evidence": bool(found_map.evidence)}
                if gap is None:
                    parts.append({**base, **part_row(scene, outcome, found_map, segments)})
                else:
                    row = culprit_row(scene, outcome, found_map, segments)
                    moves = bool(helps[fill_of(name)][number])
                    rows.append({**base, "cause": gap, "moves": moves, **row})
    return rows, parts


def culprit_moves(
    detector: Detector,
    image: Any,
    pin: Pin,
    segments: NDArray[np.uint16],
    outcomes: Sequence[Outcome],
    mask: Bools,
    fill: str,
) -> Bools:
    """Does hiding the whole culprit raise a missed object's log-odds, lower a false positive's? (n,)

    Where it does not, a map that is right cannot blame the culprit: what hides it is as much in the way.
    """
    targets = [replace(target_of(outcome), kind="log_odds") for outcome in outcomes]
    inside = np.bincount(segments.ravel(), weights=mask.ravel()) / np.bincount(segments.ravel())
    game = coalition_game(
        TargetScores(detector, pin, targets),
        detector,
        image,
        segments,
        make_fill(fill, detector, method="occlusion", takes=("continuous",)),
        seed=0,
        options=AttributionOptions(batch_size=BATCH, precision="fp32"),
    )
    before, after = game(np.stack([np.ones(len(inside), dtype=bool), inside < 0.5]))
    signs = np.array([1 if outcome.kind == "FN" else -1 for outcome in outcomes])
    return np.asarray(signs * (after - before) > 0)


def open_scenes(work: Path, count: int, seed: int) -> Store:
    """A workspace of rendered scenes, detected by the shipped detector and diagnosed."""
    path = work / f"scenes-{seed}-{count}"
    if (path / "workspace.json").exists():
        return Store.open(path)
    data = write_dataset(work / f"data-{seed}-{count}", sizes={"mine": count}, seed=seed)
    store = Store.create(path)
    pipeline.add(store, AddConfig(format="coco", path=data["mine"], role="mine"))
    pipeline.detect(store, DetectConfig(detector="builtin:"))
    pipeline.diagnose(store, DiagnoseConfig())
    return store


def failures_of(scene: RenderedScene, members: Sequence[Outcome], gap: str) -> list[Outcome]:
    """Failures that the planted gap concerns: misses of objects with it, false positives on look-alikes."""
    having = np.array([a.box for a in scene.annotations if a.attributes.get("gap") == gap]).reshape(-1, 4)
    culprits = np.array(scene.culprit_boxes, dtype=np.float64).reshape(-1, 4)
    found = []
    for outcome in members:
        boxes = (
            having
            if outcome.kind == "FN"
            else culprits
            if outcome.kind == "FP" and gap == "lookalike"
            else None
        )
        if boxes is not None and len(boxes) and iou(np.array([outcome.box]), boxes).max() >= 0.5:
            found.append(outcome)
    return found


def culprit_row(
    scene: RenderedScene, outcome: Outcome, found: Map, segments: NDArray[np.uint16]
) -> dict[str, Any]:
    """Does the strongest segment of the culprit's sign lie at least half inside the culprit's mask?"""
    values = segment_values(found, segments)
    values = values / np.bincount(segments.ravel(), minlength=len(values))  # density
    values = -values if outcome.kind == "FN" else values
    inside = np.bincount(segments.ravel(), weights=scene.culprit_mask.ravel()) / np.bincount(segments.ravel())
    best = int(values.argmax())
    return {
        "outcome": outcome.kind,
        "hit": bool(found.evidence and values[best] > 0 and inside[best] >= 0.5),
        "random": float((inside >= 0.5).mean()),
    }


def part_row(
    scene: RenderedScene, outcome: Outcome, found: Map, segments: NDArray[np.uint16]
) -> dict[str, Any]:
    """Pointing game and IoU area for the part that bears the class's colour (VEBI, Figs. 8 and 9)."""
    boxes = np.array([a.box for a in scene.annotations])
    number = int(iou(np.array([outcome.box]), boxes)[0].argmax())
    mask = scene.part_masks[number][outcome.category.split("-")[1]]
    return {
        "points": points_at_mask(strongest_point(found, segments), mask, 4.0),
        "overlap_area": overlap_area(map_pixels(found, segments, mask.shape), mask),
        "energy": energy_inside(map_pixels(found, segments, mask.shape), mask),
    }


# ------------------------------------------------------------------- (b) polygons


def polygons(shared: Path, stem: str, size: tuple[int, int]) -> list[tuple[Bools, NDArray[np.float64]]]:
    """Masks (H, W) and boxes (4,) of an image's polygons, stored-image pixels."""
    path = shared / "coco_val128" / "labels_seg" / f"{stem}.txt"
    if not path.is_file():
        return []
    height, width = size
    found = []
    for line in path.read_text().splitlines():
        xy = np.array([float(v) for v in line.split()[1:]]).reshape(-1, 2) * [width, height]
        if len(xy) < 3:
            continue
        canvas = Image.new("1", (width, height))
        ImageDraw.Draw(canvas).polygon([tuple(p) for p in xy], fill=1)
        found.append((np.asarray(canvas, dtype=bool), np.concatenate([xy.min(0), xy.max(0)])))
    return found


def coco(
    work: Path,
    shared: Path,
    images: int,
    wanted: dict[str, int],
    kind: TargetChoice = "auto",
    *,
    most: int = 1000,
    part: int = 0,
    parts: int = 1,
) -> list[dict[str, Any]]:
    """Rows of true positives with a polygon.

    Args:
        images: how many images get all methods, with deletion and insertion; of the others, up to `most` in
            all, only the `CHEAP` methods point. part, parts: every parts-th image from `part` on.
    """
    with open_workspace(work, "yolox", "final", shared) as store:
        model = store.models()[0]
        hits = [o for o in store.outcomes() if o.kind == "TP"]
        ids = sorted({o.image_id for o in hits})
        records = {image.id: image for image in store.images(reader="explain", ids=ids)}
        found = store.detections(model.id, ids)
    detector = load_detector(model.spec, "cpu")
    rows: list[dict[str, Any]] = []
    used = -1
    for image_id in sorted(ids, key=lambda i: records[i].sha256):
        record, pin = records[image_id], found[image_id].pin
        shapes = polygons(shared, Path(record.uri).stem, (record.height, record.width))
        chosen, masks = [], []
        for outcome in (o for o in hits if o.image_id == image_id):
            overlaps = [float(iou(np.array([outcome.box]), box[None])[0, 0]) for _, box in shapes]
            if overlaps and max(overlaps) >= 0.7:
                chosen.append(outcome)
                masks.append(to_input(shapes[int(np.argmax(overlaps))][0], pin))
        if not chosen:
            continue
        used += 1
        if used >= most:
            break
        if used % parts != part:
            continue
        image = detector.prepare(image_tensor(read_pixels(record.uri, record.sha256)), pin)
        segments = slic_segments(image, pin, SEGMENTS)
        every = used < images
        scores = TargetScores(detector, pin, [target_of(o) for o in chosen])
        fill = make_fill("mean", detector, method="e2x", takes=("continuous",))
        hide = hider(fill, image, detector, seed=0)
        for name, samples in wanted.items():
            if (not every and name not in CHEAP) or (used >= FIRST and spec_of(name).name in DEAR):
                continue
            maps, seconds = explained(
                name, samples, detector, image, pin, segments, chosen, record.sha256, kind
            )
            curves = (
                deletion_insertion(scores, hide, maps, segments, batch_size=BATCH)
                if every
                else [None] * len(maps)
            )
            for outcome, mask, found_map, curve in zip(chosen, masks, maps, curves, strict=True):
                x1, y1, x2, y2 = outcome.box
                row = {
                    "image": Path(record.uri).name,
                    "category": outcome.category,
                    "large": bool((x2 - x1) * (y2 - y1) >= LARGE),
                    "every": every,
                    "method": name,
                    "seconds": seconds,
                    "evidence": bool(found_map.evidence),
                    "points": points_at_mask(strongest_point(found_map, segments), mask, TOLERANCE),
                    "energy": energy_inside(map_pixels(found_map, segments, mask.shape), mask),
                }
                if curve is not None:
                    row |= {"deletion": curve[0].area, "insertion": curve[1].area}
                rows.append(row)
        print(f"coco {used} {Path(record.uri).name}", file=sys.stderr, flush=True)
    return rows


def coco_part(
    work: Path,
    shared: Path,
    images: int,
    wanted: dict[str, int],
    kind: TargetChoice,
    most: int,
    part: int,
    parts: int,
) -> list[dict[str, Any]]:
    """`coco` of one worker."""
    return coco(work, shared, images, wanted, kind, most=most, part=part, parts=parts)


def to_input(mask: Bools, pin: Pin) -> Bools:
    """A stored-image mask (H, W) in the detector's input frame (h, w), nearest pixel; padding is outside."""
    h, w = pin.input_size
    x = ((np.arange(w) + 0.5 - pin.offset[0]) / pin.scale[0]).astype(int)
    y = ((np.arange(h) + 0.5 - pin.offset[1]) / pin.scale[1]).astype(int)
    good = ((x >= 0) & (x < mask.shape[1]))[None, :] & ((y >= 0) & (y < mask.shape[0]))[:, None]
    return mask[y.clip(0, mask.shape[0] - 1)[:, None], x.clip(0, mask.shape[1] - 1)[None, :]] & good


# ------------------------------------------------------------------- tables


def means(rows: Sequence[dict[str, Any]], by: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Means of figures per combination of `by`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return [
        {
            **dict(zip(by, key, strict=True)),
            "n": len(members),
            **{name: float(np.mean([m[name] for m in members])) for name in figures},
        }
        for key, members in sorted(groups.items())
    ]


def dominated(table: Sequence[dict[str, Any]], figure: str, sign: int, method: str) -> list[str]:
    """Methods of another kind that are both faster and better than `method` in a figure."""
    own = next((row for row in table if row["method"] == method and row["large"]), None)
    if own is None:
        return []
    return [
        row["method"]
        for row in table
        if row["large"]
        and spec_of(row["method"]).name != spec_of(method).name
        and row["seconds"] < own["seconds"]
        and sign * row[figure] > sign * own[figure]
    ]


def claims(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The issue's acceptance line 4."""
    acceptance: list[dict[str, Any]] = []
    for row in tables["planted"]:
        if row["method"] in ("e2x", "e2x?low=0.5"):
            ratio = row["hit"] / row["random"] if row["random"] else float("inf")
            acceptance.append(
                {
                    "claim": f"{row['method']}, {row['cause']} ({row['outcome']}, n={row['n']}): "
                    f"hits, {ratio:.1f} x random",
                    "target": ">= 0.85 and >= 3 times random",
                    "value": round(row["hit"], 3),
                    "ok": row["hit"] >= 0.85 and ratio >= 3,
                }
            )
    for row in tables["pointing"]:
        if row["method"] in ("e2x", "e2x?low=0.5") and row["large"]:
            acceptance.append(
                {
                    "claim": f"{row['method']}: pointing game, objects of 32 x 32 px and more (n={row['n']})",
                    "target": ">= 0.90",
                    "value": round(row["points"], 3),
                    "ok": row["points"] >= 0.9,
                }
            )
    for figure, sign in FIGURES:
        for own in ("e2x", "e2x_kernel"):
            if not any(row["method"] == own for row in tables["coco"]):
                continue
            better = dominated(tables["coco"], figure, sign, own)
            acceptance.append(
                {
                    "claim": f"{own} is not dominated in {figure} and seconds"
                    + (f"; by {better}" if better else ""),
                    "target": "by none",
                    "value": len(better),
                    "ok": not better,
                }
            )
    return acceptance


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--seed", type=int, default=515003, help="of the rendered scenes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes, each of one thread if several")
    parser.add_argument("--target", choices=("auto", "probability", "log_odds"), default="auto")
    parser.add_argument("--only", choices=("planted", "coco"), help="one of the two parts")
    parser.add_argument(
        "--keep", type=Path, help="a result of before: its means stay where this run measures nothing"
    )
    parser.add_argument("--methods", default="", help="some of " + ", ".join(METHODS))
    options = parser.parse_args()
    start = time.monotonic()
    work = options.work or Path(tempfile.mkdtemp(prefix="explain-groundtruth-"))
    wanted = methods(options.methods)
    shared = shared_folder(options.shared)
    scenes, per_cause = (120, 8) if options.quick else (400, 30)
    images, most = (4, 8) if options.quick else (6, 60)
    if options.only != "coco":
        open_scenes(work, scenes, options.seed).close()
    jobs: list[tuple[Any, ...]] = [(planted, work, scenes, options.seed, wanted, per_cause, options.target)]
    if shared.is_dir() and options.only != "planted":
        open_workspace(work, "yolox", "final", shared).close()
        pieces = max(1, options.workers)
        jobs += [
            (coco_part, work, shared, images, wanted, options.target, most, i, pieces) for i in range(pieces)
        ]
    if options.only == "coco":
        jobs[0] = (dict,)  # nothing to do, and it can be pickled
    if options.workers > 1:
        with ProcessPoolExecutor(
            options.workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            results = [job.result() for job in [pool.submit(*job) for job in jobs[1:] + jobs[:1]]]
        results = results[-1:] + results[:-1]
    else:
        results = [run(*arguments) for run, *arguments in jobs]
    rows, parts = results[0] if options.only != "coco" else ([], [])
    polygon_rows = [row for found in results[1:] for row in found]
    pointed, judged = (
        ("points", "energy", "seconds", "evidence"),
        [row for row in polygon_rows if row["every"]],
    )
    tables = {
        "planted": means(
            rows, ("method", "cause", "outcome"), ("hit", "random", "evidence", "seconds", "moves")
        ),
        "planted, culprit moves the score": means(
            [row for row in rows if row["moves"]], ("method", "cause", "outcome"), ("hit", "random")
        ),
        "parts": means(parts, ("method",), ("points", "overlap_area", "energy", "seconds")),
        "pointing": means(polygon_rows, ("method", "large"), pointed),
        "coco": means(judged, ("method", "large"), (*pointed, "deletion", "insertion")),
    }
    if options.keep:
        for name, table in json.loads(options.keep.read_text())["tables"].items():
            again = {row["method"] for row in tables[name]}
            tables[name] += [row for row in table if row["method"] not in again]
    for name, table in tables.items():
        print(name)
        for row in table:
            print(
                "  "
                + "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            )
    acceptance = claims(tables)
    for claim in acceptance:
        print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']} ({claim['target']})")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps(
                {
                    "benchmark": "explain_groundtruth",
                    "quick": options.quick,
                    "seed": options.seed,
                    "machine": machine(),
                    "versions": versions(),
                    "seconds": round(time.monotonic() - start, 1),
                    "workers": options.workers,
                    "samples": wanted,
                    "target": options.target,
                    "tables": tables,
                    "acceptance": acceptance,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
