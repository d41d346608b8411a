"""What synthesis is worth before any training: accept rate, labels, looks, variety, time, and sheets to see.

    python benchmarks/synth_quality.py --set flowers|bccd|vehicles|deeppcb [--inpainter SPEC]
        [--strengths 0,0.3,0.6,1] [--sheet FILE.jpg] [--out FILE.json]

Sets and base detectors are those of loop_real.py (split 0 of vehicles, which has no other base; split 1 of
bccd and deeppcb), whose set must be prepared; "flowers" are scenes of the built-in example with its detector.
48 samples are wanted, in at most 192 plans, of all failures, without explanations (so that `culprit` takes no
part), by default settings but for the gate's judge (MobileNet; flowers: the default, without weights).
Strength 0 is composition alone (`compose:`). On the sheet: the first 24 accepted and the first 24 refused
samples of the first strength, before and after.

Judges here took no part in making or accepting a sample:

    labels    a second detector: YOLOX-nano of COCO (vehicles; it knows no ambulance), query_retrain.py's base
              (bccd, on the tile mirrored to 640 x 480), the base of loop_real.py's split 0 (deeppcb; no
              pin-holes), a detector trained on plenty of scenes of every condition (flowers: --judge SPEC).
              It agrees where it finds the class with an IoU of at least .5. Its threshold is the one of best
              F1 on mined images. Validity: agreement on the accepted samples' new labels, divided by what it
              is on mined images for objects of the same class and size (octaves of the side); by recipe,
              too. "at home": its agreement on the very objects that were pasted (`object`), where they stood:
              misses are harder than others of their size, for it as well. Look-alikes have no label: the
              share in which it finds anything there all the same.
    looks     vectors of NanoDet's levels (COCO). Of the accepted samples' parts and of untouched objects of
              the same classes and sizes in mined images, twice as many of each where there are: a logistic
              regression's area under the ROC, out of fold (.5: cannot tell one from the other; beside it the
              same for two halves of the untouched ones), by recipe (`appearance` is meant to look different),
              and the kernel distance (KID; Binkowski et al., ICLR 2018), also of the two halves.
    variety   mean cosine distance between parts, over that of the untouched ones.

(Rule of this file, written before its first run.)
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions
from loop_real import opened
from loop_real_sets import EXPERIMENTS
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from query_sets import CACHE, MAPS, SHARED, detector_spec
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synth_gate import MOBILENET

from curator import pipeline
from curator.boxes import iou
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.run_current import read_current
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.page import Picture, thumbnail
from curator.synthesize.gate.base import Found
from curator.synthesize.gate.judge import Judge
from curator.synthesize.run_plans import labelled
from curator.synthesize.run_sheet import pair
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import detect
from curator.tensors import image_tensor
from store.images import read_bytes_as_pixels
from store.records import BoxTuple, Role, Sample
from store.store import Store

WANTED, ATTEMPTS, SHOWN = 48, 4, 24
COLUMNS, SIDE, CAPTION = 4, 300, 30  # of a sheet, pixels
ROLES: tuple[Role, ...] = ("train", "mine")
SPLIT = {"vehicles": 0, "bccd": 1, "deeppcb": 1}
UNKNOWN = {"vehicles": ("Ambulance",), "deeppcb": ("pin-hole",), "bccd": (), "flowers": ()}
"""Classes that the judge of labels does not know."""
LEAST = 5  # objects of a class and size in mined images, below which the class's of all sizes count
Array = NDArray[np.float64]


def workspace(name: str, folder: Path) -> Store:
    """A diagnosed workspace that may be written to."""
    if name in EXPERIMENTS:
        source = CACHE.expanduser() / f"loop-real-{SPLIT[name]}" / name / "workspace"
        shutil.copytree(source, folder / "workspace")
        return opened(folder)
    sizes: dict[Role, int] = {"train": 80, "mine": 80, "pool": 1, "holdout": 1}
    write_dataset(folder / "data", sizes=sizes, seed=0)
    store = Store.create(folder / "workspace")
    for role in ROLES:
        pipeline.add(store, AddConfig(format="coco", path=folder / "data" / role, role=role))
    pipeline.detect(store, DetectConfig(detector="builtin:"))
    pipeline.diagnose(store, DiagnoseConfig())
    return store


@dataclass
class SecondDetector:
    """The judge of labels."""

    spec: str
    names: dict[str, str]
    mirrored: tuple[int, int] | None = None  # (H, W) of the canvas a smaller image is mirrored to
    threshold: float = 0.25

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Found]:
        """Detections, whatever their score."""
        shown = [self._mirror(image) for image in images]
        found = detect(load_detector(self.spec, "cpu"), shown, torch.device("cpu"), self.names)
        return [[] if isinstance(one, Exception) else one for one in found]

    def _mirror(self, image: torch.Tensor) -> torch.Tensor:
        if self.mirrored is None:
            return image
        bottom, right = (max(side - own, 0) for side, own in zip(self.mirrored, image.shape[1:], strict=True))
        return torch.nn.functional.pad(image[None], (0, right, 0, bottom), mode="reflect")[0]

    def sees(self, found: Found, category: str, box: BoxTuple) -> bool:
        """Is the class found there?"""
        own = [b for name, score, b in found if name == category and score >= self.threshold]
        return bool(own) and bool(iou(own, [box]).max() >= 0.5)


def second_detector(name: str, given: str) -> SecondDetector | None:
    """The judge of a set, None where there is none."""
    if given:
        return SecondDetector(given, {})
    if name == "vehicles":
        return SecondDetector(detector_spec("yolox", name), MAPS["vehicles"])
    if name == "bccd":
        return SecondDetector(
            f"curator:{CACHE.expanduser() / 'retrain-bccd' / 'base.safetensors'}", {}, (479, 639)
        )
    if name == "deeppcb":
        return SecondDetector(f"curator:{CACHE.expanduser() / 'loop-real-0' / name / 'base.safetensors'}", {})
    return None


@dataclass
class Mined:
    """Untouched objects of mined images: image, class, box; what the judge finds in each image."""

    images: list[torch.Tensor]
    objects: list[tuple[int, str, BoxTuple]]
    found: list[Found]


def mined(store: Store, second: SecondDetector | None, most: int = 120) -> Mined:
    """Read them, and set the judge's threshold."""
    out = Mined([], [], [])
    for scene in labelled(store, store.image_ids(role="mine"))[:most]:
        out.images.append(image_tensor(store.pixels(scene.image, reader="synthesize")))
        for a in scene.annotations:
            if not a.crowd:
                out.objects.append((len(out.images) - 1, a.category, a.box))
    if second is not None:
        out.found = second(out.images)
        scores = sorted({round(s, 2) for one in out.found for _, s, _ in one if s >= 0.05}) or [0.25]
        second.threshold = max(scores, key=lambda s: f1(replace(second, threshold=s), out))
    return out


