"""Settings of `synthesize`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from curator.config import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(StageConfig):
    """`curator synthesize`; each failure is answered by those recipes that know its kind."""

    selection: str | None = option(
        None, "Selection whose labelled images serve as scenes, beside the training set."
    )
    budget: int = option(50, "Number of accepted samples wanted.")
    inpainter: str = option(
        "builtin:",
        "builtin: (paints the built-in example's flowers), curator:DIR, auto:ID (a hub id or folder) or "
        "diffusers:ClassName:ID.",
    )
    recipes: tuple[str, ...] = option(
        ("culprit", "lookalike", "appearance"),
        "culprit, lookalike or appearance; may be repeated; default: all.",
        flag="recipe",
    )
    failures: str = option("", "Which failures to answer, e.g. FN:miss,class=Car; empty: all.")
    name: str = option("synthesis", "Name of the batch of samples.")
    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    attempts: int = option(3, "Plans tried per wanted sample at most.")
    steps: int = option(20, "Denoising steps.")
    batch_size: int = option(8, "Plans per batch.", result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "attempts", "steps", "batch_size")
