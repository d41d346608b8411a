"""What a detector sees and offers on every image of a set, once, in the cache folder of `query_real.py`.

In: a `Labelled` set, a detector. Out: a `Look`: per image the product's candidates and salient windows (twice
as many as it keeps, for ablations) with whole vectors, and the outcomes of the product's own diagnosis with
theirs. `packed` makes of it what the product stores: at most 32 candidates and 20 windows an image, int8 of
24 principal components, fitted on the mined images' boxes alone.

    python benchmarks/query_looks.py SET DETECTOR [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from query_sets import CACHE, MAPS, Labelled, detector_spec, read, train

from curator.detect.base import Detector
from curator.detect.checking import Answer, predict_all
from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria
from curator.diagnose.work import diagnose_predicted
from curator.matching import ClassMap
from curator.query.index_work import salient_windows
from curator.registry import Spec
from curator.represent.embedders.detector import DetectorEmbedder
from curator.represent.proposals import distinct
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import BoxTuple, Floats, Ints, Outcome, TargetRecord
from store.records.box_rows import CLASSES, VIEW_SCALE, BoxRows, ImageBoxes

VERSION = 1
CANDIDATES, WINDOWS = 64, 40  # kept for ablations; the product keeps half
OVERLAP = 0.6
SEEN, STORED = 1e-4, 0.01  # floors of candidates, and of the detections that are diagnosed
CRITERIA = Criteria()


@dataclass(frozen=True, kw_only=True)
class Look:
    """One detector's look at a set.

    Attributes:
        sha256: of image 0, 1, ... sizes: (I, 2) height and width.
        candidates, windows, failures: (I,) how many boxes of each kind an image has: in `boxes` its
            candidates by falling score, its windows, its outcomes' boxes.
        labels, scores: (all candidates, 5). views: view -> (N, D) float16; "image" (I, D).
        outcomes: of all images, in the order of their boxes; an outcome's id is its place.
        labels_of: class of the set -> the detector's labels.
        facts: how it was made.
    """

    sha256: tuple[str, ...]
    sizes: Ints
    candidates: Ints
    windows: Ints
    failures: Ints
    boxes: Floats
    labels: Ints
    scores: Floats
    views: dict[str, NDArray[np.float16]]
    outcomes: tuple[Outcome, ...]
    labels_of: dict[str, tuple[int, ...]]
    facts: dict[str, Any]


def look(dataset: Labelled, detector: Detector) -> Look:
    """Detect, diagnose, embed: all images, one by one."""
    start = time.perf_counter()
    answers = []
    for image in dataset.images:
        answers += predict_all(detector, [_pixels(image)], score_threshold=SEEN)
        _tell("detect", len(answers), len(dataset.images), start)
    outcomes, lows = _diagnosed(dataset, detector, answers)
    _tell("diagnose", 1, 1, start)
    embedder = DetectorEmbedder(Spec.parse("detector:"), detector)
    parts: dict[str, list[Any]] = {"boxes": [], "labels": [], "scores": [], "counts": []}
    views: dict[str, list[NDArray[np.float16]]] = {}
    for i, (image, answer) in enumerate(zip(dataset.images, answers, strict=True)):
        found, pin = answer.detections, answer.pin
        chosen = found.take(np.array(distinct(found.boxes, CANDIDATES, OVERLAP), np.int64))
        u = detector.prepare(_pixels(image), pin)[None]
        windows = salient_windows(u, [pin], WINDOWS)[0]
        own = np.array([o.box for o in outcomes[i]], np.float32).reshape(-1, 4)
        boxes = np.concatenate([chosen.boxes, windows, own]).astype(np.float32)
        labels, scores = top_classes(detector, u, answer, chosen.candidates)
        for name, value in (
            ("boxes", boxes),
            ("labels", labels),
            ("scores", scores),
            ("counts", (len(chosen), len(windows), len(own))),
        ):
            parts[name].append(value)
        for name, vectors in embedder.embed(u, [pin], [boxes])[0].items():
            views.setdefault(name, []).append(vectors.astype(np.float16))
        _tell("embed", i + 1, len(dataset.images), start)
    counts = np.array(parts["counts"], np.int64)
    flat = [o for own in outcomes for o in own]
    vocabulary = dict.fromkeys(word for words in dataset.vocabulary for word in words)
    classes = ClassMap.resolve(detector.classes, tuple(vocabulary), MAPS.get(dataset.name, {}))
    return Look(
        sha256=tuple(image.sha256 for image in dataset.images),
        sizes=np.array([(image.height, image.width) for image in dataset.images], np.int64),
        candidates=counts[:, 0],
        windows=counts[:, 1],
        failures=counts[:, 2],
        boxes=np.concatenate(parts["boxes"]),
        labels=np.concatenate(parts["labels"]),
        scores=np.concatenate(parts["scores"]),
        views={name: np.concatenate(values) for name, values in views.items()},
        outcomes=tuple(replace(o, id=number) for number, o in enumerate(flat)),
        labels_of={
            name: tuple(classes.labels_of(c).tolist())
            for c, name in enumerate(classes.categories)
            if name not in classes.missing
        },
        facts={
            "fingerprint": detector.fingerprint,
            "version": VERSION,
            "low_scores": lows,
            "seconds": round(time.perf_counter() - start),
            "broken_images": dataset.broken,
            "objects": sum(len(own) for own in dataset.annotations),
        },
    )


def _diagnosed(
    dataset: Labelled, detector: Detector, answers: Sequence[Answer]
) -> tuple[list[list[Outcome]], list[float]]:
    """Outcomes per image; images with other classes labelled are diagnosed apart, with their own t_low."""
    outcomes: list[list[Outcome]] = [[] for _ in dataset.images]
    lows = []
    for words in dict.fromkeys(dataset.vocabulary):
        own = [i for i, known in enumerate(dataset.vocabulary) if known == words]
        named = {k: v for k, v in MAPS.get(dataset.name, {}).items() if v in words}
        found, low = diagnose_predicted(
            detector,
            [(dataset.images[i], dataset.annotations[i]) for i in own],
            [
                (answers[i].detections.take(answers[i].detections.scores >= STORED), answers[i].pin)
                for i in own
            ],
            ClassMap.resolve(detector.classes, words, named),
            CRITERIA,
        )
        lows.append(low)
        for i, judged in zip(own, found, strict=True):
            outcomes[i] = judged
    return outcomes, lows


def top_classes(detector: Detector, u: torch.Tensor, answer: Answer, candidates: Ints) -> tuple[Ints, Floats]:
    """The five best classes of candidates -> labels, scores, both (C, 5); -1 and 0 where there are fewer."""
    labels = np.full((len(candidates), CLASSES), -1, np.int64)
    scores = np.zeros((len(candidates), CLASSES), np.float32)
    if len(candidates):
        with torch.no_grad():
            every = detector.candidates(u, answer.pin, index=torch.from_numpy(candidates)).scores[0]
        best = every.float().topk(min(CLASSES, every.shape[1]), dim=1)
        labels[:, : best.indices.shape[1]] = best.indices.numpy()
        scores[:, : best.indices.shape[1]] = best.values.numpy()
    return labels, scores


def _pixels(image: Any) -> torch.Tensor:
    return image_tensor(read_pixels(image.uri, sha256=image.sha256))


def _tell(what: str, done: int, of: int, start: float) -> None:
    if done % 100 == 0 or done == of:
        print(f"{what} {done}/{of}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def cached(name: str, detector: str, folder: Path = CACHE) -> Look:
    """The look of a detector at a set; made, and stored, where the cache has none of this version."""
    file = folder / f"{name}-{detector}-{VERSION}.npz"
    if not file.is_file():
        if detector == "ssd":
            train(name, folder)
        _write(look(read(name), load_detector(detector_spec(detector, name, folder), "cpu")), file)
    return _read(file)


def _write(seen: Look, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"view/{name}": values for name, values in seen.views.items()}
    for name in ("sizes", "candidates", "windows", "failures", "boxes", "labels", "scores"):
        arrays[name] = getattr(seen, name)
    plain = {
        "sha256": seen.sha256,
        "outcomes": [asdict(o) for o in seen.outcomes],
        "labels_of": seen.labels_of,
        "facts": seen.facts,
    }
    part = file.with_name(f".{file.name}")
    with part.open("wb") as stream:
        arrays["plain"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez(stream, allow_pickle=False, **arrays)
    part.replace(file)


def _read(file: Path) -> Look:
    with np.load(file) as stored:
        plain = json.loads(stored["plain"].tobytes())
        arrays = {name: stored[name] for name in stored.files if name != "plain"}
    return Look(
        sha256=tuple(plain["sha256"]),
        outcomes=tuple(_outcome(row) for row in plain["outcomes"]),
        labels_of={name: tuple(own) for name, own in plain["labels_of"].items()},
        facts=plain["facts"],
        views={name.removeprefix("view/"): v for name, v in arrays.items() if name.startswith("view/")},
        **{name: value for name, value in arrays.items() if not name.startswith("view/")},
    )


def _outcome(row: dict[str, Any]) -> Outcome:
    box: BoxTuple = tuple(row["box"])
    return Outcome(**{**row, "box": box, "target": TargetRecord(**row["target"])})


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What is kept of a look: boxes an image, components a view."""

    candidates: int = 32
    windows: int = 20
    components: int = 24
    views: tuple[str, ...] = ("object", "context", "image")


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The boxes that images offer and those of their outcomes, one entry an image."""

    offered: tuple[ImageBoxes, ...]
    outcomes: tuple[ImageBoxes, ...]


def packed(seen: Look, mined: Ints, packing: Packing) -> Packed:
    """What the product would store.

    Args:
        mined: places of the images whose offered boxes the components are fitted on.
    """
    counts = np.stack([seen.candidates, seen.windows, seen.failures], axis=1)  # (I, 3)
    starts = np.concatenate([[0], np.cumsum(counts.sum(1))])
    kept = np.minimum(counts[:, :2], (packing.candidates, packing.windows))
    first = np.concatenate([[0], np.cumsum(seen.candidates)])
    of_image = []
    for i in range(len(counts)):
        candidates = starts[i] + np.arange(kept[i, 0])
        windows = starts[i] + counts[i, 0] + np.arange(kept[i, 1])
        own = starts[i] + counts[i, :2].sum() + np.arange(counts[i, 2])
        of_image.append((np.concatenate([candidates, windows]), own))
    fitted_on = np.concatenate([of_image[i][0] for i in mined])
    views: dict[str, NDArray[np.int8]] = {}
    whole: dict[str, NDArray[np.int8]] = {}
    for view in packing.views:
        vectors = seen.views[view]
        sample = vectors[mined if view == "image" else fitted_on]
        (whole if view == "image" else views)[view] = projected(vectors, sample, packing.components)
    offered, outcomes = [], []
    identifier = 0
    for i, (rows, own) in enumerate(of_image):
        n = int(kept[i, 0])
        common: dict[str, Any] = {
            "image_id": i,
            "key": seen.sha256[i],
            "size": (int(seen.sizes[i, 0]), int(seen.sizes[i, 1])),
            "image_views": {view: values[i] for view, values in whole.items()},
        }
        offered.append(
            ImageBoxes(
                boxes=seen.boxes[rows],
                labels=seen.labels[first[i] : first[i] + n],
                scores=seen.scores[first[i] : first[i] + n],
                views={view: values[rows] for view, values in views.items()},
                **common,
            )
        )
        outcomes.append(
            ImageBoxes(
                boxes=seen.boxes[own],
                labels=np.zeros((0, CLASSES), np.int64),
                scores=np.zeros((0, CLASSES), np.float32),
                views={view: values[own] for view, values in views.items()},
                outcome_ids=identifier + np.arange(len(own), dtype=np.int64),
                **common,
            )
        )
        identifier += len(own)
    return Packed(offered=tuple(offered), outcomes=tuple(outcomes))


def projected(vectors: NDArray[np.float16], sample: NDArray[np.float16], components: int) -> NDArray[np.int8]:
    """int8 of principal components, each of unit deviation in the sample, of standardised vectors (N, D)."""
    data = np.asarray(sample, np.float64)
    mean, deviation = data.mean(0), data.std(0)
    deviation = np.where(deviation > 1e-6 * max(1.0, float(deviation.max())), deviation, np.inf)
    standard = (data - mean) / deviation
    values, basis = np.linalg.eigh(standard.T @ standard / len(standard))
    order = np.argsort(-values)[:components]
    matrix = basis[:, order] / np.sqrt(np.maximum(values[order], 1e-9)) / deviation[:, None]
    turned = np.asarray(vectors, np.float32) @ matrix.astype(np.float32) - (mean @ matrix).astype(np.float32)
    return np.asarray(np.clip(np.rint(VIEW_SCALE * turned), -127, 127), np.int8)


def rows_of(images: Sequence[ImageBoxes], places: Ints) -> BoxRows:
    """`BoxRows` of the images at these places."""
    return BoxRows.of([images[i] for i in places.tolist()])


def main() -> None:
    """Fill the cache."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("detector")
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen = cached(arguments.dataset, arguments.detector, arguments.cache.expanduser())
    kinds = Counter(f"{o.kind}:{o.cause}" for o in seen.outcomes)
    print(len(seen.sha256), "images", seen.facts, dict(kinds.most_common()))


if __name__ == "__main__":
    main()
