"""What a detector sees and offers on every image of a set, once, in the cache folder of `query_real.py`.

In: a `Labelled` set, a detector. Out: a `Look`: per image what the product's `index` embeds (with twice as
many candidates and windows as it keeps, for ablations) in whole vectors, and the outcomes of the product's
own diagnosis with theirs. `packed` makes of it what the product stores: at most 32 candidates and 20 windows
an image, int8 of 24 principal components, fitted on the mined images' boxes alone.

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
from curator.query.index_work import EmbedWork, IndexedOutcome, IndexItem
from curator.represent.projection import Projection
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import BoxTuple, Floats, ImageRecord, Ints, Outcome, TargetRecord
from store.records.box_rows import CLASSES, ImageBoxes

VERSION = 2
CANDIDATES, WINDOWS = 64, 40  # kept for ablations; the product keeps half
EMBEDDER = "detector:"
FLOOR = 0.01  # of the detections that are diagnosed
CRITERIA = Criteria()


@dataclass(frozen=True, kw_only=True)
class Look:
    """One detector's look at a set.

    Attributes:
        sha256: of image 0, 1, ... sizes: (I, 2) height and width.
        failures, candidates, windows: (I,) how many boxes of each kind an image has: in `boxes` those of its
            outcomes, its candidates by falling score, its windows.
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


class LookWork(EmbedWork):
    """The product's embedding work; keeps boxes, classes and whole vectors."""

    def _image(self, state: Any, item: IndexItem, pixels: NDArray[np.uint8]) -> Any:
        _, boxes, (labels, scores), raw = self._embedded(state, item, pixels)
        return boxes, labels, scores, raw


def look(dataset: Labelled, detector: Detector) -> Look:
    """Detect, diagnose, embed: all images, one by one."""
    start = time.perf_counter()
    answers = []
    for image in dataset.images:
        answers += predict_all(detector, [_pixels(image)], score_threshold=FLOOR)
        _tell("detect", len(answers), len(dataset.images), start)
    outcomes, lows = _diagnosed(dataset, detector, answers)
    _tell("diagnose", 1, 1, start)
    work = LookWork(
        detector=detector.spec,
        fingerprint=detector.fingerprint,
        embedder=EMBEDDER,
        candidates=CANDIDATES,
        windows=WINDOWS,
        batch_size=1,
    )
    state = work.setup("cpu")
    parts: dict[str, list[Any]] = {"boxes": [], "labels": [], "scores": [], "counts": []}
    views: dict[str, list[NDArray[np.float16]]] = {}
    for image, own in zip(dataset.images, outcomes, strict=True):
        item = IndexItem(
            image_id=image.id,
            uri=image.uri,
            sha256=image.sha256,
            outcomes=tuple(IndexedOutcome(id=0, key="", box=o.box) for o in own),
        )
        (found,) = work.process(state, [item])
        if isinstance(found, Exception):
            raise found
        boxes, labels, scores, raw = found
        for name, value in (
            ("boxes", boxes),
            ("labels", labels),
            ("scores", scores),
            ("counts", (len(own), len(labels), len(boxes) - len(labels) - len(own))),
        ):
            parts[name].append(value)
        for name, vectors in raw.items():
            views.setdefault(name, []).append(vectors.astype(np.float16))
        _tell("embed", len(parts["counts"]), len(dataset.images), start)
    counts = np.array(parts["counts"], np.int64)
    flat = [o for own in outcomes for o in own]
    vocabulary = dict.fromkeys(word for words in dataset.vocabulary for word in words)
    classes = ClassMap.resolve(detector.classes, tuple(vocabulary), MAPS.get(dataset.name, {}))
    return Look(
        sha256=tuple(image.sha256 for image in dataset.images),
        sizes=np.array([(image.height, image.width) for image in dataset.images], np.int64),
        failures=counts[:, 0],
        candidates=counts[:, 1],
        windows=counts[:, 2],
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
            [(dataset.images[i], dataset.annotations[i], None) for i in own],
            [(answers[i].detections, answers[i].pin) for i in own],
            ClassMap.resolve(detector.classes, words, named),
            CRITERIA,
        )
        lows.append(low)
        for i, judged in zip(own, found, strict=True):
            outcomes[i] = judged
    return outcomes, lows


def _pixels(image: ImageRecord) -> torch.Tensor:
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
    starts = np.concatenate([[0], np.cumsum(seen.failures + seen.candidates + seen.windows)])
    first = np.concatenate([[0], np.cumsum(seen.candidates)])
    of_image = []
    for i, start in enumerate(starts[:-1]):
        candidates = start + seen.failures[i] + np.arange(min(seen.candidates[i], packing.candidates))
        window = start + seen.failures[i] + seen.candidates[i]
        windows = window + np.arange(min(seen.windows[i], packing.windows))
        of_image.append((np.concatenate([candidates, windows]), start + np.arange(seen.failures[i])))
    fitted_on = np.concatenate([of_image[i][0] for i in mined])
    views: dict[str, NDArray[np.int8]] = {}
    whole: dict[str, NDArray[np.int8]] = {}
    for view in packing.views:
        vectors = seen.views[view]
        own = whole if len(vectors) == len(of_image) else views
        sample = vectors[mined if own is whole else fitted_on]
        own[view] = Projection.fit(sample, packing.components)(vectors)
    offered, outcomes = [], []
    identifier = 0
    for i, (rows, failing) in enumerate(of_image):
        n = int(min(seen.candidates[i], packing.candidates))
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
                boxes=seen.boxes[failing],
                labels=np.zeros((0, CLASSES), np.int64),
                scores=np.zeros((0, CLASSES), np.float32),
                views={view: values[failing] for view, values in views.items()},
                outcome_ids=identifier + np.arange(len(failing), dtype=np.int64),
                **common,
            )
        )
        identifier += len(failing)
    return Packed(offered=tuple(offered), outcomes=tuple(outcomes))


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
