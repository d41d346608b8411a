"""What methods that optimise a mask share: upsampling, what stands where the mask removes, maps on a grid.

In: a mask m (B, g, g) of how much of each cell is *removed* (1) or kept (0), one per target. Out: composites
    u = x + up(m) (f - x),   (B, 3, h, w)
with up bilinear and f the infill: a continuous fill's baseline, or what a hole fill paints into the hole
(the union of removed cells at once). Every target has a mask of its own and is optimised by itself; a batch
of them shares forward and backward passes, since images of a batch do not see each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import StageError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import fill_many
from curator.explain.target import Scores, TargetScores
from curator.precision import autocast
from store.records import GridMap, Pin, SegmentMap

TILES = 7
"""Tiles a side in which a hole fill is asked, tile by tile, what would stand where nothing is removed yet."""
_TILES_AT_ONCE = 8


def upsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """m (B, g, g) -> (B, 1, h, w), bilinear; cell (i, j) is centred at ((j + 0.5) w/g, (i + 0.5) h/g)."""
    return F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)


class Infill:
    """What stands where a mask removes.

    Args:
        seed: of hole fills that draw.
    Attributes:
        everything: b (3, h, w), the image with all of it removed.
        shared: holes painted for all targets of the image together, so far.
    """

    def __init__(self, fill: Fill, image: Tensor, detector: Detector, seed: int) -> None:
        self.image, self.seed = image, seed
        self.shared = 0
        self._fill = None if fill.continuous else fill
        if fill.continuous:
            self.everything = fill.baseline(image, detector)
        else:
            self.everything = fill.fill(image, image.new_ones(image.shape[1:], dtype=torch.bool), seed)
            self.shared += 1
        self._tiles: Tensor | None = None

    @property
    def holes(self) -> bool:
        """True for a hole fill, whose infill depends on the hole."""
        return self._fill is not None

    @torch.no_grad()
    def paint(self, holes: Tensor) -> Tensor:
        """f (B, 3, h, w) for holes (B, h, w) bool, each painted whole; the baseline of a continuous fill."""
        if self._fill is None:
            return self.everything.expand(len(holes), *self.image.shape)
        return fill_many(self._fill, self.image, holes, [self.seed] * len(holes))

    def tiles(self) -> Tensor:
        """f (3, h, w) of `TILES` x `TILES` tiles, each painted with all the others known; once per image.

        What a gradient needs: a painting of the present hole equals x outside it, so that it says nothing of
        what removing another cell would do.
        """
        if self._fill is None:
            return self.everything
        if self._tiles is None:
            h, w = self.image.shape[1:]
            rows = torch.arange(h, device=self.image.device) * TILES // h
            columns = torch.arange(w, device=self.image.device) * TILES // w
            number = rows[:, None] * TILES + columns  # (h, w)
            mosaic = self.image.clone()
            for some in torch.unique(number).split(_TILES_AT_ONCE):
                holes = number == some[:, None, None]  # (n, h, w)
                for hole, painted in zip(holes, self.paint(holes), strict=True):
                    mosaic[:, hole] = painted[:, hole]
                self.shared += len(holes)
            self._tiles = mosaic
        return self._tiles


def composite(image: Tensor, removed: Tensor, infill: Tensor) -> Tensor:
    """u = x + m (f - x): x (3, h, w), m (B, 1, h, w), f (3, h, w) or (B, 3, h, w) -> (B, 3, h, w)."""
    return image + removed * (infill - image)


@dataclass(frozen=True, slots=True)
class Learned:
    """What an optimisation found for B targets.

    Attributes:
        values: (B, g, g), the map: 1 where the target depends on the cell, 0 where it does not.
        masked: (B,) the target with the found region removed (or, where the method preserves, alone kept).
        reference: (B,) what `masked` must differ from for the map to say anything.
        passes: forward-equivalents per target. painted: holes painted for each target by itself.
        extra: further figures per target.
    """

    values: NDArray[np.float64]
    masked: NDArray[np.float64]
    reference: NDArray[np.float64]
    passes: list[int]
    painted: list[int]
    extra: list[dict[str, float]]


class MaskOptimiser:
    """The frame of MP, MP2 and FIDO; each brings `_learn`.

    They run in bf16 only where it is asked for by name: errors of a gradient add up over hundreds of steps.
    """

    name: str
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = True
    images_per_target = 1  # in one forward pass

    def __init__(self, options: AttributionOptions | None = None, known: Sequence[str] = ()) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, known)

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

        Segments play no part.

        Returns:
            a `GridMap` per target with values in [0, 1]; the gap is nan. `extra` holds `masked`, the target
            on the final composite, and for hole fills `painted`, the holes that one target alone needs
            painted. `evidence` is False where the found region does not move the target by more than
            `EVIDENCE_FLOOR`, or where nothing was found.
        Raises:
            ConfigError: a black box, or log-odds that the detector does not give.
            InputError: no target, or a class that the detector does not have.
            StageError: a score that is not finite.
        """
        image = image.detach()
        infill = Infill(fill, image, detector, seed)
        full, empty = self.evaluate(
            TargetScores(detector, pin, targets), torch.stack([image, infill.everything])
        )
        maps: list[SegmentMap | GridMap] = []
        at_once = max(1, self.options.batch_size // self.images_per_target)
        for start in range(0, len(targets), at_once):
            part = targets[start : start + at_once]
            span = slice(start, start + len(part))
            learned = self._learn(
                detector, pin, part, image, infill, full[span], empty[span], keys=(self.name, seed, image_key)
            )
            maps += [
                self._map(learned, t, target, image, float(full[start + t]), float(empty[start + t]), infill)
                for t, target in enumerate(part)
            ]
        return maps

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
        """Optimise the masks of B targets; F(1) and F(0) are (B,), `keys` those of every random draw."""
        raise NotImplementedError

    def own(self, scores: Scores, u: Tensor) -> Tensor:
        """s_b(u_b): composites (B D, 3, h, w), D for each of the B targets in turn -> (B, D)."""
        with autocast(self.options.precision, u.device):
            values = scores(u.contiguous(memory_format=torch.channels_last))  # (B D, B)
        count = len(scores)
        each = torch.arange(count, device=u.device)
        return values.view(count, -1, count)[each, :, each]

    @torch.no_grad()
    def evaluate(self, scores: Scores, u: Tensor) -> NDArray[np.float64]:
        """F (n, T) of images (n, 3, h, w)."""
        with autocast(self.options.precision, u.device):
            return np.asarray(scores(u).double().cpu().numpy())

    def _map(
        self,
        learned: Learned,
        t: int,
        target: Target,
        image: Tensor,
        full: float,
        empty: float,
        infill: Infill,
    ) -> GridMap:
        values, masked = learned.values[t], float(learned.masked[t])
        if not (np.isfinite(values).all() and math.isfinite(full + empty + masked)):
            raise StageError(
                f"{self.name}: expected finite scores and gradients, got nan or infinity; try "
                f"--precision fp32 or --target probability"
            )
        cell = (image.shape[2] / values.shape[1], image.shape[1] / values.shape[0])
        extra = {"masked": masked, **learned.extra[t]}
        if infill.holes:
            extra["painted"] = float(infill.shared + learned.painted[t])
        floor = EVIDENCE_FLOOR[target.kind]
        return GridMap(
            values=values.astype(np.float32),
            scale=cell,
            offset=(cell[0] / 2, cell[1] / 2),
            full=full,
            empty=empty,
            gap=math.nan,
            passes=learned.passes[t],
            evidence=bool(abs(masked - learned.reference[t]) > floor and values.max() > 0),
            extra=extra,
        )
