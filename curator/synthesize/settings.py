"""Settings of `synthesize`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from curator.config import StageConfig, option, require

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(StageConfig):
    """`curator synthesize`; each failure is answered by those recipes that know its kind."""

    selection: str | None = option(
        None, "Selection whose labelled images serve as scenes, beside the training set."
    )
    budget: int = option(50, "Number of accepted samples wanted.")
    inpainter: str = option(
        "",
        "compose: (real pixels, blended in; the default), train (one is trained on the training images, in "
        "WORKSPACE/inpainter), curator:DIR (from curator train-inpainter), auto:ID (a hub id or folder), "
        "diffusers:ClassName:ID, or builtin: (the built-in example's flowers).",
    )
    strength: float | None = option(
        None,
        "How much of the composition an inpainter gives up, from 0 (keep it) to 1 (paint from nothing); "
        "default: 1 for builtin:, 0.6 for others.",
    )
    train_minutes: float = option(
        60.0, "Minutes that --inpainter train spends at most, earlier runs included.", result=False
    )
    recipes: tuple[str, ...] = option(
        ("object", "context", "culprit", "lookalike", "appearance"),
        "object, context, culprit, lookalike, appearance or removal; may be repeated; default: all but "
        "removal.",
        flag="recipe",
    )
    judge: str = option(
        "pixels:",
        "Embedder by which the gate judges labels, best one that took no part in the query; pixels: needs no "
        "weights.",
    )
    refused: float = option(
        0.15, "Share of untouched real objects that the gate may refuse; its bounds follow from it."
    )
    gate_images: int = option(
        210, "Labelled images that the gate is calibrated on at most, half of them mined ones."
    )
    failures: str = option("", "Which failures to answer, e.g. FN:miss,class=Car; empty: all.")
    name: str = option("synthesis", "Name of the batch of samples.")
    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    attempts: int = option(6, "Plans tried per wanted sample at most.")
    scenes: int = option(
        8,
        "Scenes drawn per plan; object takes the one with the place that looks most like one for its class, "
        "lookalike the one whose surroundings are most like its own, other recipes the first that fits.",
    )
    steps: int = option(20, "Denoising steps.")
    batch_size: int = option(8, "Plans per batch.", result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "attempts", "scenes", "steps", "batch_size", "gate_images")
        require(
            self.strength is None or 0 <= self.strength <= 1,
            f"strength: expected a number in [0, 1], got {self.strength}",
        )
        self._positive("train_minutes")
        require(0 < self.refused < 1, f"refused: expected a share in (0, 1), got {self.refused}")

    def with_trained(self, workspace: Path) -> SynthesizeConfig:
        """The same, with the place of the workspace's own inpainter where that is the one meant."""
        if self.inpainter != TRAIN:
            return self
        folder = own_inpainter(workspace)
        require(
            "?" not in str(folder),
            f"inpainter train: expected a workspace without '?' in its path, got {workspace}",
        )
        return replace(self, inpainter=f"curator:{folder}")


def own_inpainter(workspace: Path) -> Path:
    """Where `--inpainter train` keeps a workspace's own inpainter."""
    return workspace / "inpainter"
