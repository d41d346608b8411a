"""The attribution seam: targets, fills and the protocol that every method follows.

Symbols (METHODS.md): image x (3, h, w) RGB [0, 1] in the detector's input frame; baseline b of the same
shape; labels (h, w) in 0..M-1; weights w in [0, 1]^M; masked input u(w) = b + w[label] * (x - b).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from store.records import GridMap, Pin, SegmentMap

TargetKind = Literal["probability", "log_odds"]

EVIDENCE_FLOOR: Mapping[TargetKind, float] = {"probability": 1e-3, "log_odds": 1e-2}
"""A map carries evidence when some segment moves the target by more than this: a tenth of a percentage point
of probability, or one percent of the odds. Below it lies what rounding and sampling leave behind, and no
decision hangs on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionOptions:
    """What every method is built with; a method ignores what it has no use for.

    Attributes:
        samples: K, the number of masked images (methods of permutations: of pairs of permutations).
        grid: E2X's weights, "midpoint" (k + 0.5)/K or "paper" k/(K - 1).
        batch_size: masked images per forward pass; changes speed and memory, not results.
        precision: "fp32", "bf16" (autocast), or "auto" (see `curator.explain.precision`).
    """

    samples: int = 16
    grid: Literal["midpoint", "paper"] = "midpoint"
    batch_size: int = 16
    precision: Literal["auto", "fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch_size < 1:
            raise ConfigError(
                f"samples and batch_size: expected at least 1, got {self.samples} and {self.batch_size}"
            )
        if self.grid == "paper" and self.samples < 2:
            raise ConfigError("--grid paper, k/(K - 1), needs at least 2 samples, got 1; use --grid midpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One candidate's score for one class: the scalar that is explained."""

    candidate: int
    label: int
    kind: TargetKind = "probability"


class ContinuousFill(Protocol):
    """A baseline to interpolate from (E2X, IG): u = b + w (x - b)."""

    continuous: Literal[True]

    def baseline(self, image: Tensor, detector: Detector) -> Tensor:
        """x (3, h, w) -> b (3, h, w)."""


class HoleFill(Protocol):
    """Fills holes (mean, blur, inpainter): bit-exact outside the hole."""

    continuous: Literal[False]

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """x (3, h, w), hole (h, w) bool (True = repaint) -> (3, h, w)."""


Fill = ContinuousFill | HoleFill


class Attribution(Protocol):
    """A method that explains targets of one image; the masks and forward passes are shared by all.

    Attributes:
        continuous: the kind of fill it takes: a continuous one, or one that fills holes.
    """

    name: str
    continuous: bool

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target.

        Args:
            image: prepared x (3, h, w) in the pin's input frame.
            segments: (h, w) labels 0..M-1.
            seed, image_key: randomness is keyed by (seed, image sha256, segment content, k), never by
                candidate: explaining a target alone or with others gives the same numbers.
        Raises:
            ConfigError: the fill does not fit the method.
        """
