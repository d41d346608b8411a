"""Settings of `detect`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from curator.config import StageConfig, require, speed_only


@dataclass(frozen=True, kw_only=True)
class DetectConfig(StageConfig):
    """`curator detect`.

    Attributes:
        detector: registry spec.
        roles: whose images are run.
        score_floor: detections below it are not stored.
    """

    detector: str
    roles: tuple[str, ...] = ("mine",)
    score_floor: float = 0.05
    batch_size: int = speed_only(8)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.score_floor < 1, f"score_floor: expected 0 <= floor < 1, got {self.score_floor}")
        self._at_least(1, "batch_size")
