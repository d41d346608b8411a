"""Detectors that only predict: a function of images, or any detector taken as one (`blackbox:SPEC`).

In: what finds objects in images. Out: a `Detector` without a network to look into, whose input frame is the
stored image. What is explained of it is max_j IoU(B_j, box) p_j[class] over what it predicts (METHODS.md);
`curator.explain.target.PredictionScores` does that.

A black box has no candidates before threshold and NMS. So that its failures can be diagnosed like any
other's, its candidates are its detections above `FLOOR` on the clean image, by rank, and a last one that
stands for nothing found (the whole image with score 0): a missed object always gets a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Candidates, Detector
from curator.detect.checking import refuse_broken
from curator.errors import InputError
from curator.registry import DETECTORS, Spec
from store.keys import content_key
from store.records import Detections, Pin

FLOOR = 0.01
"""Least score of a candidate."""

Found = tuple[Any, Any, Any]  # boxes (n, 4), scores (n,), labels (n,): arrays or tensors


class Finder(Protocol):
    """What a user writes: images (3, H, W) RGB [0, 1], sizes may differ -> objects of each image."""

    def __call__(self, images: list[Tensor]) -> Sequence[Found]:
        """Per image boxes (n, 4) xyxy in pixels, scores (n,) in [0, 1] and labels (n,) from 0."""


class BlackBox:
    """A function that finds objects, behind the `Detector` protocol.

    Args:
        find: called with the images of a batch; an image's result must not depend on its batch mates.
        classes: names, in label order.
        fingerprint: says which model it is; results are stored under it, so change it with the model.
        mean_color: the default baseline of explanations, RGB in [0, 1].
        least_score: `find` is known to report nothing below it; 0 where nothing is known.
        versioned: the fingerprint says for sure which model it is; where not, `detect` asks anew on each run.
        changed: says whether the model is another than when this was built; asked when it is loaded again.

    Example:
        A factory for `--detector python:my_package.model:build`::

            def build() -> BlackBox:
                session = load_my_model()
                return BlackBox(session.find, ("car", "bus"), fingerprint="my model, 3rd version")
    """

    levels: tuple[str, ...] = ()
    read_as = ""  # what a file of weights was taken for, where somebody had to tell

    def __init__(
        self,
        find: Finder,
        classes: Sequence[str],
        *,
        fingerprint: str,
        mean_color: tuple[float, float, float] = (0.5, 0.5, 0.5),
        spec: str = "",
        move: Callable[[torch.device], object] | None = None,
        least_score: float = 0.0,
        versioned: bool = True,
        changed: Callable[[], bool] | None = None,
    ) -> None:
        self._find, self._move, self._changed = find, move, changed
        self.versioned = versioned
        self.least_score = least_score
        self.classes = tuple(classes)
        self.fingerprint = fingerprint
        self.mean_color = mean_color
        self.spec = spec
        self.device = torch.device("cpu")

    @classmethod
    def of(cls, detector: Detector, *, spec: str = "") -> Self:
        """Take a detector as a black box: only its `predict` is used."""

        def find(images: list[Tensor]) -> list[Found]:
            found = detector.predict(images, score_threshold=FLOOR)
            return [(d.boxes, d.scores, d.labels) for d, _ in found]

        return cls(
            find,
            detector.classes,
            fingerprint=content_key("blackbox", detector.fingerprint),
            mean_color=detector.mean_color,
            spec=spec or detector.spec,
            move=detector.to,
            least_score=FLOOR,
            versioned=getattr(detector, "versioned", True),
            changed=getattr(detector, "changed", None),
        )

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        if self._move is not None:
            self._move(self.device)
        return self

    def changed(self) -> bool:
        """Whether the model is another than when this was built."""
        return self._changed is not None and self._changed()

    def modules(self) -> None:
        """None: there is nothing to look into."""

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """The stored image itself, (3, H, W)."""
        return image.to(self.device)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects; see `Detector.predict`. A detection's candidate is its rank by score.

        Raises:
            InputError: the function's answer is no list of boxes, scores and labels that agree, or broken
                (`checking.refuse_broken`).
        """
        if not images:
            return []
        answers = list(self._find([image.to(self.device) for image in images]))
        if len(answers) != len(images):
            raise InputError(
                f"{self.spec}: expected an answer for each of {len(images)} images, got {len(answers)}"
            )
        results = []
        for image, answer in zip(images, answers, strict=True):
            size = (int(image.shape[-2]), int(image.shape[-1]))
            found = self._checked(answer)
            count = int((found.scores > score_threshold).sum())
            kept = found.take(np.arange(count))  # ranked, so that ranks do not depend on the threshold
            results.append((kept, Pin(image_size=size, input_size=size, scale=(1.0, 1.0))))
        return results

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """The clean image's detections by rank, and nothing as the last; not differentiable.

        Raises:
            InputError: more than one input: ranks mean nothing on masked images.
        """
        if len(u) != 1:
            raise InputError(
                f"candidates: expected one input, got {len(u)} inputs: the black box {self.spec} has no "
                f"candidates to follow on masked images; use a target by prediction"
            )
        if levels:
            raise InputError(f"levels: expected none of the black box {self.spec}, got {', '.join(levels)}")
        found = self.predict([u[0]], score_threshold=FLOOR)[0][0]
        count = len(found)
        scores = torch.zeros(1, count + 1, len(self.classes), device=u.device)
        scores[0, torch.arange(count), torch.from_numpy(found.labels)] = torch.from_numpy(found.scores).to(
            u.device
        )
        boxes = torch.tensor([0.0, 0.0, u.shape[-1], u.shape[-2]]).repeat(1, count + 1, 1)
        boxes[0, :count] = torch.from_numpy(found.boxes)
        boxes = boxes.to(u.device)
        if index is not None:
            scores, boxes = scores[:, index], boxes[:, index]
        return Candidates(scores, None, boxes)

    def _checked(self, answer: Found) -> Detections:
        """One image's answer, best first."""
        try:
            boxes, scores, labels = (_numbers(part) for part in answer)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.spec}: expected boxes (n, 4), scores (n,) and labels (n,) of numbers, got {error}"
            ) from error
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes  # [] is nothing found
        if scores.ndim != 1 or boxes.shape != (len(scores), 4) or scores.shape != labels.shape:
            raise InputError(
                f"{self.spec}: expected boxes (n, 4), scores (n,) and labels (n,), got "
                f"{boxes.shape}, {scores.shape} and {labels.shape}"
            )
        refuse_broken(boxes, scores, labels, classes=self.classes, who=self.spec)
        order = np.argsort(-scores, kind="stable")
        return Detections(
            boxes=boxes[order].astype(np.float32),
            scores=scores[order].astype(np.float32),
            labels=labels[order].astype(np.int64),
            candidates=np.arange(len(scores)),
        )


def _numbers(part: Any) -> NDArray[np.float64]:
    """A tensor, array or list of numbers, as float64."""
    return np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part, dtype=np.float64)


def build(spec: Spec) -> BlackBox:
    """`blackbox:SPEC`, such as `blackbox:builtin:` or `blackbox:onnx:model.onnx?decode=yolox`.

    Raises:
        RegistryError: SPEC is none.
    """
    inner = Spec.parse(spec.text.partition(":")[2])
    return BlackBox.of(DETECTORS.load(inner.scheme)(inner), spec=spec.text)
