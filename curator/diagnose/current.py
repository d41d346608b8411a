"""`Current`: the one picture that every stage after `diagnose` starts from.

Plain data: the diagnosed model, its class map and thresholds, its outcomes, and the attributions of one
explain configuration. `curator.diagnose.run_current` builds it from the Store. Its digest is what the keys of
later stages hold of the past: what was diagnosed or explained anew is computed anew, and what comes back is
found again (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.causes import Criteria
from store.keys import content_key
from store.records import AttributionKey, BoxTuple, ImageRecord, ModelRecord, Outcome, Pin


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The explain configuration whose attributions are used.

    Attributes:
        described: it in words, for people.
    """

    run_id: int
    config_key: str
    method: str
    described: str


@dataclass(frozen=True, kw_only=True)
class Current:
    """What is diagnosed and explained now.

    Attributes:
        class_map: detector class -> data-set class, of every class that the diagnosis used.
        criteria: its thresholds.
        detections_key: configuration of the detections that it judged; None where that was not recorded.
        outcomes: by image. attributions: outcome id -> its attribution.
        explanation: None where nothing was explained.
    """

    model: ModelRecord
    class_map: Mapping[str, str]
    criteria: Criteria
    detections_key: str | None
    outcomes: tuple[Outcome, ...]
    explanation: Explanation | None = None
    attributions: Mapping[int, AttributionKey] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Content key of all of it: equal in two workspaces that hold the same."""
        return content_key(
            "current",
            self.model.fingerprint,
            dict(self.class_map),
            sorted((outcome.key, self.attribution_key(outcome)) for outcome in self.outcomes),
        )

    @property
    def explained_by(self) -> str | None:
        """The explain configuration in words, None where nothing was explained."""
        return None if self.explanation is None else self.explanation.described

    def attribution_key(self, outcome: Outcome) -> str:
        """Content key of what explains an outcome, "" where nothing does."""
        found = self.attributions.get(outcome.id or 0)
        return "" if found is None else found.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """What an explanation blames for a failure: for a miss what lowers its score, for a false positive what
    raises it. Successes have nothing to blame.

    Attributes:
        attribution_id: what says so.
        parts: the segments of each culprit region, the heaviest region first.
        boxes: of the regions, stored-image pixels.
        key: content key of the regions.
    """

    attribution_id: int
    segmentation_id: int
    parts: tuple[tuple[int, ...], ...]
    boxes: tuple[BoxTuple, ...]
    key: str

    def density(self, labels: NDArray[np.uint16], side: int) -> NDArray[np.float32]:
        """The heaviest region as a share of each cell of a grid over the input frame.

        Args:
            labels: (h, w) segments in the input frame. side: most cells per side.
        Returns:
            (a, b) float32 in [0, 1], a and b at most `side`.
        """
        inside = np.isin(labels, self.parts[0]).astype(np.float32)
        rows, columns = (
            np.linspace(0, n, min(n, side) + 1).astype(int)[:-1] for n in (labels.shape[0], labels.shape[1])
        )
        cells = np.add.reduceat(np.add.reduceat(inside, rows, axis=0), columns, axis=1)
        sizes = np.outer(np.diff([*rows, labels.shape[0]]), np.diff([*columns, labels.shape[1]]))
        return np.asarray(cells / sizes, dtype=np.float32)

    def mask(self, labels: NDArray[np.uint16], image: ImageRecord, pin: Pin) -> NDArray[np.bool_]:
        """All regions in the stored image (H, W), from labels (h, w) in the pin's input frame."""
        rows, columns = (
            np.clip(((np.arange(n) + 0.5) * scale + offset).astype(int), 0, most - 1)
            for n, scale, offset, most in (
                (image.height, pin.scale[1], pin.offset[1], labels.shape[0]),
                (image.width, pin.scale[0], pin.offset[0], labels.shape[1]),
            )
        )
        chosen = [segment for part in self.parts for segment in part]
        return np.asarray(np.isin(labels, chosen)[rows][:, columns])