def f1(second: SecondDetector, real: Mined) -> float:
    """Twice the objects seen over objects and detections (detections of unknown classes are none)."""
    known = {name for _, name, _ in real.objects}
    seen = sum(second.sees(real.found[i], name, box) for i, name, box in real.objects)
    told = sum(s >= second.threshold and n in known for one in real.found for n, s, _ in one)
    return 2 * seen / max(len(real.objects) + told, 1)


def octave(box: BoxTuple) -> int:
    """The size of a box: rounded log2 of the square root of its area."""
    return round(float(np.log2(max((box[2] - box[0]) * (box[3] - box[1]), 1.0))) / 2)


def new_labels(sample: Sample) -> list[tuple[str, BoxTuple]]:
    """What the sample adds: the label that fits its painted part best; of a whole picture, the first label of
    the failure's class."""
    if sample.recipe in ("lookalike", "removal") or not sample.annotations:
        return []
    own = [(a.category, a.box) for a in sample.annotations if not a.crowd]
    if sample.recipe == "appearance":
        asked = [one for one in own if one[0] == sample.group.rpartition(":")[2]]
        return (asked or own)[:1]
    fits = iou([box for _, box in own], [sample.painted])[:, 0]
    return [own[int(fits.argmax())]]


def validity(
    store: Store,
    accepted: Sequence[Sample],
    pictures: Sequence[torch.Tensor],
    second: SecondDetector,
    real: Mined,
    name: str,
) -> dict[str, Any]:
    """See above."""
    found = second(pictures)
    outcomes = {o.id: o for o in read_current(store, "synthesize", None).outcomes}
    homes = {s.exemplar_image_id: s for s in accepted if s.recipe == "object" and s.exemplar_image_id}
    records = store.images(reader="synthesize", ids=sorted(homes))
    at_home = dict(
        zip(
            [image.id for image in records],
            second([image_tensor(store.pixels(image, reader="synthesize")) for image in records]),
            strict=True,
        )
    )
    home: list[tuple[bool, bool]] = []  # seen where it was pasted, and where it stood
    seen: dict[tuple[str, int], list[bool]] = {}
    for i, category, box in real.objects:
        for size in (octave(box), -1):
            seen.setdefault((category, size), []).append(second.sees(real.found[i], category, box))
    agreed, expected, deceived, alike = [], [], 0, 0
    recipes: list[str] = []
    for sample, one in zip(accepted, found, strict=True):
        if sample.recipe == "lookalike":
            alike += 1
            deceived += any(
                s >= second.threshold and iou([b], [sample.painted])[0, 0] >= 0.5 for _, s, b in one
            )
        for category, box in new_labels(sample):
            own = seen.get((category, octave(box)), [])
            own = own if len(own) >= LEAST else seen.get((category, -1), [])
            if sample.recipe == "object" and category not in UNKNOWN[name] and sample.exemplar_image_id:
                stood = second.sees(
                    at_home[sample.exemplar_image_id], category, outcomes[sample.outcome_id].box
                )
                home.append((second.sees(one, category, box), stood))
            if category not in UNKNOWN[name] and own:
                agreed.append(second.sees(one, category, box))
                expected.append(float(np.mean(own)))
                recipes.append(sample.recipe)
    if not agreed:
        return {"labels": 0, "lookalikes": alike, "lookalikes_seen": deceived}
    a, e = np.array(agreed, float), np.array(expected)
    drawn = np.random.default_rng(0).integers(0, len(a), (2000, len(a)))
    ratio = a[drawn].sum(1) / np.maximum(e[drawn].sum(1), 1e-9)
    return {
        "labels": len(a),
        "agreed": float(a.mean()),
        "on_real_objects": float(e.mean()),
        "validity": float(a.sum() / max(e.sum(), 1e-9)),
        "interval": [float(v) for v in np.quantile(ratio, [0.025, 0.975])],
        "by_recipe": {
            recipe: {"labels": int(rows.sum()), "validity": float(a[rows].sum() / max(e[rows].sum(), 1e-9))}
            for recipe in sorted(set(recipes))
            for rows in [np.asarray(recipes) == recipe]
        },
        "at home": {
            "labels": len(home),
            "pasted": float(np.mean([pasted for pasted, _ in home])) if home else None,
            "home": float(np.mean([stood for _, stood in home])) if home else None,
        },
        "threshold": second.threshold,
        "lookalikes": alike,
        "lookalikes_seen": deceived,
    }


