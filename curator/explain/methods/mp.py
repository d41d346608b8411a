"""Meaningful perturbation, MP (Fong & Vedaldi, ICCV 2017), in the deletion game.

    m*  = argmin_m  l1 sum |1 - m| + l2 sum |grad m|^3 + s(shift(u(m), tau)),   tau uniform in 0..4 px
    u   = up(m) x + (1 - up(m)) f

m (28, 28) in [0, 1] keeps (1) or removes (0). In: an image, targets; f is the fill's baseline (the paper's:
`--fill blur`, sigma 10). Out: 1 - m* on its grid, what must go for the score to fall. Adam at 0.1 for 300
steps, l1 = 1e-4, l2 = 1e-2. m starts with everything kept; `start=noise` starts at uniform noise as Agarwal &
Nguyen (ACCV 2020, section 3.5) do, which takes about 300 steps to come to the same mask. Noise and shifts are
keyed by (seed, image), alike for all targets.

With a hole fill f is a mosaic: each of 7 x 7 tiles painted with the others known, once per image, because m
is soft and has no hole until the end; the reported score is that of the final hole (m < 0.5) painted whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Target
from curator.explain.learned_mask import Infill, Learned, MaskOptimiser, composite, upsample
from curator.explain.target import TargetScores
from curator.tensors import generator
from store.records import Pin

L1 = 1e-4
TV = 1e-2
TV_EXPONENT = 3
LEARNING_RATE = 0.1


def total_variation(masks: Tensor) -> Tensor:
    """sum |grad m|^3 over both axes: m (B, g, g) -> (B,)."""
    down = (masks[:, 1:] - masks[:, :-1]).abs().pow(TV_EXPONENT).sum((1, 2))
    across = (masks[:, :, 1:] - masks[:, :, :-1]).abs().pow(TV_EXPONENT).sum((1, 2))
    return down + across


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """Move images (B, 3, h, w) by whole pixels >= 0; the border's colours move in."""
    h, w = images.shape[2:]
    return F.pad(images, (right, 0, down, 0), mode="replicate")[..., :h, :w]


class MeaningfulPerturbation(MaskOptimiser):
    """MP; settings: `cells` a side (28), `steps` (300), `jitter` in px (4), `l1` (1e-4), `tv` (1e-2), `start`
    ("kept" or "noise").

    `samples` plays no part. `passes` is two per step and three for F(1), F(0) and the final composite.
    """

    name = "mp"

    def __init__(self, options: AttributionOptions | None = None) -> None:
        super().__init__(options, ("cells", "steps", "jitter", "l1", "tv", "start"))
        self.cells = self.options.whole("cells", 28, low=2)
        self.steps = self.options.whole("steps", 300, low=1)
        self.jitter = self.options.whole("jitter", 4)
        self.l1 = self.options.number("l1", L1)
        self.tv = self.options.number("tv", TV)
        self.noise = self.options.choice("start", "kept", ("kept", "noise")) == "noise"

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
        scores = TargetScores(detector, pin, targets)
        numbers = generator(*keys)
        noise = torch.rand((self.cells, self.cells), generator=numbers).to(image)
        start = noise if self.noise else torch.ones_like(noise)
        shifts = torch.randint(0, self.jitter + 1, (self.steps, 2), generator=numbers).tolist()
        m = start.repeat(len(targets), 1, 1).requires_grad_(True)  # (B, g, g)
        adam = torch.optim.Adam([m], lr=LEARNING_RATE)
        size = (image.shape[1], image.shape[2])
        f = infill.tiles()
        for down, right in shifts:
            u = composite(image, 1 - upsample(m, size), f)
            value = self.own(scores, shift(u, down, right))[:, 0]  # (B,)
            loss = value + self.l1 * (1 - m).abs().sum((1, 2)) + self.tv * total_variation(m)
            (m.grad,) = torch.autograd.grad(loss.sum(), m)
            adam.step()
            with torch.no_grad():
                m.clamp_(0, 1)
        removed = upsample(1 - m.detach(), size)  # (B, 1, h, w)
        final = composite(image, removed, infill.paint(removed[:, 0] > 0.5) if infill.holes else f)
        with torch.no_grad():
            masked = self.own(scores, final)[:, 0].double().cpu().numpy()
        values = (1 - m.detach()).double().cpu().numpy()
        return Learned(
            values=values,
            masked=masked,
            reference=full,
            passes=[2 * self.steps + 3] * len(targets),
            painted=[1] * len(targets),
            extra=[{"area": float(found.mean())} for found in values],
        )
