"""The attribution seam: targets, fills and the protocol that every method follows.

Symbols (METHODS.md): image x (3, h, w) RGB [0, 1] in the detector's input frame; baseline b of the same
shape; labels (h, w) in 0..M-1; weights w in [0, 1]^M; masked input u(w) = b + w[label] * (x - b).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.precision import Precision
from store.records import BoxTuple, GridMap, Pin, SegmentMap

TargetKind = Literal["probability", "log_odds"]
TargetChoice = Literal["auto", "probability", "log_odds"]
"""What a user may ask for; "auto" is resolved by `curator.explain.target.target_kind`."""

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
        precision: "fp32" or "bf16" (autocast).
        settings: a method's own, as text: `sp?patch=29&stride=3` gives {"patch": "29", "stride": "3"}. A
            method reads them by `number` and `choice` and refuses others by `only`.
    """

    samples: int = 16
    grid: Literal["midpoint", "paper"] = "midpoint"
    batch_size: int = 16
    precision: Precision = "fp32"
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch_size < 1:
            raise ConfigError(
                f"samples and batch_size: expected at least 1, got {self.samples} and {self.batch_size}"
            )
        if self.grid == "paper" and self.samples < 2:
            raise ConfigError("--grid paper, k/(K - 1), needs at least 2 samples, got 1; use --grid midpoint")

    def only(self, method: str, known: Sequence[str] = ()) -> None:
        """Refuse settings that `method` does not know.

        Raises:
            ConfigError: there is one; the known ones are named.
        """
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            raise ConfigError(
                f"--method {method}: knows the settings {', '.join(known) or '(none)'}, "
                f"got {', '.join(unknown)}"
            )

    def number(self, name: str, default: float, *, low: float = 0.0, high: float = math.inf) -> float:
        """The setting `name` as a number in [low, high].

        Raises:
            ConfigError: it is none.
        """
        text = self.settings.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    def whole(self, name: str, default: int, *, low: int = 0, high: float = math.inf) -> int:
        """The setting `name` as a whole number in [low, high].

        Raises:
            ConfigError: it is none.
        """
        value = self.number(name, default, low=low, high=high)
        if value != int(value):
            raise ConfigError(f"{name}: expected a whole number, got {self.settings[name]!r}")
        return int(value)

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """The setting `name`, one of `choices`.

        Raises:
            ConfigError: it is none of them.
        """
        value = self.settings.get(name, default)
        if value not in choices:
            raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One candidate's score for one class: the scalar that is explained.

    Attributes:
        candidate: index of the prediction before threshold and NMS (see `Candidates`).
        box: its clean box, stored-image pixels; for methods that look where it lies, and for black boxes,
            which have no candidates: there the target is max_j IoU(B_j, box) p_j[label].
    """

    candidate: int
    label: int
    kind: TargetKind = "probability"
    box: BoxTuple | None = None


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
FillKind = Literal["continuous", "hole"]


class AttributionMethod(Protocol):
    """A method that explains targets of one image; the masks and forward passes are shared by all.

    Attributes:
        takes: the kinds of fill it takes, the preferred one first.
        gradients: True where it needs a detector to look into; a black box is refused.

    A method may have a `version` above 1: its numbers have changed, and stored ones of before are not
    current. One with `by_prediction` explains predictions, which have no log-odds.
    """

    name: str
    takes: tuple[FillKind, ...]
    gradients: bool

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
            seed: randomness is keyed by (seed, image_key, segment content, k), never by candidate: explaining
                a target alone or with others gives the same numbers.
            image_key: the image's sha256.
        Raises:
            ConfigError: the fill does not fit the method.
        """
