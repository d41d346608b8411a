"""Detections, the pin that makes them repeatable, and detectors."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.records.boxes import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Final detections of one image, best first.

    Attributes:
        boxes: (N, 4) float32, stored-image pixels.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, index into the detector's `classes`.
        candidates: (N,) int64, the index of the candidate that became this detection.
    """

    boxes: Floats
    scores: Floats
    labels: Ints
    candidates: Ints

    def __post_init__(self) -> None:
        for name, dtype in (
            ("boxes", np.float32),
            ("scores", np.float32),
            ("labels", np.int64),
            ("candidates", np.int64),
        ):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.labels.shape != (n,) or self.candidates.shape != (n,):
            raise ValueError(
                f"expected boxes ({n}, 4), labels ({n},) and candidates ({n},), got {self.boxes.shape}, "
                f"{self.labels.shape} and {self.candidates.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[Any]) -> Detections:
        """Return the detections that a boolean mask or an index array (n,) picks."""
        return Detections(
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            candidates=self.candidates[index],
        )

    @classmethod
    def empty(cls) -> Detections:
        """Return detections of an image where nothing was found."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.int64),
            candidates=np.zeros(0, np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What `predict` saw, so that a candidate can be computed again exactly.

    The affine maps stored-image pixels to the detector's input frame: x_in = scale[0] * x + offset[0],
    y_in = scale[1] * y + offset[1].

    Attributes:
        image_size: (height, width) of the stored image.
        input_size: (h, w) of the detector's input for this image.
        scale, offset: the affine, as (x, y).
        proposals: (P, 4) float32 frozen proposals in the input frame, for two-stage detectors.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)
    proposals: Floats | None = None

    def to_input(self, boxes: NDArray[Any]) -> Floats:
        """Map boxes (..., 4) from the stored image to the input frame."""
        return np.asarray(boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2), dtype=np.float32)

    def to_image(self, boxes: NDArray[Any]) -> Floats:
        """Map boxes (..., 4) from the input frame to the stored image."""
        return np.asarray((boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2), dtype=np.float32)

    def to_json(self) -> str:
        """Serialise; `from_json` gives an equal pin."""
        proposals = None
        if self.proposals is not None:
            raw = np.ascontiguousarray(self.proposals, dtype="<f4")
            proposals = base64.b64encode(raw.tobytes()).decode()
        return json.dumps(
            {
                "image_size": self.image_size,
                "input_size": self.input_size,
                "scale": self.scale,
                "offset": self.offset,
                "proposals": proposals,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Pin:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        proposals = raw["proposals"]
        if proposals is not None:
            proposals = np.frombuffer(base64.b64decode(proposals), dtype="<f4").reshape(-1, 4).copy()
        return cls(
            image_size=tuple(raw["image_size"]),
            input_size=tuple(raw["input_size"]),
            scale=tuple(raw["scale"]),
            offset=tuple(raw["offset"]),
            proposals=proposals,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A detector that worked in this workspace: its registry spec, weights' fingerprint and classes."""

    id: int
    spec: str
    fingerprint: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSet:
    """Stored detections of one image by one model, with the pin.

    Attributes:
        id: None before it is stored.
        run_id: the run that stored it; None before. Its configuration says down to which score was looked.
    """

    image_id: int
    model_id: int
    detections: Detections
    pin: Pin
    key: str
    id: int | None = None
    run_id: int | None = None
