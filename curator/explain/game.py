"""Coalitions of shown segments as a game, with either kind of fill, and its result as stored maps.

In: targets, an image, its segments, a fill. Out: a function of coalitions (n, M), True = shown, that gives
F (n, T): hidden segments show the baseline, or are one hole that is filled at once. What LIME, KernelSHAP and
the Shapley references share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import StageError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, HoleFill, Target
from curator.explain.fills.fill import fill_many
from curator.explain.masked import MaskedImages
from curator.explain.target import Scores
from curator.precision import Precision, autocast
from store.records import SegmentMap

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Coalitions (n, M) of shown segments -> F (n, T)."""


def coalition_game(
    scores: Scores,
    detector: Detector,
    image: Tensor,
    segments: NDArray[np.uint16],
    fill: Fill,
    *,
    seed: int,
    options: AttributionOptions,
) -> Game:
    """The game of one image's segments.

    Args:
        image: x (3, h, w) in the input frame. segments: (h, w) labels 0..M-1. seed: of hole fills that draw.
    Raises:
        InputError: shapes that do not agree.
    """
    if not fill.continuous:
        return _hole_game(scores, image, segments, fill, seed, options.batch_size, options.precision)
    baseline = fill.baseline(image, detector)
    masked = MaskedImages(scores, image, baseline, segments, batch_size=options.batch_size)
    return lambda members: masked.evaluate(members.astype(np.float32), options.precision)


def _hole_game(
    scores: Scores,
    image: Tensor,
    segments: NDArray[np.uint16],
    fill: HoleFill,
    seed: int,
    batch_size: int,
    precision: Precision,
) -> Game:
    labels = torch.from_numpy(segments.astype(np.int64)).to(image.device)

    @torch.no_grad()
    def game(members: NDArray[np.bool_]) -> NDArray[np.float64]:
        rows = []
        for start in range(0, len(members), batch_size):
            hidden = torch.from_numpy(~members[start : start + batch_size]).to(image.device)
            u = fill_many(fill, image, hidden[:, labels], [seed] * len(hidden))
            with autocast(precision, image.device):
                rows.append(scores(u).double().cpu().numpy())
        return np.concatenate(rows)

    return game


def ends_of(game: Game, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F(1) and F(0), (T,) each, of a game of `count` players."""
    full, empty = game(np.stack([np.ones(count, dtype=bool), np.zeros(count, dtype=bool)]))
    return full, empty


def segment_maps(
    name: str,
    targets: Sequence[Target],
    phi: NDArray[np.float64],
    full: NDArray[np.float64],
    empty: NDArray[np.float64],
    *,
    passes: int,
    extra: Sequence[Mapping[str, float]] | None = None,
) -> list[SegmentMap]:
    """A map per target: phi (T, M), F(1) and F(0) (T,), the gap F(1) - F(0) - sum(phi), evidence or none.

    Args:
        passes: forward-equivalents that one target costs alone; a backward counts one. extra: per target.
    Raises:
        StageError: a number that is not finite.
    """
    if not (np.isfinite(phi).all() and np.isfinite(full).all() and np.isfinite(empty).all()):
        raise StageError(
            f"{name}: expected finite scores and gradients, got nan or infinity; try --precision fp32 or "
            f"--target probability"
        )
    return [
        SegmentMap(
            phi=phi[t].astype(np.float32),
            full=float(full[t]),
            empty=float(empty[t]),
            gap=float(full[t] - empty[t] - phi[t].sum()),
            passes=passes,
            evidence=bool(np.abs(phi[t]).max() > EVIDENCE_FLOOR[target.kind]),
            extra=dict(extra[t]) if extra else {},
        )
        for t, target in enumerate(targets)
    ]
