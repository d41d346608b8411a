"""What a worker of `diagnose` does: outcomes of images with their causes.

In: `DiagnoseItem`s. Out: `Outcome`s. Only images with a missed object are looked at again by the detector.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from curator.detect.base import Detector
from curator.detect.checking import refuse_broken
from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria, RawCandidates, background_scores, diagnose_image, low_score
from curator.errors import StageError
from curator.matching import ClassMap, GroundTruth, ImageResult
from curator.tensors import image_tensor
from store.images import read_pixels
from store.keys import content_key
from store.records import Annotation, Detections, ImageRecord, Outcome, Pin

STAGE = "diagnose"
STAGE_VERSION = 1
CALIBRATION_IMAGES = 16  # images whose background sets t_low


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnoseItem:
    """One image with what is known of it; the keys say which annotations and detections these are.

    Attributes:
        labelled: classes that its labels speak of; None for all.
    """

    image: ImageRecord
    annotations: tuple[Annotation, ...]
    annotation_key: str
    detections: Detections
    pin: Pin
    detection_key: str
    labelled: frozenset[str] | None = None


@dataclass
class DiagnoseWork:
    """Diagnoses images; plain data, so that it can run on another machine (`jobs.base.Work`)."""

    spec: str
    model_id: int
    classes: ClassMap
    criteria: Criteria
    detections_key: str
    batch_size: int = 32

    @property
    def config_key(self) -> str:
        """Digest of all that changes outcomes but the image and its labels."""
        return content_key(STAGE, STAGE_VERSION, self.detections_key, self.criteria, self.classes.pairs())

    def key(self, item: DiagnoseItem) -> str:
        """Content key: image, annotations, detections (hence the model), thresholds and class map."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            item.image.sha256,
            item.annotation_key,
            item.detection_key,
            self.criteria,
            self.classes.within(item.labelled).pairs(),
        )

    def setup(self, device: str) -> Detector:
        """Load the detector."""
        return load_detector(self.spec, device)

    def process(self, state: Detector, batch: Sequence[DiagnoseItem]) -> list[list[Outcome] | Exception]:
        """Outcomes of each image, or why there are none."""
        results: list[list[Outcome] | Exception] = []
        for item in batch:
            try:
                results.append(self._outcomes(state, item))
            except Exception as error:
                results.append(error)
        return results

    def _outcomes(self, state: Detector, item: DiagnoseItem) -> list[Outcome]:
        found = item.detections  # `detect` checks them now; those of an older workspace may be unchecked
        refuse_broken(found.boxes, found.scores, found.labels, classes=state.classes, who=self.spec)
        return diagnose_image(
            item.detections,
            item.annotations,
            self.classes.within(item.labelled),
            self.criteria,
            lambda: raw_candidates(state, item.image, item.pin),
            image_id=item.image.id,
            model_id=self.model_id,
        )


def raw_candidates(detector: Detector, image: ImageRecord, pin: Pin) -> RawCandidates:
    """Every candidate of one image, before threshold and NMS: boxes (A, 4) or (A, K, 4), scores (A, K)."""
    pixels = image_tensor(read_pixels(image.uri, sha256=image.sha256)).to(_device(detector))
    with torch.no_grad():
        found = detector.candidates(detector.prepare(pixels, pin)[None], pin)
    boxes, scores = found.boxes[0].float().cpu().numpy(), found.scores[0].float().cpu().numpy()
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise StageError(f"{detector.spec}: expected finite candidates (boxes, scores), got nan or infinity")
    return boxes, scores


def _device(detector: Detector) -> torch.device:
    module = detector.modules()
    parameter = next(module.parameters(), None) if module is not None else None
    return parameter.device if parameter is not None else torch.device("cpu")


def calibrate(
    detector: Detector, items: Sequence[DiagnoseItem], classes: ClassMap, criteria: Criteria
) -> float:
    """t_low of this detector, from the background of a few images (those with the smallest hashes)."""
    chosen = sorted(items, key=lambda item: item.image.sha256)[:CALIBRATION_IMAGES]
    scores = []
    for item in chosen:
        try:
            raw = raw_candidates(detector, item.image, item.pin)
        except Exception:  # the items' business: there it is reported with the image's name
            continue
        truth = GroundTruth.of(item.annotations, classes.categories)
        labels = np.flatnonzero(classes.within(item.labelled).of_label >= 0)
        scores.append(background_scores(raw, truth, labels, background_iou=criteria.background_iou))
    return low_score(np.concatenate(scores) if scores else np.zeros(0, np.float32), criteria.score)


def diagnose_predicted(
    detector: Detector,
    images: Sequence[tuple[ImageRecord, tuple[Annotation, ...], frozenset[str] | None]],
    found: Sequence[tuple[Detections, Pin]],
    classes: ClassMap,
    criteria: Criteria,
) -> tuple[list[list[Outcome]], float]:
    """Diagnose labelled images that were predicted just now, nothing of it from the Store.

    Args:
        images: each with its annotations and the classes that they speak of (None: all).
        found: what the detector answered for it.
    Returns:
        outcomes per image, and t_low, calibrated on these images.
    """
    items = [
        DiagnoseItem(
            image=image,
            annotations=annotations,
            annotation_key="",
            detections=detections,
            pin=pin,
            detection_key="",
            labelled=labelled,
        )
        for (image, annotations, labelled), (detections, pin) in zip(images, found, strict=True)
    ]
    low = calibrate(detector, items, classes, criteria)
    outcomes = [
        diagnose_image(
            item.detections,
            item.annotations,
            classes.within(item.labelled),
            replace(criteria, low_score=low),
            lambda item=item: raw_candidates(detector, item.image, item.pin),  # type: ignore[misc]
            image_id=item.image.id,
            model_id=0,
        )
        for item in items
    ]
    return outcomes, low


def image_result(
    annotations: Sequence[Annotation],
    detections: Detections,
    classes: ClassMap,
    labelled: Collection[str] | None,
) -> ImageResult:
    """Detections in data-set classes beside their ground truth; those of unmapped classes are dropped, and
    those of classes that the labels do not speak of.
    """
    of_detection = classes.within(labelled).of_label[detections.labels]
    kept = np.flatnonzero(of_detection >= 0)
    return ImageResult(
        GroundTruth.of(annotations, classes.categories),
        detections.boxes[kept],
        detections.scores[kept],
        of_detection[kept],
    )
