"""ODAM, gradient-weighted object detector activation maps (Zhao & Chan, ICLR 2023; arXiv:2304.06354).

    H = ReLU(sum_c Phi(ds/dA_c) o A_c)

A (C, h, w) is the feature level that the candidate is predicted from, o the product cell by cell, Phi nothing
or a Gaussian. In: an image and targets. Out: H (h, w) per target on the level's own grid, whose affine places
it in the input frame. One forward for all targets and one backward per target: the cheap rival. It shows what
raises the score only, at the level's resolution, and does not sum to anything.

The seam does not say from which level a candidate is predicted. A gradient spreads on its way upstream, so
the candidate's own level is the one where it reaches the smallest share of the cells (`own_level`): right for
SSD, feature pyramids and YOLO's necks (every anchor tried of three SSDs and YOLOX-nano) as long as the head
sees less than the whole level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError, StageError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import gaussian_blur
from curator.explain.target import TargetScores
from curator.precision import autocast
from store.records import GridMap, Pin, SegmentMap


class ODAM:
    """ODAM; settings: `level`, a feature level's name, or the candidate's own where not given; `smooth`, the
    standard deviation in cells of the Gaussian over the gradient (0: none, as in the authors' code)."""

    name = "odam"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("level", "smooth"))
        self.smooth = self.options.number("smooth", 0.0)
        if 0 < self.smooth < 0.34:
            raise ConfigError(f"smooth: expected 0 or at least 0.34 cells, got {self.smooth:g}")

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

        Segments, fill and seed play no part: nothing is hidden and nothing drawn.

        Returns:
            a `GridMap` per target; F(0) and the gap are nan, `passes` is 2 (a forward and a backward),
            `extra["level"]` the index of the level among the detector's.
        Raises:
            ConfigError: a black box, a detector without feature levels, or no level of that name.
            InputError: no target, or a class that the detector does not have.
            StageError: a score or gradient that is not finite.
        """
        asked = TargetScores(detector, pin, targets)
        names = self._levels(detector)
        u = image.detach()[None].requires_grad_(True)  # (1, 3, h, w)
        with autocast(self.options.precision, u.device):
            values, found = asked.look(u, names)
        scores = values[0].unbind()
        features = [found[name] for name in names]
        maps: list[SegmentMap | GridMap] = []
        for score, target in zip(scores, targets, strict=True):
            full = float(score.detach())
            gradients = _gradients(score, [feature.values for feature in features])
            own = own_level(gradients)
            heat = self._heat(gradients[own], features[own].values)  # (h, w)
            if not (np.isfinite(heat).all() and math.isfinite(full)):
                raise StageError(
                    f"{self.name}: expected finite scores and gradients, got nan or infinity; try "
                    f"--precision fp32 or --target probability"
                )
            maps.append(
                GridMap(
                    values=heat,
                    scale=features[own].scale,
                    offset=features[own].offset,
                    full=full,
                    empty=math.nan,
                    gap=math.nan,
                    passes=2,
                    evidence=bool(heat.max() > EVIDENCE_FLOOR[target.kind]),
                    extra={"level": float(detector.levels.index(names[own]))},
                )
            )
        return maps

    def _levels(self, detector: Detector) -> tuple[str, ...]:
        wanted = self.options.settings.get("level")
        if not detector.levels or (wanted is not None and wanted not in detector.levels):
            raise ConfigError(
                f"--method odam: expected a feature level of {detector.spec} "
                f"({', '.join(detector.levels) or 'it has none'}), got {wanted or 'none'}"
            )
        return detector.levels if wanted is None else (wanted,)

    def _heat(self, gradient: Tensor, values: Tensor) -> NDArray[np.float32]:
        """ReLU(sum_c Phi(g_c) o A_c): two (1, C, h, w) -> (h, w)."""
        g = gradient[0].float()
        if self.smooth:
            g = gaussian_blur(g, self.smooth)
        heat = (g * values[0].detach().float()).sum(0).clamp(min=0)
        return np.asarray(heat.cpu().numpy(), dtype=np.float32)


def own_level(gradients: Sequence[Tensor]) -> int:
    """Index of the level whose gradient (1, C, h, w) reaches the smallest share of the cells, but some.

    Of equal shares the finer (earlier) level wins, since in a corner a 2 x 2 kernel and the one coarse cell
    above it are equal; where they are all of the cells, the coarser, whose candidates see everything. The
    first where no level has a gradient.
    """
    shares = [float((gradient != 0).any(1).float().mean()) for gradient in gradients]
    reached = [level for level, share in enumerate(shares) if share > 0]
    if reached and all(shares[level] == 1 for level in reached):
        return reached[-1]
    return min(reached, key=lambda level: shares[level], default=0)


def _gradients(score: Tensor, levels: Sequence[Tensor]) -> list[Tensor]:
    """ds/dA of each level, zeros where the score does not depend on it; keeps the graph for more targets."""
    if not score.requires_grad:
        return [torch.zeros_like(values) for values in levels]
    used = [values for values in levels if values.requires_grad]
    found = iter(torch.autograd.grad(score, used, retain_graph=True, allow_unused=True)) if used else iter(())
    gradients = [next(found) if values.requires_grad else None for values in levels]
    return [
        torch.zeros_like(values) if gradient is None else gradient
        for values, gradient in zip(levels, gradients, strict=True)
    ]
