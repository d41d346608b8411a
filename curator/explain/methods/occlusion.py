"""Occlusion of one segment at a time (Zeiler & Fergus, ECCV 2014, with segments for squares).

    phi_i = F(1) - F(1 - e_i)

In: an image, its segments, targets. Out: phi (M,): what hiding the segment alone takes from the score of the
picture as it is, exact, M + 2 passes. It sees no redundancy (two wheels of which either is enough get nothing
each) and no completeness is claimed: the gap F(1) - F(0) - sum(phi) is reported as it is. With an inpainter's
fill it asks what the detector would say if the segment had never been there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.game import coalition_game, segment_maps
from curator.explain.target import scores_of
from store.records import GridMap, Pin, SegmentMap


class Occlusion:
    """Occlusion segment by segment; see the module. `samples` plays no part."""

    name = "occlusion"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name)

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
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Raises:
            InputError: shapes that do not agree, or no target.
        """
        scores = scores_of(detector, pin, targets)
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        count = int(segments.max()) + 1
        ends = np.array([[True], [False]]).repeat(count, axis=1)
        values = game(np.concatenate([ends, ~np.eye(count, dtype=bool)]))  # (M + 2, T)
        full, empty = values[0], values[1]
        phi = (full - values[2:]).T
        return [*segment_maps(self.name, targets, phi, full, empty, passes=count + 2)]
