"""What the explain benchmarks measure on: images, segments, targets, drawn by seed before any measurement.

    python benchmarks/explain_cases.py --set dev|final --out FILE.json [--images N] [--pairs N]

computes (or continues) the reference: antithetic permutation Shapley of every target, as a probability and as
log-odds, which share their forward passes. 50 pairs of permutations, more where the split halves agree less
than R = 0.9 (Spearman-Brown). The built-in SSD explains rendered scenes, YOLOX-nano COCO val (or VOC) images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.game import coalition_game, ends_of
from curator.explain.measures.fidelity import pearson, spearman_brown
from curator.explain.methods.shapley import permutation_values
from curator.explain.segments import keyed_draws, slic_segments
from curator.explain.target import TargetScores
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import Outcome, Pin
from store.store import Store

Kind = Literal["probability", "log_odds"]
KINDS: tuple[Kind, ...] = ("probability", "log_odds")
SEGMENTS = 200
PER_IMAGE = 3
BATCH = 16
RELIABLE = 0.9
FIRST_PAIRS, MORE_PAIRS, MOST_PAIRS = 50, 25, 150
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One image with its targets, ready to be explained by anything.

    Attributes:
        family: "ssd" or "yolox". image: x (3, h, w) in the input frame. segments: (h, w).
        outcomes: what is explained, in order. key: the image's sha256.
    """

    family: str
    name: str
    key: str
    detector: Detector
    image: Tensor
    pin: Pin
    segments: NDArray[np.uint16]
    outcomes: tuple[Outcome, ...]

    @property
    def count(self) -> int:
        """M."""
        return int(self.segments.max()) + 1

    def targets(self, kind: Kind) -> list[Target]:
        """One target per outcome."""
        return [
            Target(candidate=o.target.candidate, label=o.target.label, kind=kind, box=o.box)
            for o in self.outcomes
        ]


def shared_folder(given: Path | None) -> Path:
    """`../shared` beside the checkout, or what is named."""
    root = Path(__file__).resolve().parents[1]
    folder = given or Path(os.environ.get("CURATOR_SHARED", root.parent / "shared" / "data"))
    return folder if folder.name == "data" else folder / "data"


def yolox(shared: Path) -> str:
    """Spec of the pretrained YOLOX-nano."""
    return f"onnx:{shared / 'weights' / 'yolox_nano' / 'yolox_nano.onnx'}?decode=yolox"


def open_workspace(folder: Path, family: str, which: str, shared: Path) -> Store:
    """A workspace in which the images of a set are added, detected and diagnosed."""
    path = folder / f"{which}-{family}"
    exists = (path / "workspace.json").exists()
    store = Store.open(path) if exists else Store.create(path)
    if exists and store.outcomes():
        return store
    if family == "ssd":
        seed = {"dev": 515001, "final": 515002}[which]
        data = write_dataset(folder / f"{which}-scenes", sizes={"mine": 60}, seed=seed)
        config = AddConfig(format="coco", path=data["mine"], role="mine")
        spec = "builtin:"
    else:
        spec = yolox(shared)
        names = tuple((shared / "weights" / "coco80.names").read_text().split("\n"))
        config = (
            AddConfig(format="voc", path=shared / "voc100", role="mine")
            if which == "dev"
            else AddConfig(
                format="yolo",
                path=shared / "coco_val128" / "labels",
                images=shared / "coco_val128" / "images",
                classes=tuple(name for name in names if name),
                role="mine",
            )
        )
    pipeline.add(store, config)
    pipeline.detect(store, DetectConfig(detector=spec))
    voc = {
        "airplane": "aeroplane",
        "motorcycle": "motorbike",
        "couch": "sofa",
        "dining table": "diningtable",
        "potted plant": "pottedplant",
        "tv": "tvmonitor",
    }
    mapping = voc if family == "yolox" and which == "dev" else {}
    pipeline.diagnose(store, DiagnoseConfig(class_map=mapping))
    return store


def draw(outcomes: Sequence[Outcome], images: int, seed: int) -> list[list[Outcome]]:
    """`PER_IMAGE` outcomes of each of `images` images: kinds in turn, by keyed order.

    An image must offer two kinds at least; nothing about explanations enters.
    """

    def order(text: str) -> str:
        return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()

    by_image: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        by_image.setdefault(outcome.image_id, []).append(outcome)
    drawn: list[list[Outcome]] = []
    for _, members in sorted(by_image.items(), key=lambda item: order(min(o.key for o in item[1]))):
        kinds = {
            k: sorted((o for o in members if o.kind == k), key=lambda o: order(o.key))
            for k in ("FN", "FP", "TP")
        }
        if len(members) < PER_IMAGE or sum(bool(v) for v in kinds.values()) < 2:
            continue
        turn = [*("FN", "FP", "TP")]
        turn = turn[len(drawn) % 3 :] + turn[: len(drawn) % 3]
        chosen: list[Outcome] = []
        while len(chosen) < PER_IMAGE:
            for kind in turn:
                if kinds[kind] and len(chosen) < PER_IMAGE:
                    chosen.append(kinds[kind].pop(0))
        drawn.append(chosen)
        if len(drawn) == images:
            break
    return drawn


