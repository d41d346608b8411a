"""Settings of `synthesize`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from curator.config import StageConfig, speed_only


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(StageConfig):
    """`curator synthesize`.

    Attributes:
        name: of the batch of samples. selection: its hits may serve as exemplars and scenes.
        budget: accepted samples wanted. attempts: plans tried per accepted sample at most.
        inpainter: `builtin:` (paints the built-in example's flowers alone), `auto:FOLDER_OR_ID`,
            `diffusers:ClassName:ID` or `curator:DIR`.
        recipes: registry names; each failure is answered by those that know its kind. steps: of the sampler.
    """

    name: str = "synthesis"
    detector: str | None = None
    failures: str = ""
    selection: str | None = None
    budget: int = 50
    attempts: int = 3
    inpainter: str = "builtin:"
    recipes: tuple[str, ...] = ("culprit", "lookalike", "appearance")
    steps: int = 20
    batch_size: int = speed_only(8)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "attempts", "steps", "batch_size")
