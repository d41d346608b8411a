"""Settings of `diagnose`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from curator.config import StageConfig, check_thresholds, option, require


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(StageConfig):
    """`curator diagnose`.

    Attributes:
        iou_threshold: t_iou.
        low_score: t_low of FN rule (a).
        background_iou: TIDE's t_bg.
    """

    detector: str | None = option(None, "Spec whose detections are judged; default: the last that ran.")
    score_threshold: float = option(0.5, "A detection at or above it counts.")
    iou_threshold: float = option(0.5, "Overlap that a match needs at least.")
    low_score: float | None = option(
        None,
        "Below it a candidate's score says nothing; default: the 99.9% quantile of the detector's scores on "
        "background.",
    )
    class_map: dict[str, str] = option(
        {},
        "A detector class in terms of the data set's; may be repeated. Unnamed classes map to their own "
        "name.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )
    background_iou: float = 0.1

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


@dataclass(frozen=True, kw_only=True)
class SuspectsConfig(StageConfig):
    """`curator suspects`."""

    minimum: float = option(0.5, "Probability from which a label is a suspect; queries leave these out.")
    rate: float | None = option(
        None,
        "Share of the labels that are wrong, where you know it, e.g. 0.05; default: what the data allow at "
        "most.",
    )
    confirm: tuple[int, ...] = option(
        (),
        "Suspects whose label is wrong, by id, joined by commas: never mined.",
        metavar="IDS",
        joined=True,
        result=False,
    )
    clear: tuple[int, ...] = option(
        (),
        "Suspects whose label is right, by id, joined by commas: mined again.",
        metavar="IDS",
        joined=True,
        result=False,
    )
    forget: tuple[int, ...] = option(
        (),
        "Suspects of which nothing is to be said any more, by id, joined by commas.",
        metavar="IDS",
        joined=True,
        result=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.minimum <= 1, f"minimum: expected 0 < P <= 1, got {self.minimum}")
        told = self.rate is None or 0 < self.rate <= 0.5
        require(told, f"rate: expected a share above 0 and up to 0.5, got {self.rate}")
        named = [*self.confirm, *self.clear, *self.forget]
        twice = sorted({number for number in named if named.count(number) > 1})
        require(not twice, f"confirm, clear, forget: expected each suspect once, got {twice} twice")
