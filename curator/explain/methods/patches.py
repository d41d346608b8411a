"""Sliding patch, SP (Zeiler & Fergus, ECCV 2014; eq. 2 and section 3.3 of the G-methods paper), and SP-G.

In: an image, targets, a fill. Out: A_ij = F(x) - F(x with window (i, j) repainted) on the grid of windows;
positive where hiding the window lowers the score. SP shows a colour in the window; with an inpainter's hole
fill it is SP-G. Windows of `patch` px slide by `stride` over the picture (not over letterbox padding). The
grid is regular and reaches all edges: where the stride does not divide what is left, it overhangs the picture
by less than a stride, split between both ends, and an overhanging window hides its part inside. The map's
affine gives the windows' centres exactly. For 224 x 224 the defaults give the paper's 66 x 66 windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.pixel_masks import covering_grid, grid_maps, painter, score_images
from curator.explain.segments import picture_box
from curator.explain.target import Scores, scores_of
from curator.precision import Precision
from store.records import GridMap, Pin, SegmentMap


def drops(
    scores: Scores,
    image: Tensor,
    paint: Callable[[Tensor], Tensor],
    holes: Iterable[Tensor],
    full: NDArray[np.float64],
    *,
    batch_size: int,
    precision: Precision,
) -> tuple[NDArray[np.float64], int]:
    """F(x) - F(x with a hole repainted) for each hole.

    Args:
        image: x (3, h, w). paint: repaints holes, see `painter`. holes: n times (h, w) bool.
        full: F(x) (T,).
    Returns:
        (n, T), exactly 0 where repainting changes no pixel (such images are not run), and the images run.
    """
    rows: list[NDArray[np.float64]] = []
    run = 0
    pending = iter(holes)
    while batch := list(itertools.islice(pending, batch_size)):
        painted = paint(torch.stack(batch))
        changed = [i for i, u in enumerate(painted) if not torch.equal(u, image)]
        found = np.zeros((len(batch), len(full)))
        found[changed] = full - score_images(
            scores, [painted[i] for i in changed], batch_size=batch_size, precision=precision
        )
        rows.append(found)
        run += len(changed)
    return np.concatenate(rows), run


class SlidingPatch:
    """SP and SP-G. Settings: `patch` (29), `stride` (3), input pixels."""

    name = "sp"
    takes: tuple[FillKind, ...] = ("hole", "continuous")
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("patch", "stride"))
        self.patch = self.options.whole("patch", 29, low=1)
        self.stride = self.options.whole("stride", 3, low=1)

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

        Returns:
            a `GridMap` of the windows per target, in units of the target. Segments play no part; seed is the
            hole fill's. F(0) is the score of the image repainted as a whole. `passes` counts the windows that
            change a pixel, and the two ends.
        Raises:
            InputError: no target, or one that the detector does not have.
        """
        scores = scores_of(detector, pin, targets)
        paint = painter(fill, image, detector, seed)
        grid = covering_grid(picture_box(pin), self.patch, self.stride)
        shape = len(grid.rows), len(grid.columns)
        batch_size = self.options.batch_size
        places = list(itertools.product(range(shape[0]), range(shape[1])))
        precision = self.options.precision
        everything = torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
        full, empty = score_images(
            scores, [image, *paint(everything[None])], batch_size=batch_size, precision=precision
        )
        values, run = drops(
            scores,
            image,
            paint,
            (grid.hole(*place, image) for place in places),
            full,
            batch_size=batch_size,
            precision=precision,
        )  # (R C, T)
        count = len(targets)
        return [
            *grid_maps(
                self.name,
                targets,
                list(values.T.reshape(count, *shape)),
                full,
                empty,
                scale=[grid.scale] * count,
                offset=[grid.offset] * count,
                passes=[run + 2] * count,
            )
        ]
