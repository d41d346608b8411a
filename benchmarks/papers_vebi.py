"""VEBI (Oramas, Wang & Tuytelaars, ICLR 2019): Figs. 4, 5, 8 and 9 and the box occlusion of 4.2, in kind.

In: a `Setting`. Out: a `Part`. The interpretation is fitted by `curator interpret` on clean training scenes;
everything is measured on found objects of other clean scenes.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explain_groundtruth import part_row
from numpy.typing import NDArray
from papers_scenes import (
    DATA,
    Part,
    SceneCase,
    Setting,
    Table,
    detector_of,
    maps_of,
    mean_of,
    scene_cases,
    sheet,
    shown,
    targets_of,
)
from PIL import Image
from torch import Tensor, nn

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.base import Detector
from curator.example.dataset import scenes, write_dataset
from curator.explain.base import Target
from curator.explain.features.base import Interpretation, Responses
from curator.explain.features.relevant import measure
from curator.explain.fills.fill import MeanFill
from curator.explain.measures.ablation import ablation_curve, random_ablation_curve
from curator.explain.measures.perturbation import box_occlusion, hider
from curator.explain.run_interpret import interpret as run_interpret
from curator.explain.segments import slic_segments
from curator.explain.settings import InterpretConfig
from curator.explain.target import TargetScores
from curator.represent.pixel_maps import map_pixels
from curator.tensors import image_pixels, image_tensor
from store.records import Pin
from store.store import Store

Filter = tuple[str, int]
COUNTS = (0, 1, 2, 4, 8, 16, 32, 64)
MU = 10.0
_TRAIN_SEED = 11  # added to the run's: training scenes are never test scenes
_BATCH = 16
TITLES = {
    "VEBI": "VEBI",
    "its features, Deconv+GB": "Deconv+GB",
    "its features, upsampled activation": "activation",
    "guided backprop of the score, stride fix": "score, fixed",
    "guided backprop of the score": "score, guided",
    "ODAM (modern rival)": "ODAM",
}


class Ablated(Responses):
    """While entered, some filters answer 0, after the normalisation and activation that follow."""

    def __init__(self, network: nn.Module, filters: Collection[Filter]) -> None:
        self._removed: dict[str, list[int]] = {}
        for layer, channel in filters:
            self._removed.setdefault(layer, []).append(channel)
        super().__init__(network, tuple(self._removed))

    def _record(self, layer: str, output: Tensor) -> Tensor:
        passed_on = super()._record(layer, output)
        passed_on[:, self._removed[layer]] = 0
        return passed_on


def vebi(setting: Setting) -> Part:
    """Figs. 4, 5, 8, 9 and 4.2."""
    detector = detector_of()
    out, summary = fitted_interpretation(setting, setting.pick(120, 400))
    fitted = Interpretation.load(out)
    print("vebi: fitted", file=sys.stderr, flush=True)
    cases = [
        case
        for case in scene_cases(setting, detector, setting.pick(60, 240), clean=True)
        if case.of_kind("TP")
    ]
    part = Part()
    _ablation(part, setting, detector, fitted, cases, summary)
    _average_images(part, setting, out, summary)
    _explanations(part, setting, detector, out, cases[: setting.pick(8, 40)])
    return part


def fitted_interpretation(setting: Setting, count: int) -> tuple[Path, dict[str, Any]]:
    """Fit on `count` clean training scenes: the folder that `curator interpret` writes, and its summary."""
    seed = setting.seed + _TRAIN_SEED
    path, out = setting.work / f"train-{seed}-{count}", setting.work / f"interpretation-{seed}-{count}"
    exists = (path / "workspace.json").exists()
    store = Store.open(path) if exists else Store.create(path)
    with store:
        if not exists:
            data = write_dataset(
                setting.work / f"data-train-{seed}-{count}", sizes={"train": count}, seed=seed
            )
            pipeline.add(store, AddConfig(format="coco", path=data["train"], role="train"))
        config = InterpretConfig(detector="builtin:", roles=("train",), mu=MU, out=out)
        summary = run_interpret(store, config).summary
    return out, dict(summary or {})


# ------------------------------------------------------------------- Fig. 4


def _ablation(
    part: Part,
    setting: Setting,
    detector: Detector,
    fitted: Interpretation,
    cases: Sequence[SceneCase],
    summary: Mapping[str, Any],
) -> None:
    ranked = ranked_filters(setting, detector, fitted, setting.pick(60, 200))
    pool = [(layer, c) for layer, n in zip(fitted.layers, fitted.channels, strict=True) for c in range(n)]
    counts = [count for count in COUNTS if count <= len(ranked)]
    if counts[-1] != len(ranked):
        counts.append(len(ranked))
    pairs = [
        (case.image, target)
        for case in cases[: setting.pick(16, 80)]
        for target in targets_of(case.of_kind("TP"))
    ]
    network = detector.modules()
    assert network is not None
    pin = cases[0].pin  # scenes of one size have one pin

    def accuracy(removed: Sequence[Filter]) -> float:
        with torch.no_grad(), Ablated(network, removed):
            return recognised(detector, pin, pairs)

    relevant = ablation_curve(accuracy, ranked, counts)
    draws = setting.pick(3, 5)
    at_random = random_ablation_curve(accuracy, pool, counts, draws=draws, seed=setting.seed)
    part.tables["Fig. 4: accuracy as filters are removed"] = Table(
        f"{DATA}; mu = {MU:g}, fitted on {summary['samples']} labelled objects of clean training scenes; "
        f"{len(ranked)} relevant filters of {len(pool)}, the largest mean |contribution| first; random: mean "
        f"of {draws} draws from all filters. Accuracy: of {len(pairs)} found objects, the share whose "
        f"candidate still has its class on top (background included). The paper's 'OnlyConv' has no "
        f"counterpart: this network has no fully connected layer. The paper: MNIST, ImageNet, Fashion144k.",
        [
            {"removed": int(n), "relevant": float(a), "random": float(b)}
            for n, a, b in zip(relevant.counts, relevant.scores, at_random.scores, strict=True)
        ],
    )
    gap = float((at_random.scores - relevant.scores)[1:].mean())
    part.claim(
        "Fig. 4: removing relevant filters costs more accuracy than removing random ones (mean difference)",
        "> 0",
        gap,
        gap > 0,
    )
    loss = float(relevant.scores[0] - relevant.scores[-1])
    part.claim("Fig. 4: accuracy lost with all relevant filters removed", "> 0", loss, loss > 0)


def ranked_filters(setting: Setting, detector: Detector, fitted: Interpretation, count: int) -> list[Filter]:
    """Filters of non-zero weight by their largest mean |w_j o x| of a class, over clean training scenes."""
    rows, labels = [], []
    for scene in scenes("train", count, seed=setting.seed + _TRAIN_SEED):
        stored = image_tensor(scene.pixels)
        pin = Pin(image_size=(192, 192), input_size=(192, 192), scale=(1.0, 1.0))
        boxes = np.array([a.box for a in scene.annotations])
        x, _ = measure(
            detector, detector.prepare(stored, pin), pin, boxes, layers=fitted.layers, source=fitted.source
        )
        rows.append(x)
        labels += [[a.category == name for name in detector.classes] for a in scene.annotations]
    x, own = np.concatenate(rows), np.array(labels)
    strongest = np.zeros(len(fitted.weights))
    for label in np.flatnonzero(own.any(0)):
        contribution = np.abs(fitted.weights[:, label]) * x[own[:, label]].mean(
            0
        )  # a filter may speak against
        strongest = np.maximum(strongest, contribution)
    relevant = np.flatnonzero(strongest)
    order = relevant[np.argsort(-strongest[relevant], kind="stable")]
    return [fitted.filter_of(int(feature)) for feature in order]


def recognised(detector: Detector, pin: Pin, pairs: Sequence[tuple[Tensor, Target]]) -> float:
    """Share of (image, target) whose candidate's top-1 label, background included, is the target's."""
    hits = 0
    for start in range(0, len(pairs), _BATCH):
        some = pairs[start : start + _BATCH]
        unique = sorted({target.candidate for _, target in some})
        u = torch.stack([image for image, _ in some])
        scores = detector.candidates(u, pin, index=torch.tensor(unique)).scores  # (n, q, K)
        rows = torch.tensor([unique.index(target.candidate) for _, target in some])
        own = scores[torch.arange(len(some)), rows]  # (n, K): each its own candidate
        top = torch.cat([own, 1 - own.sum(-1, keepdim=True)], -1).argmax(-1)
        hits += int((top == torch.tensor([target.label for _, target in some])).sum())
    return hits / len(pairs)


# ------------------------------------------------------------------- Fig. 5


def _average_images(part: Part, setting: Setting, out: Path, summary: Mapping[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    pictures: list[dict[str, NDArray[np.uint8]]] = []
    for described in summary["classes"]:
        row: dict[str, NDArray[np.uint8]] = {}
        for rank, feature in enumerate(described["features"]):
            if not feature["average_image"]:
                continue
            average = np.asarray(Image.open(out / feature["average_image"]).convert("RGB"))
            row[f"{described['class']} {rank + 1}"] = average
            rows.append(
                {
                    "class": described["class"],
                    "rank": rank + 1,
                    "layer": feature["layer"],
                    "channel": feature["channel"],
                    "contribution": float(feature["contribution"]),
                    "patches": feature["patches"],
                    "receptive_field_px": float(feature["receptive_field"][0]),
                    "deviation": float(average.std(axis=(0, 1)).mean() / 255),
                }
            )
        pictures.append(row)
    sheet(setting.pictures, "papers_vebi_average_images.png", pictures)
    part.tables["Fig. 5: average images of the classes' most relevant filters"] = Table(
        f"{DATA}; mean of the patches around the largest responses (at most 100, one per object), crops of "
        f"the measured receptive field; deviation: of the average image's pixels, 0 to 1 (a flat one shows "
        f"nothing). Interpretation's accuracy on what it was fitted on: {summary['accuracy']}.",
        rows,
    )


# ------------------------------------------------------------------- Figs. 8 and 9, section 4.2


def _explanations(
    part: Part, setting: Setting, detector: Detector, out: Path, cases: Sequence[SceneCase]
) -> None:
    methods = {
        "VEBI": f"vebi?model={out}",
        "its features, Deconv+GB": f"vebi?model={out}&visual=guided",
        "its features, upsampled activation": f"vebi?model={out}&visual=activation",
        "guided backprop of the score, stride fix": "guided",
        "guided backprop of the score": "guided?stride_fix=0",
        "ODAM (modern rival)": "odam",
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    pictures = []
    for number, case in enumerate(cases):
        outcomes = case.of_kind("TP")
        targets = targets_of(outcomes)
        labels = slic_segments(case.image, case.pin, 50)
        scores = TargetScores(detector, case.pin, targets)
        hide = hider(MeanFill(), case.image, detector, seed=0)
        picture = {"scene": image_pixels(case.image)}
        for name, method in methods.items():
            maps, seconds = maps_of(method, detector, case.image, case.pin, case.key, labels, targets)
            pixels = [map_pixels(found, labels, case.pin.input_size) for found in maps]
            occluded = box_occlusion(scores, hide, pixels, keys=(setting.seed,))
            for outcome, found, curve in zip(outcomes, maps, occluded, strict=True):
                measured = part_row(case.scene, outcome, found, labels)
                rows[name].append({**measured, "occluded": curve.area, "seconds": seconds})
            picture[TITLES[name]] = shown(case.image, maps[0], labels)
        if number < 3:
            pictures.append(picture)
        print(f"vebi {number + 1}/{len(cases)}", file=sys.stderr, flush=True)
    sheet(setting.pictures, "papers_vebi.png", pictures)
    figures = ("overlap_area", "points", "energy", "occluded", "seconds")
    table = {
        name: {figure: mean_of([float(row[figure]) for row in own]) for figure in figures}
        for name, own in rows.items()
    }
    part.tables["Figs. 8, 9 and 4.2: explanations against the parts that bear the class"] = Table(
        f"{DATA}, {len(rows['VEBI'])} found objects of {len(cases)} clean scenes; the mask is the part that "
        f"bears the class's colour. overlap_area: under IoU against threshold; points: peak within 4 px; "
        f"energy: mass inside; occluded: mean probability while patches of 9 px drawn from the map hide up "
        f"to 30% of the image (lower: the map finds what matters). One feature a target, as the paper shows "
        f"them. The paper on an8Flower: 0.15 and 0.19 (activation), 0.22 and 0.20 (Deconv+GB), 0.23, 0.21.",
        [{"method": name, "n": len(rows[name]), **values} for name, values in table.items()],
    )
    own, guided, activation = list(table.values())[:3]
    for rival, values in (("Deconv+GB", guided), ("upsampled activation", activation)):
        gain = float(own["overlap_area"] or 0) - float(values["overlap_area"] or 0)
        part.claim(f"Figs. 8, 9: area under IoU, VEBI - {rival}", "> 0", gain, gain > 0)
    change = float(own["occluded"] or 0) - float(guided["occluded"] or 0)
    part.claim(
        "4.2: box occlusion, mean probability, VEBI - Deconv+GB (the fix costs no focus)",
        "within 0.02",
        change,
        abs(change) <= 0.02,
    )
