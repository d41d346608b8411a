"""Settings of `detect`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from curator.config import StageConfig, option, require, required


@dataclass(frozen=True, kw_only=True)
class DetectConfig(StageConfig):
    """`curator detect`."""

    detector: str = required(
        "Detector spec, e.g. torchvision:ssd300_vgg16?weights=PATH, onnx:best.onnx, "
        "ultralytics:best.pt, curator:PATH, builtin:."
    )
    roles: tuple[str, ...] = option(
        ("mine",), "Whose images: mine (default), train, pool; may be repeated.", flag="role"
    )
    score_floor: float = option(0.05, "Detections that score lower are not stored.")
    batch_size: int = option(8, "Images per forward pass.", result=False)
    trust_pickle: bool = option(
        False,
        "The detector's .pt file may run the code that it holds: read it, once, in a process of its own "
        "(ultralytics:FILE.pt).",
        result=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.score_floor < 1, f"score_floor: expected 0 <= floor < 1, got {self.score_floor}")
        self._at_least(1, "batch_size")