def told_apart(a: Array, b: Array) -> float:
    """Area under the ROC of a logistic regression, out of fold."""
    x, y = np.concatenate([a, b]), np.r_[np.zeros(len(a)), np.ones(len(b))]
    folds = min(5, len(a), len(b))
    if folds < 2:
        return float("nan")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
    )
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    return float(roc_auc_score(y, cross_val_predict(model, x, y, cv=split, method="decision_function")))


def kid(a: Array, b: Array) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3."""

    def kernel(x: Array, y: Array) -> Array:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)

    if min(len(a), len(b)) < 2:
        return float("nan")

    def within(k: Array) -> float:
        return float((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)))

    return within(kernel(a, a)) + within(kernel(b, b)) - 2 * float(kernel(a, b).mean())


def spread(x: Array) -> float:
    """Mean cosine distance between rows, the mean of all taken off."""
    y = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    like = y @ y.T
    return float(1 - (like.sum() - np.trace(like)) / max(len(x) * (len(x) - 1), 1))


def looks(accepted: Sequence[Sample], pictures: Sequence[torch.Tensor], real: Mined) -> dict[str, Any]:
    """See above."""
    nanodet = load_detector(detector_spec("nanodet", ""), "cpu")
    eye = Judge("detector:", nanodet, torch.device("cpu"))
    parts, classes = [], []
    for sample, picture in zip(accepted, pictures, strict=True):
        for category, box in new_labels(sample):
            parts.append((picture, box))
            classes.append((category, octave(box)))
    rng = np.random.default_rng(0)
    wanted = Counter({kind: 2 * count for kind, count in Counter(classes).items()})
    shown: list[tuple[torch.Tensor, BoxTuple]] = []
    for i in rng.permutation(len(real.objects)):
        image, category, box = real.objects[int(i)]
        if wanted[category, octave(box)] > 0:
            wanted[category, octave(box)] -= 1
            shown.append((real.images[image], box))
    rng.shuffle(shown)  # rare kinds fill up late: halves must not differ by that
    if len(parts) < 6 or len(shown) < 12:
        return {"parts": len(parts), "untouched": len(shown)}
    made, untouched = eye.vectors(parts), eye.vectors(shown)
    one, two = untouched[: len(untouched) // 2], untouched[len(untouched) // 2 :]
    mean, scale = untouched.mean(0), untouched.std(0) + 1e-6
    made_, one_, two_ = ((v - mean) / scale for v in (made, one, two))
    return {
        "parts": len(parts),
        "untouched": len(shown),
        "told_apart": told_apart(made, untouched),
        "halves_told_apart": told_apart(one, two),
        "kid": kid(made_, np.concatenate([one_, two_])),
        "kid_of_halves": kid(one_, two_),
        "variety": spread(made) / spread(untouched),
    }


def batches(arguments: argparse.Namespace, judge: str) -> Iterator[SynthesizeConfig]:
    """One per strength."""
    for text in arguments.strengths.split(","):
        strength = float(text)
        yield SynthesizeConfig(
            name=f"strength {strength:g}",
            budget=WANTED,
            attempts=ATTEMPTS,
            inpainter=arguments.inpainter if strength else "compose:",
            strength=strength if strength else None,
            judge=judge,
            device="cpu",
        )


def contact(store: Store, name: str) -> Image.Image:
    """The first samples of a batch, accepted ones first."""
    samples = sorted(store.samples(name=name), key=lambda s: s.number)
    found = [s for s in samples if s.accepted][:SHOWN] + [s for s in samples if not s.accepted][:SHOWN]
    pictures: list[Picture] = [pair(store, sample) for sample in found]
    rows, height = -(-len(pictures) // COLUMNS), SIDE // 2 + CAPTION
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, sample) in enumerate(zip(pictures, found, strict=True)):
        x, y = i % COLUMNS * SIDE, i // COLUMNS * height
        tile = Image.fromarray(read_bytes_as_pixels(thumbnail(picture.pixels, SIDE - 6, boxes=picture.boxes)))
        tile.thumbnail((SIDE - 6, height - CAPTION))
        sheet.paste(tile, (x, y))
        refused = ", ".join(v.check for v in sample.verdicts if not v.accepted)
        draw.text((x, y + height - CAPTION + 2), f"{sample.recipe}, {sample.group}"[:50], fill="black")
        draw.text((x, y + height - CAPTION + 14), f"refused: {refused}" if refused else "", fill="red")
    return sheet


def main() -> None:
    """Synthesize, judge, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("flowers", *sorted(EXPERIMENTS)), required=True)
    parser.add_argument("--inpainter", default="", help="needed for strengths above 0")
    parser.add_argument("--strengths", default="0")
    parser.add_argument("--judge", default="", help="spec of the second detector, in place of the set's")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.inpainter and any(float(s) for s in arguments.strengths.split(",")):
        parser.error("expected --inpainter for strengths above 0, got none")
    name = arguments.set
    judge = "pixels:" if name == "flowers" else MOBILENET.format(weights=SHARED / "data" / "weights")
    rows: list[dict[str, Any]] = []
    kept = ("inpainter", "strength", "accepted", "rejected", "unplaced", "plans", "per_recipe", "reasons")
    with tempfile.TemporaryDirectory() as folder, workspace(name, Path(folder)) as store:
        second = second_detector(name, arguments.judge)
        real = mined(store, second)
        for config in batches(arguments, judge):
            began = time.perf_counter()
            summary = pipeline.synthesize(store, config).summary
            seconds = time.perf_counter() - began
            accepted = [s for s in store.samples(name=config.name) if s.accepted]
            pictures = [image_tensor(read_bytes_as_pixels(store.blob(s.blob))) for s in accepted]
            row = {key: summary[key] for key in kept}
            row |= {"seconds": seconds, "seconds_per_accepted": seconds / max(len(accepted), 1)}
            row["looks"] = {}
            for recipe in sorted({s.recipe for s in accepted} - {"lookalike", "removal"}):
                own = [i for i, s in enumerate(accepted) if s.recipe == recipe]
                row["looks"][recipe] = looks([accepted[i] for i in own], [pictures[i] for i in own], real)
            if second is not None:
                row["labels"] = validity(store, accepted, pictures, second, real, name)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if arguments.sheet and len(rows) == 1:
                contact(store, config.name).save(arguments.sheet, quality=82)
    if arguments.out:
        found = {"set": name, "batches": rows, "machine": machine(), "versions": versions()}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
