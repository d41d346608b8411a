"""MP2 (Agarwal & Nguyen, ACCV 2020, section 3.5): meaningful perturbation without its hyperparameters.

    u(m) = x (1 - up(m)) + f up(m),   m (28, 28) in {0, 1},   m = 0 at first

In: an image, targets; f is the fill's baseline (the paper's: `--fill blur`). Out: the mask. Every step
removes the two cells whose ds/dm is most negative (the paper takes the largest norms, after JSMA; we the sign
that lowers the score), until s(u) is at most max(s(b), chance): "stopped_by_score" in `extra`; or the mask
covers its share of the cells: "stopped_by_cap"; or no cell lowers the score: "stopped_by_gradient".

MP2-G, with a hole fill: every step (setting `refresh`: every n steps) the hole, all of what the mask touches,
is painted as a whole. Such a painting equals x outside the hole and gives no gradient there; so, to choose
the next cells, a cell not yet painted shows its tile of a mosaic in which each of 7 x 7 tiles was painted
with all the others known. The paper does not say how it chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Target
from curator.explain.learned_mask import Infill, Learned, MaskOptimiser, composite, upsample
from curator.explain.target import TargetScores
from store.records import Pin

CHANCE = 1e-3
"""Probability at which a target counts as gone (the paper's, one in the number of ImageNet's classes)."""
CELLS_PER_STEP = 2


class MP2(MaskOptimiser):
    """MP2; settings: `cells` a side (28), `cap` as a share of the cells (0.5), `chance` (0.001), `refresh` in
    steps (1, of hole fills), `values`: "mask" or "order", which grades removed cells from 1 (the first) to
    near 0 (the last).

    `samples` plays no part. `passes` counts what was run: a forward per step and its backward, and F(1), F(0)
    and the final composite.
    """

    name = "mp2"

    def __init__(self, options: AttributionOptions | None = None) -> None:
        super().__init__(options, ("cells", "cap", "chance", "refresh", "values"))
        self.cells = self.options.whole("cells", 28, low=2)
        self.cap = self.options.number("cap", 0.5, high=1.0)
        self.chance = self.options.number("chance", CHANCE, low=1e-9, high=0.5)
        self.refresh = self.options.whole("refresh", 1, low=1)
        self.graded = self.options.choice("values", "mask", ("mask", "order")) == "order"

    def _learn(
        self,
        detector: Detector,
        pin: Pin,
        targets: Sequence[Target],
        image: Tensor,
        infill: Infill,
        full: NDArray[np.float64],
        empty: NDArray[np.float64],
        *,
        keys: tuple[object, ...],
    ) -> Learned:
        grid = (self.cells, self.cells)
        most = int(self.cap * self.cells * self.cells)
        size = (image.shape[1], image.shape[2])
        order = np.zeros((len(targets), self.cells * self.cells), dtype=np.int64)  # 0: kept, n: in step n
        bounds = [self._bound(target, float(b)) for target, b in zip(targets, empty, strict=True)]
        passes, painted = [3] * len(targets), [1] * len(targets)
        reasons = [""] * len(targets)
        f = infill.tiles().expand(len(targets), *image.shape).clone()
        step = 0
        while alive := [t for t in range(len(targets)) if not reasons[t]]:
            scores = TargetScores(detector, pin, [targets[t] for t in alive])
            m = torch.from_numpy((order[alive] > 0).reshape(-1, *grid)).to(image).requires_grad_(True)
            if infill.holes and step and step % self.refresh == 0:
                holes = upsample(m.detach(), size)[:, 0] > 0
                f[alive] = torch.where(holes[:, None], infill.paint(holes), infill.tiles())
                for t in alive:
                    painted[t] += 1
            value = self.own(scores, composite(image, upsample(m, size), f[alive]))[:, 0]
            slopes = np.zeros((len(alive), self.cells * self.cells))
            if value.requires_grad:  # the detector looks at its input
                (slope,) = torch.autograd.grad(value.sum(), m)
                slopes = slope.double().cpu().numpy().reshape(slopes.shape)
            step += 1
            for row, t in enumerate(alive):
                passes[t] += 2
                reasons[t] = self._remove(
                    order[t], slopes[row], float(value[row].detach()), bounds[t], most, step
                )
        m = torch.from_numpy((order > 0).reshape(-1, *grid)).to(image)
        up = upsample(m, size)
        final = composite(image, up, infill.paint(up[:, 0] > 0) if infill.holes else f)
        with torch.no_grad():
            masked = self.own(TargetScores(detector, pin, targets), final)[:, 0].double().cpu().numpy()
        return Learned(
            values=self._values(order).reshape(-1, *grid),
            masked=masked,
            reference=full,
            passes=passes,
            painted=painted,
            extra=[
                {reason: 1.0, "area": float((removed > 0).mean())}
                for reason, removed in zip(reasons, order, strict=True)
            ],
        )

    def _bound(self, target: Target, empty: float) -> float:
        """max(s(b), chance), in units of the target."""
        chance = self.chance if target.kind == "probability" else math.log(self.chance / (1 - self.chance))
        return max(empty, chance)

    @staticmethod
    def _remove(
        order: NDArray[np.int64],
        slopes: NDArray[np.float64],
        value: float,
        bound: float,
        most: int,
        step: int,
    ) -> str:
        """Note the next cells in `order` (g g,); or say why there are none."""
        if value <= bound:
            return "stopped_by_score"
        room = most - int((order > 0).sum())
        if room <= 0:
            return "stopped_by_cap"
        left = np.where(order > 0, np.inf, slopes)
        chosen = np.argsort(left, kind="stable")[: min(CELLS_PER_STEP, room)]
        chosen = chosen[left[chosen] < 0]
        if not len(chosen):
            return "stopped_by_gradient"
        order[chosen] = step
        return ""

    def _values(self, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """(B, g g): the mask, or how early a cell went: 1 - (n - 1)/steps."""
        if not self.graded:
            return (order > 0).astype(np.float64)
        steps = np.maximum(order.max(1, keepdims=True), 1)
        return np.where(order > 0, 1 - (order - 1) / steps, 0.0)
