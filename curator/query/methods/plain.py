"""The plain rivals that a method must beat: chance, and the detector's own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from curator.query.asked import Asked, Images, Mined
from curator.query.methods.base import Array
from store.records import BoxRows, ClassRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Every image with equal chance."""

    seed: int = 0
    pooling: Literal["sum", "max"] = "sum"
    expects: bool = False
    note: str = ""
    learns: ClassVar[bool] = False

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> Random:
        """Nothing is learnt."""
        return Random(seed=seed)

    def values(self, rows: BoxRows) -> Array:
        """A number of the image's id and the seed, at its first box."""
        images = Images.of(rows.image_ids)
        result = np.zeros(len(rows))
        result[images.starts] = [np.random.default_rng([self.seed, int(i)]).random() for i in images.ids]
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Candidates about which the detector is unsure, of any class: the sum of p (1 - p)."""

    pooling: Literal["sum", "max"] = "sum"
    expects: bool = False
    note: str = ""
    learns: ClassVar[bool] = False

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> Uncertainty:
        """Nothing is learnt."""
        return self

    def values(self, rows: BoxRows) -> Array:
        """p (1 - p) of each candidate's best class."""
        best = np.asarray(rows.scores[:, 0], np.float64)
        return np.asarray(best * (1 - best))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassUncertainty:
    """Uncertainty about the asked class: for a false positive 1 - p of the detections of the class, for a
    miss p of its candidates below the threshold. It learns nothing: the fallback."""

    asked: Asked | None = None
    pooling: Literal["sum", "max"] = "sum"
    expects: bool = False
    note: str = ""
    learns: ClassVar[bool] = False

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> ClassUncertainty:
        """Remember what is asked."""
        return ClassUncertainty(asked=asked)

    def values(self, rows: BoxRows | ClassRows) -> Array:
        """See the class; what the detector says is all it reads."""
        if self.asked is None:
            raise ValueError("class-uncertainty: fit it first")
        own = np.zeros(rows.labels.shape, np.bool_)
        for label in self.asked.labels:
            own |= rows.labels == label
        score = np.where(own, rows.scores, 0).max(1, initial=0).astype(np.float64)
        detected = score >= self.asked.threshold
        return np.where(detected, 1 - score, 0) if self.asked.kind == "FP" else np.where(detected, 0, score)