def cases(folder: Path, family: str, which: str, images: int, seed: int, shared: Path) -> list[Case]:
    """The images and targets of a set."""
    with open_workspace(folder, family, which, shared) as store:
        outcomes = store.outcomes()
        model = store.models()[0]
        drawn = draw(outcomes, images, seed)
        ids = [group[0].image_id for group in drawn]
        records = {image.id: image for image in store.images(reader="explain", ids=ids)}
        found = store.detections(model.id, ids)
    detector = load_detector(model.spec, "cpu")
    made = []
    for group in drawn:
        record = records[group[0].image_id]
        pin = found[record.id].pin
        image = detector.prepare(image_tensor(read_pixels(record.uri, record.sha256)), pin)
        made.append(
            Case(
                family=family,
                name=Path(record.uri).name,
                key=record.sha256,
                detector=detector,
                image=image,
                pin=pin,
                segments=slic_segments(image, pin, SEGMENTS),
                outcomes=tuple(group),
            )
        )
    return made


def halves_agree(a: Floats, b: Floats) -> float:
    """Reliability of the mean of two halves; 0 where a half is constant or they disagree."""
    r = pearson(a, b)
    return spearman_brown(r) if r > 0 else 0.0


def reference(
    case: Case, *, pairs: int = FIRST_PAIRS, most: int = MOST_PAIRS, report: bool = True
) -> dict[str, Any]:
    """Antithetic permutation Shapley of a case's targets, both kinds.

    Returns:
        "pairs"; "passes"; "kinds": kind -> {"phi" (T, M), "reliability" (T,), "full", "empty" (T,)}.
    """
    targets = [target for kind in KINDS for target in case.targets(kind)]
    scores = TargetScores(case.detector, case.pin, targets)
    options = AttributionOptions(batch_size=BATCH, precision="fp32")
    game = coalition_game(
        scores, case.detector, case.image, case.segments, MeanFill(), seed=0, options=options
    )
    draws = keyed_draws(case.segments, most, "reference", 0, case.key)
    orders = np.argsort(draws, axis=1, kind="stable")
    full, empty = ends_of(game, case.count)
    found: list[Floats] = []
    start = time.monotonic()
    wanted = min(pairs, most)
    while len(found) < wanted:
        found.append(permutation_values(game, orders[len(found)][None])[0])
        if report and len(found) % 5 == 0:
            print(
                f"  {case.name}: pair {len(found)}, {time.monotonic() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if len(found) == wanted and len(found) >= 2:
            stacked = np.stack(found)  # (pairs, 2T, M)
            phi = stacked.mean(0)
            reliability = np.array(
                [
                    halves_agree(stacked[0::2, t].mean(0), stacked[1::2, t].mean(0))
                    for t in range(len(targets))
                ]
            )
            moving = np.abs(phi).max(1) > 1e-3  # noise without evidence never becomes reliable
            if (reliability[moving] < RELIABLE).any() and wanted < most:
                wanted = min(wanted + MORE_PAIRS, most)
    count = len(case.outcomes)
    return {
        "pairs": len(found),
        "seconds": round(time.monotonic() - start, 1),
        "kinds": {
            kind: {
                "phi": np.round(phi[n * count : (n + 1) * count], 7).tolist(),
                "reliability": np.round(reliability[n * count : (n + 1) * count], 4).tolist(),
                "full": full[n * count : (n + 1) * count].tolist(),
                "empty": empty[n * count : (n + 1) * count].tolist(),
            }
            for n, kind in enumerate(KINDS)
        },
    }


def describe(case: Case) -> dict[str, Any]:
    """What was drawn, as it is committed."""
    return {
        "family": case.family,
        "image": case.name,
        "sha256": case.key,
        "segments": case.count,
        "targets": [
            {
                "kind": o.kind,
                "cause": o.cause,
                "category": o.category,
                "candidate": o.target.candidate,
                "label": o.target.label,
                "box": [round(float(v), 2) for v in o.box],
            }
            for o in case.outcomes
        ],
    }


def load_references(path: Path) -> Mapping[str, Any]:
    """Reference file -> "family/sha256" -> its entry."""
    if not path.is_file():
        return {}
    entries: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return {f"{entry['family']}/{entry['sha256']}": entry for entry in entries}


def main() -> None:
    """Compute the references of a set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", dest="which", choices=("dev", "final"), required=True)
    parser.add_argument("--family", choices=("ssd", "yolox", "both"), default="both")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=FIRST_PAIRS)
    parser.add_argument("--most", type=int, default=MOST_PAIRS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder for workspaces; default: a temporary one")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the images to compute (from 0)")
    parser.add_argument("--shared", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="explain-cases-"))
    entries = dict(load_references(options.out))
    for family in ("ssd", "yolox") if options.family == "both" else (options.family,):
        drawn = cases(
            work, family, options.which, options.images, options.seed, shared_folder(options.shared)
        )
        for number, case in enumerate(drawn):
            key = f"{family}/{case.key}"
            if key in entries or (options.only and number not in options.only):
                continue
            entries[key] = {**describe(case), **reference(case, pairs=options.pairs, most=options.most)}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(
                json.dumps({"set": options.which, "seed": options.seed, "cases": list(entries.values())})
            )
            entry = entries[key]
            print(
                family,
                case.name,
                f"{case.count} segments, {entry['pairs']} pairs, {entry['seconds']:.0f} s",
                {k: v["reliability"] for k, v in entry["kinds"].items()},
                {k: [round(float(np.abs(p).max()), 4) for p in v["phi"]] for k, v in entry["kinds"].items()},
                flush=True,
            )


if __name__ == "__main__":
    main()
