"""The target scalar s of METHODS.md: candidates' scores as numbers per masked image.

In: masked inputs u (B, 3, h, w). Out: (B, T), one column per target (candidate, class, probability or
log-odds). All targets of an image share one forward pass: candidates named twice are gathered once. Nothing
passes through NMS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError, InputError
from curator.explain.base import Target
from store.records import Pin


class TargetScores:
    """Scores of some targets of one image, as a function of the input.

    Args:
        targets: at least one.
    Raises:
        InputError: no target, or one whose class the detector does not have.
    """

    def __init__(self, detector: Detector, pin: Pin, targets: Sequence[Target]) -> None:
        if not targets:
            raise InputError("explain: expected at least one target, got none")
        for target in targets:
            if not 0 <= target.label < len(detector.classes) or target.candidate < 0:
                last = len(detector.classes) - 1
                raise InputError(
                    f"explain: expected a class of 0 to {last} and a candidate of at least 0, got {target}"
                )
        self.targets = tuple(targets)
        self._detector, self._pin = detector, pin
        unique = sorted({target.candidate for target in targets})
        self._index = torch.tensor(unique, dtype=torch.int64)  # (q,)
        self._rows = torch.tensor([unique.index(target.candidate) for target in targets])  # (T,)
        self._labels = torch.tensor([target.label for target in targets])  # (T,)
        self._log_odds = torch.tensor([target.kind == "log_odds" for target in targets])  # (T,)

    def __len__(self) -> int:
        return len(self.targets)

    def __call__(self, u: Tensor) -> Tensor:
        """u (B, 3, h, w) -> (B, T) float32, differentiable with respect to u.

        Raises:
            ConfigError: a log-odds target of a detector that gives probabilities alone.
        """
        candidates = self._detector.candidates(u, self._pin, index=self._index.to(u.device))
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
            self._log_odds.to(u.device), self._pick(candidates.log_odds), self._pick(candidates.scores)
        )

    def _pick(self, values: Tensor) -> Tensor:
        """values (B, q, K) -> (B, T)."""
        return values.float()[:, self._rows, self._labels]
