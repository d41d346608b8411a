"""Settings of `diagnose`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

from curator.config import StageConfig, check_thresholds, require


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(StageConfig):
    """`curator diagnose`.

    Attributes:
        detector: registry spec; None takes the workspace's newest.
        score_threshold: a detection at or above it counts.
        iou_threshold: a match needs at least it (t_iou). background_iou: TIDE's t_bg.
        low_score: t_low of FN rule (a); None takes the detector's own quantile.
        class_map: detector class -> data-set class; unnamed classes map to their own name.
    """

    detector: str | None = None
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    background_iou: float = 0.1
    low_score: float | None = None
    class_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            0 <= self.background_iou <= 1, f"background_iou: expected 0 <= t <= 1, got {self.background_iou}"
        )
        require(
            self.low_score is None or 0 <= self.low_score < 1,
            f"low_score: expected 0 <= t < 1, got {self.low_score}",
        )
