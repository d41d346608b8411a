"""The target scalar s of METHODS.md: candidates' scores as numbers per masked image.

In: masked inputs u (B, 3, h, w). Out: (B, T), one column per target (candidate, class, probability or
log-odds). All targets of an image share one forward pass: candidates named twice are gathered once. Nothing
passes through NMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from curator.boxes import iou
from curator.detect.base import Candidates, Detector, FeatureMap
from curator.detect.checking import predict_all
from curator.errors import ConfigError, InputError
from curator.explain.base import Target, TargetChoice, TargetKind
from store.records import Pin

PREDICTED = 0.01
"""Detections of a black box below this score count as nothing predicted."""
LEAST = 1e-6
"""A similarity below counts as this one in log-odds."""


class Scores(Protocol):
    """Scores of some targets of one image: u (B, 3, h, w) -> (B, T) float32."""

    targets: tuple[Target, ...]

    def __len__(self) -> int: ...

    def __call__(self, u: Tensor) -> Tensor: ...


def scores_of(detector: Detector, pin: Pin, targets: Sequence[Target]) -> Scores:
    """The targets' scores by candidate, or by what is predicted where the detector is a black box.

    Raises:
        InputError: no target, a class that the detector does not have, or no box where one is needed.
    """
    return (PredictionScores if detector.modules() is None else TargetScores)(detector, pin, targets)


def target_kind(
    wanted: TargetChoice, detector: Detector, image: Tensor, pin: Pin, methods: Sequence[Any]
) -> TargetKind:
    """What "auto" means here: log-odds where the detector gives them and all `methods` can use them.

    Log-odds move where a probability is saturated near 0 or 1, and are nearer to additive: every method comes
    nearer to Shapley's values with them (docs/decisions/0006).

    Args:
        image: x (3, h, w) in the pin's input frame; its candidates are asked for once.
        methods: attribution methods; one with `by_prediction` explains predictions, which have no log-odds.
    """
    if wanted != "auto":
        return wanted
    if detector.modules() is None or any(getattr(method, "by_prediction", False) for method in methods):
        return "probability"
    with torch.no_grad():
        first = torch.zeros(1, dtype=torch.int64, device=image.device)
        found = detector.candidates(image[None], pin, index=first)
    return "probability" if found.log_odds is None else "log_odds"


def refuse_impossible(method: Any, detector: Detector, wanted: TargetChoice) -> None:
    """Refuse before the first image what no image could be explained with.

    Raises:
        ConfigError: a method that looks into the network of a black box, or log-odds of predictions.
    """
    black_box = detector.modules() is None
    if black_box and method.gradients:
        raise _no_network(detector)
    if wanted == "log_odds" and (black_box or getattr(method, "by_prediction", False)):
        raise _no_log_odds()


def _no_network(detector: Detector) -> ConfigError:
    return ConfigError(
        f"explain: expected a detector with a network to look into, got the black box {detector.spec}; use a "
        f"method that only runs it: --method drise, permutation, occlusion, sp, lime or kernel_shap"
    )


def _no_log_odds() -> ConfigError:
    return ConfigError(
        "--target log_odds: a target by prediction is 0 where nothing is found; use probability"
    )


def _checked(detector: Detector, targets: Sequence[Target]) -> tuple[Target, ...]:
    if not targets:
        raise InputError("explain: expected at least one target, got none")
    for target in targets:
        if not 0 <= target.label < len(detector.classes) or target.candidate < 0:
            last = len(detector.classes) - 1
            raise InputError(
                f"explain: expected a class of 0 to {last} and a candidate of at least 0, got {target}"
            )
    return tuple(targets)


class TargetScores:
    """Scores of some targets as a function of the input.

    A target is followed by its candidate: the same anchor or query on every masked input. Where a detector
    draws its queries from the input (`Detector.fixed_candidates` False: RT-DETR, D-FINE, RF-DETR) no index
    means the same twice; there, with B the target's box and c its class,

        s(z) = max_q IoU(box_q(z), B) p_q(z)[c]

    over all candidates, with gradients through the best one (METHODS.md, "similarity target").

    Args:
        targets: at least one.
        similar: follow by similarity; None: where candidates are not fixed.
    Raises:
        InputError: no target, one whose class the detector does not have, or no box where one is needed.
        ConfigError: a black box, which has no candidates.
    """

    def __init__(
        self, detector: Detector, pin: Pin, targets: Sequence[Target], *, similar: bool | None = None
    ) -> None:
        if detector.modules() is None:
            raise _no_network(detector)
        self.targets = _checked(detector, targets)
        self._detector, self._pin = detector, pin
        self._similar = not getattr(detector, "fixed_candidates", True) if similar is None else similar
        self._labels = torch.tensor([target.label for target in targets])  # (T,)
        self._log_odds = torch.tensor([target.kind == "log_odds" for target in targets])  # (T,)
        if self._similar:
            self._boxes = _boxes(targets)
            self._index: Tensor | None = None
            return
        unique = sorted({target.candidate for target in targets})
        self._index = torch.tensor(unique, dtype=torch.int64)  # (q,)
        self._rows = torch.tensor([unique.index(target.candidate) for target in targets])  # (T,)

    def __len__(self) -> int:
        return len(self.targets)

    def __call__(self, u: Tensor) -> Tensor:
        """u (B, 3, h, w) -> (B, T) float32, differentiable with respect to u.

        Raises:
            ConfigError: a log-odds target of a detector that gives probabilities alone.
        """
        return self.look(u)[0]

    def look(self, u: Tensor, levels: Sequence[str] = ()) -> tuple[Tensor, Mapping[str, FeatureMap]]:
        """The scores (B, T), and feature levels of the same graph."""
        if self._index is None:
            with torch.no_grad():
                count = self._detector.candidates(u[:1].detach(), self._pin).scores.shape[1]
            self._index = torch.arange(count)
        found = self._detector.candidates(u, self._pin, index=self._index.to(u.device), levels=levels)
        return (self._like if self._similar else self._followed)(found), found.features

    def _followed(self, candidates: Candidates) -> Tensor:
        if not self._log_odds.any():
            return self._pick(candidates.scores)
        if candidates.log_odds is None:
            raise ConfigError(
                f"--target log_odds: {self._detector.spec} gives probabilities alone, from "
                f"which log-odds cannot be had back; use --target probability"
            )
        if self._log_odds.all():
            return self._pick(candidates.log_odds)
        return torch.where(
            self._log_odds.to(candidates.scores.device),
            self._pick(candidates.log_odds),
            self._pick(candidates.scores),
        )

    def _like(self, candidates: Candidates) -> Tensor:
        found = similarity(candidates, self._boxes, self._labels.tolist())
        odds = torch.logit(found, eps=LEAST)
        return torch.where(self._log_odds.to(found.device), odds, found)

    def _pick(self, values: Tensor) -> Tensor:
        """values (B, q, K) -> (B, T)."""
        return values.float()[:, self._rows, self._labels]


def similarity(candidates: Candidates, boxes: Tensor, labels: Sequence[int]) -> Tensor:
    """max_q IoU(box_q, B) p_q[c] (B, T) float32 of all candidates, differentiable through the best.

    Args:
        boxes: (T, 4) stored-image pixels. labels: T classes.
    """
    columns = []
    for box, label in zip(boxes.to(candidates.scores.device), labels, strict=True):
        own = candidates.boxes if candidates.boxes.ndim == 3 else candidates.boxes[:, :, label]
        overlap = box_iou(own.reshape(-1, 4).double(), box[None]).view(own.shape[:2])
        columns.append((overlap * candidates.scores[..., label]).amax(1))
    return torch.stack(columns, 1).float()


def _boxes(targets: Sequence[Target]) -> Tensor:
    """(T, 4) float64."""
    if any(target.box is None for target in targets):
        raise InputError("explain: expected the targets' boxes for a target by prediction, got none")
    return torch.tensor([target.box for target in targets], dtype=torch.float64)


class PredictionScores:
    """The black-box target: max_j IoU(B_j, box) p_j[label] over what is predicted (METHODS.md, after D-RISE).

    A black box is asked by `predict`, and its boxes in the input frame are mapped to the stored image. A
    detector with candidates is asked for all of them before NMS, whose best at a place NMS keeps anyway.

    Args:
        targets: at least one, each with its box.
    Raises:
        InputError: no target, an unknown class, or a target without its box.
        ConfigError: a log-odds target.
    """

    def __init__(self, detector: Detector, pin: Pin, targets: Sequence[Target]) -> None:
        self.targets = _checked(detector, targets)
        self._boxes = _boxes(targets)
        if any(target.kind == "log_odds" for target in targets):
            raise _no_log_odds()
        self._detector, self._pin = detector, pin
        self._labels = np.array([target.label for target in targets])
        known = detector.modules() is not None
        self._similar = TargetScores(detector, pin, targets, similar=True) if known else None

    def __len__(self) -> int:
        return len(self.targets)

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Tensor:
        """u (B, 3, h, w) -> (B, T) float32; not differentiable."""
        if self._similar is None:
            found = [a.detections for a in predict_all(self._detector, list(u), score_threshold=PREDICTED)]
            rows = [self._best(self._pin.to_image(d.boxes), d.scores, d.labels) for d in found]
            return torch.from_numpy(np.stack(rows).astype(np.float32)).to(u.device)
        return self._similar(u)

    def _best(
        self, boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(T,) of one image's detections."""
        if not len(boxes):
            return np.zeros(len(self))
        same = labels[:, None] == self._labels[None, :]
        return np.asarray((iou(boxes, self._boxes.numpy()) * np.asarray(scores)[:, None] * same).max(0))
