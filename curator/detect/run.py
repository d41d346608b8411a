"""Detect: run the detector over the images of some roles and store what it found.

In: a `DetectConfig`. Out: one `DetectionSet` per image (detections after NMS with their candidates, and the
pin). Images are decoded by a small thread pool, ahead of the detector.
"""

from __future__ import annotations

import secrets
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from curator.config import require
from curator.detect.base import Detector
from curator.detect.checking import Answer, predict_each
from curator.detect.load import load_detector, load_same, trust_pickle
from curator.detect.settings import DetectConfig
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.tensors import image_tensor
from store.errors import StoreError
from store.images import read_pixels, readers
from store.keys import content_key
from store.records import ROLES, DetectionSet, ImageRecord, ModelRecord, Role

if TYPE_CHECKING:
    from store.store import Store

STAGE = "detect"
STAGE_VERSION = 2  # 2: answers are checked (curator.detect.checking)
DECODERS = 2  # threads
CHUNKS = 4  # forward passes per commit
UNVERSIONED = (
    "{detector} reports no version: nobody can tell whether it is the model of earlier runs, so every image "
    "was asked for anew, and will be next time"
)


@dataclass
class DetectWork:
    """Detects on images; plain data, so that it can run on another machine (`jobs.base.Work`).

    Attributes:
        fingerprint: of the detector that `spec` names.
        nonce: of a run whose detector cannot say for sure which model it is (`Detector.versioned`): no other
            run's results are taken for its own.
        chunk: images per forward pass. batch_size: images per commit, a few chunks, so that the next chunk
            is decoded while the detector works on this one.
    """

    spec: str
    fingerprint: str
    score_floor: float
    chunk: int
    batch_size: int
    nonce: str = ""

    @property
    def config_key(self) -> str:
        """Digest of all that changes detections but the image."""
        return content_key(STAGE, STAGE_VERSION, self.fingerprint, self.score_floor, *self._own)

    def key(self, item: ImageRecord) -> str:
        """Content key of one image's detections."""
        return content_key(STAGE, STAGE_VERSION, item.sha256, self.fingerprint, self.score_floor, *self._own)

    @property
    def _own(self) -> list[str]:
        return [self.nonce] if self.nonce else []

    def setup(self, device: str) -> Detector:
        """Load the detector.

        Raises:
            InputError: it is another than when the run began.
        """
        return load_same(self.spec, self.fingerprint, device, since="this run began")

    def process(self, state: Detector, batch: Sequence[ImageRecord]) -> list[Answer | Exception]:
        """Decode and detect; an unreadable image or a broken answer gives its error."""
        results: list[Answer | Exception] = []
        with ThreadPoolExecutor(readers((i.uri for i in batch), DECODERS), "decode") as pool:
            decoded = [pool.submit(_decode, item) for item in batch]
            for start in range(0, len(decoded), self.chunk):
                images = [future.result() for future in decoded[start : start + self.chunk]]
                found = iter(
                    predict_each(
                        state,
                        [image for image in images if isinstance(image, Tensor)],
                        score_threshold=self.score_floor,
                    )
                )
                results += [next(found) if isinstance(image, Tensor) else image for image in images]
        return results


def _decode(item: ImageRecord) -> Tensor | StoreError:
    try:
        return image_tensor(read_pixels(item.uri, sha256=item.sha256))
    except StoreError as error:
        return error


def detect(store: Store, config: DetectConfig, *, executor: Executor | None = None) -> StageResult:
    """Run `config.detector` over the images of `config.roles`.

    Returns:
        with the summary {"model", "detector", "fingerprint", "classes", "images", "detections",
        "per_class"}, counted over all images of the roles, stored earlier or now; "dropped_boxes" (without
        area) and "clipped_boxes" (reached beyond the image) of the images done now; "warnings".

    Raises:
        ConfigError: a role that is none, or holdout (only `verify` runs detectors there); a score floor below
            what the detector reports; trust in a file that is no pickle.
    """
    roles = _roles(config.roles)
    if config.trust_pickle:
        trust_pickle(config.detector)
    detector = load_detector(config.detector, config.device)
    ids = array("q")

    def items() -> Iterator[ImageRecord]:
        for page in store.iter_images(reader="detect", roles=roles):
            ids.extend(image.id for image in page)
            yield from page

    least = float(getattr(detector, "least_score", 0.0))
    require(
        config.score_floor >= least,
        f"--score-floor {config.score_floor:g}: {config.detector} reports nothing below {least:g}; expected "
        f"at least that",
    )
    versioned = getattr(detector, "versioned", True)
    work = DetectWork(
        spec=config.detector,
        fingerprint=detector.fingerprint,
        score_floor=config.score_floor,
        chunk=config.batch_size,
        batch_size=CHUNKS * config.batch_size,
        nonce="" if versioned else secrets.token_hex(16),
    )
    with recorded_run(
        store, STAGE, config, models=(detector.fingerprint,), config_key=work.config_key
    ) as (run_id, counts):
        model_id = store.put_model(config.detector, detector.fingerprint, detector.classes)
        left = Counter(dropped_boxes=0, clipped_boxes=0)

        def save(done: Done) -> None:
            answer: Answer = done.value
            store.put_detections(
                run_id,
                [
                    DetectionSet(
                        image_id=done.item.id,
                        model_id=model_id,
                        detections=answer.detections,
                        pin=answer.pin,
                        key=done.key,
                    )
                ],
            )
            left.update(dropped_boxes=answer.dropped, clipped_boxes=answer.clipped)

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=items(),
            save=save,
            image_id=lambda image: image.id,
            describe=lambda image: image.uri,
            device=config.device,
            executor=executor,
        )
        labels = store.count_labels(model_id, ids, config_key=work.config_key)
        per_class = {name: labels[i] for i, name in enumerate(detector.classes) if i in labels}
    return replace(
        result,
        summary={
            "model": model_id,
            "detector": config.detector,
            "read_as": getattr(detector, "read_as", ""),
            "fingerprint": detector.fingerprint,
            "classes": list(detector.classes),
            "images": len(ids),
            "detections": sum(per_class.values()),
            "per_class": per_class,
            **left,
            "warnings": [] if versioned else [UNVERSIONED.format(detector=config.detector)],
        },
    )


def score_floor(store: Store, sets: Iterable[DetectionSet]) -> float:
    """The highest floor that any of these detections were computed down to; 0 where no run says.

    A floor is part of a set's key, so the configuration of the run that stored a set holds its floor.
    """
    used = {found.run_id for found in sets}
    floors = [run.config.get("score_floor", 0.0) for run in store.runs(stage=STAGE) if run.id in used]
    return float(max(floors, default=0.0))


def why_missing(store: Store, model: ModelRecord, image_ids: Collection[int]) -> dict[int, str]:
    """Of these images those on which this model's `detect` failed, with the newest reason."""
    reasons: dict[int, str] = {}
    for run in store.runs(stage=STAGE):  # newest first
        if model.fingerprint in run.models and run.config.get("detector") == model.spec:
            for item in store.failed_items(run.id):
                if item.image_id is not None and item.image_id in image_ids:
                    reasons.setdefault(item.image_id, item.message or "")
    return reasons


def _roles(names: Sequence[str]) -> list[Role]:
    known = [role for role in ROLES if role != "holdout"]
    for name in names:
        require(
            name in known,
            f"--role: expected some of {', '.join(known)}, got {name!r}"
            + (" (only `curator verify` may look at the holdout)" if name == "holdout" else ""),
        )
    require(bool(names), f"--role: expected at least one of {', '.join(known)}")
    return [role for role in known if role in names]
