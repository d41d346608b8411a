"""FIDO (Chang, Creager, Goldenberg & Duvenaud, ICLR 2019): which cells a random mask may, or must, drop.

    z_c ~ Concrete(p_c, T): z = sigmoid((theta + log e - log(1 - e)) / T),  e uniform,  p = sigmoid(theta)
    u   = up(z) x + (1 - up(z)) f(hole),   hole = {up(z) < 0.5},   L = log(s / (1 - s))
    preservation (smallest sufficient region):   min_theta  E_z[-L(u)] + lambda 224^2 mean(p)
    deletion (smallest destroying region):       min_theta  E_z[+L(u)] + lambda 224^2 mean(1 - p)

In: an image, targets. Out: (56, 56) per target: p, the probability that the region which suffices keeps a
cell; with deletion 1 - p. T = 0.1, Adam at 0.05 falling linearly to 0, lambda = 1e-3 per pixel of a 224 px
image as in Agarwal & Nguyen's appendix A1 (hence 224^2, so that it means the same at every size), theta = 0
at first; the expectation is over 4 draws a step, keyed by (seed, image, step) and alike for all targets.

f is the fill's baseline, or, with a hole fill, what it paints into each sampled hole as a whole, in every
step as in the paper (setting `refresh`: every n steps). A pixel outside the hole keeps in f what was last
painted there, at first the image painted all over; the paper has x there, which gives a kept cell no
gradient. FIDO-CA is FIDO with an inpainter: dear, steps x draws paintings per target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Target
from curator.explain.learned_mask import Infill, Learned, MaskOptimiser, composite, upsample
from curator.explain.target import TargetScores
from curator.tensors import generator
from store.records import Pin

TEMPERATURE = 0.1
LEARNING_RATE = 0.05
SPARSITY = 1e-3
_PIXELS = 224 * 224  # of the images that SPARSITY was chosen for
_LOWEST = 1e-6  # log-odds of probabilities are cut here where the detector gives none of its own


def concrete(theta: Tensor, noise: Tensor) -> Tensor:
    """Relaxed Bernoulli draws (Maddison et al., ICLR 2017): theta (B, g, g), noise (D, g, g) in (0, 1) ->
    z (B, D, g, g)."""
    logistic = torch.log(noise) - torch.log1p(-noise)
    return torch.sigmoid((theta[:, None] + logistic) / TEMPERATURE)


class FIDO(MaskOptimiser):
    """FIDO; settings: `objective` ("preservation" or "deletion"), `cells` a side (56), `steps` (300), `draws`
    a step (4), `sparsity` (1e-3), `refresh` in steps (1, of hole fills).

    `samples` plays no part. `passes` is 2 x draws per step and three for F(1), F(0) and the final composite.
    """

    name = "fido"

    def __init__(self, options: AttributionOptions | None = None) -> None:
        super().__init__(options, ("objective", "cells", "steps", "draws", "sparsity", "refresh"))
        self.deletion = (
            self.options.choice("objective", "preservation", ("preservation", "deletion")) == "deletion"
        )
        self.cells = self.options.whole("cells", 56, low=2)
        self.steps = self.options.whole("steps", 300, low=1)
        self.images_per_target = self.draws = self.options.whole("draws", 4, low=1)
        self.sparsity = self.options.number("sparsity", SPARSITY)
        self.refresh = self.options.whole("refresh", 1, low=1)

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
        count, size = len(targets), (image.shape[1], image.shape[2])
        log_odds = self._log_odds(detector, pin, targets, image)
        numbers = generator(*keys)
        theta = image.new_zeros((count, self.cells, self.cells)).requires_grad_(True)
        adam = torch.optim.Adam([theta], lr=LEARNING_RATE)
        f = infill.everything.expand(count * self.draws, *image.shape).clone()
        for step in range(self.steps):
            for group in adam.param_groups:
                group["lr"] = LEARNING_RATE * (1 - step / self.steps)
            noise = torch.rand((self.draws, self.cells, self.cells), generator=numbers)
            z = concrete(theta, noise.clamp(1e-6, 1 - 1e-6).to(image))  # (B, D, g, g)
            keep = upsample(z.flatten(0, 1), size)  # (B D, 1, h, w)
            if infill.holes and step % self.refresh == 0:
                holes = keep.detach()[:, 0] < 0.5
                f = torch.where(holes[:, None], infill.paint(holes), f)
            value = log_odds(composite(image, 1 - keep, f)).mean(1)  # (B,)
            p = torch.sigmoid(theta).mean((1, 2))
            area = 1 - p if self.deletion else p
            loss = self.sparsity * _PIXELS * area + (value if self.deletion else -value)
            (theta.grad,) = torch.autograd.grad(loss.sum(), theta)
            adam.step()
        p = torch.sigmoid(theta.detach())
        masked = self._final(detector, pin, targets, image, infill, p)
        values = (1 - p if self.deletion else p).double().cpu().numpy()
        return Learned(
            values=values,
            masked=masked,
            reference=full if self.deletion else empty,
            passes=[2 * self.draws * self.steps + 3] * count,
            painted=[self.draws * -(-self.steps // self.refresh) + 1] * count,
            extra=[{"area": float(found.mean())} for found in values],
        )

    def _log_odds(
        self, detector: Detector, pin: Pin, targets: Sequence[Target], image: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """L: composites (B D, 3, h, w) -> (B, D); from probabilities where the detector gives no log-odds."""
        index = torch.tensor([targets[0].candidate], device=image.device)
        with torch.no_grad():
            exact = detector.candidates(image[None], pin, index=index).log_odds is not None
        if exact:
            kinds = [
                Target(candidate=t.candidate, label=t.label, kind="log_odds", box=t.box) for t in targets
            ]
            scores = TargetScores(detector, pin, kinds)
            return lambda u: self.own(scores, u)
        probabilities = TargetScores(detector, pin, targets)
        return lambda u: torch.logit(self.own(probabilities, u), eps=_LOWEST)

    @torch.no_grad()
    def _final(
        self,
        detector: Detector,
        pin: Pin,
        targets: Sequence[Target],
        image: Tensor,
        infill: Infill,
        p: Tensor,
    ) -> NDArray[np.float64]:
        """The targets (B,) with every cell of p < 0.5 removed."""
        removed = upsample((p < 0.5).to(image), (image.shape[1], image.shape[2]))  # (B, 1, h, w)
        final = composite(image, removed, infill.paint(removed[:, 0] > 0.5))
        return np.asarray(self.own(TargetScores(detector, pin, targets), final)[:, 0].double().cpu().numpy())
