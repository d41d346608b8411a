"""The detector seam.

A *candidate* is one prediction before threshold and NMS, addressed by its index: an anchor, a query, a
grid cell's prediction, a proposal. Frames: `predict` takes stored images and returns stored-image boxes;
`prepare` gives the detector's input frame, in which masked inputs live; `candidates` takes inputs of that
frame and returns boxes in the *stored image's* frame (through the pin).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from store.records import Detections, Pin


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A feature level of a batch.

    Attributes:
        values: (B, C, h, w), in the autograd graph of the scores.
        scale, offset: (x, y); cell (column i, row j) is centred at input-frame
            x = scale[0] * i + offset[0], y = scale[1] * j + offset[1].
    """

    values: Tensor
    scale: tuple[float, float]
    offset: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of a batch of B inputs, for q candidate indices.

    Attributes:
        scores: (B, q, K) probabilities per class without background, as METHODS.md defines the target
            of each family. Heads run in fp32.
        log_odds: (B, q, K) fp32 log(p / (1 - p)) computed without loss where logits exist, else None.
        boxes: (B, q, 4), or (B, q, K, 4) where a box is decoded per class; stored-image pixels.
        features: the named levels, from the same graph.
    """

    scores: Tensor
    log_odds: Tensor | None
    boxes: Tensor
    features: Mapping[str, FeatureMap] = field(default_factory=dict)


class Detector(Protocol):
    """A detector as every stage sees it. Parameters are frozen (no weight gradients) and in eval mode."""

    classes: tuple[str, ...]
    spec: str
    levels: tuple[str, ...]  # names that `candidates(levels=...)` knows, fine to coarse; () for a black box
    mean_color: tuple[float, float, float]  # default baseline, RGB in [0, 1]
    # fixed_candidates: bool = True, where it is missing: an index means the same on every masked input. False
    # where queries are drawn from the input; then targets are followed by their boxes (explain/target.py).
    # versioned: bool = True, where it is missing. False where nobody can tell for sure whether the model is
    # still the same (a service without a version): then `detect` asks for every image anew on each run.
    # def changed(self) -> bool, where there is one: the model is another than when the detector was built, so
    # that `load_detector` must build it anew.

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, options and weights (an attribute will do)."""

    def to(self, device: torch.device) -> Detector:
        """Move to a device; returns self."""

    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS.

        Args:
            images: stored images (3, H, W) float32 RGB [0, 1], sizes may differ. An image's result does not
                depend on its batch mates.
            score_threshold: in [0, 1]; lower-scoring detections are dropped before NMS.
        Returns:
            per image its detections (at most the detector's own top-k) and the pin.
        """

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1] at the detector's input size."""

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Compute candidates of masked inputs; differentiable with respect to `u`.

        Args:
            u: (B, 3, h, w) RGB [0, 1] in the pin's input frame.
            index: (q,) int64 candidate indices; None gives all, for B = 1 only. An empty index computes
                features alone.
            levels: feature levels wanted.
        """

    def modules(self) -> nn.Module | None:
        """The network, for methods that look inside; None for a black box."""


class PlainDetector(Detector, Protocol):
    """A detector whose pin is plain geometry: it needs no look at the image.

    Attributes:
        plain_pin: True; `predict` gives the same pin as `pin`, without frozen proposals.
    """

    plain_pin: bool

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W)."""


@runtime_checkable
class TrainableDetector(Detector, Protocol):
    """A detector that `train` can fine-tune."""

    def loss(self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Training losses in train mode (the adapter switches modes and restores them).

        Args:
            images: stored images (3, H, W) float32 RGB [0, 1].
            targets: per image boxes (n, 4) float32 in stored-image pixels and labels (n,) int64, 0-based;
                n = 0 is a legal negative image.
        """

    def save(self, path: Path) -> None:
        """Write a safetensors file whose metadata holds what is needed to build the detector again."""

    def clone(self) -> TrainableDetector:
        """An independent copy with equal weights and trainable parameters."""
