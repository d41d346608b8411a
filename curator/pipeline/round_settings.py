"""Settings of `loop`, and how its rounds are diagnosed; imports nothing heavy for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.config import option, require, required
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.prove.settings import TrainConfig, TrainerConfig
from curator.query.settings import QueryConfig
from curator.synthesize.settings import SynthesizeConfig

if TYPE_CHECKING:
    from curator.diagnose.current import Current
    from store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the first detector was detected and diagnosed, and so every round's: fields of both settings."""

    score_floor: float = 0.05
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    low_score: float | None = None
    background_iou: float = 0.1
    class_map: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Asked:
        """From what `plain` gave, or a configuration that holds more."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in known})

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def detect(self, spec: str, device: str) -> DetectConfig:
        """Detections low enough for the threshold."""
        floor = min(self.score_floor, self.score_threshold)
        return DetectConfig(detector=spec, score_floor=floor, device=device)

    def diagnose(self, spec: str, device: str) -> DiagnoseConfig:
        """The same judgement of another detector."""
        own = {name: value for name, value in self.plain().items() if name != "score_floor"}
        return DiagnoseConfig(detector=spec, device=device, **own)


def asked_of(store: Store, current: Current) -> Asked:
    """How the current diagnosis was made."""
    diagnosed = store.current_run("diagnose")
    floors = [
        run.config["score_floor"]
        for run in store.runs(stage="detect")
        if run.config_key == current.detections_key and current.model.fingerprint in run.models[:1]
    ]
    known = dict(diagnosed.config) if diagnosed is not None else {}
    return Asked.from_plain(
        {**known, **({"score_floor": floors[0]} if floors else {}), "class_map": dict(current.class_map)}
    )


@dataclass(frozen=True, kw_only=True)
class LoopConfig(TrainerConfig):
    """`curator loop`."""

    out: Path = required("Folder that gets a detector per round.")
    rounds: int = option(3, "Rounds at most; it stops where a round gains no more than chance.")
    name: str = option("loop", "Name of the loop, and of the selection of all that it chose.")
    detector: str | None = option(None, "Detector to begin with; default: the diagnosed one.")
    failures: str = option("", "Which failures ask, as for curator query; empty: all.")
    method: str = option("predictor", "How the pool is ranked, as for curator query.")
    budget: int = option(40, "Pool images chosen per round.")
    embedder: str = option("detector:", "Embedder of every round's index, as for curator index.")
    samples: int = option(0, "Samples painted per round (curator synthesize); 0: none.")
    inpainter: str = option("", "Who paints them, as for curator synthesize.")
    score_threshold: float | None = option(None, "A detection at or above it counts; default: as diagnosed.")
    class_map: dict[str, str] = option(
        {},
        "A detector class in terms of the data set's; default: as diagnosed; may be repeated.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "rounds")
        self._at_least(0, "samples")
        named = self.score_threshold
        require(named is None or 0 < named <= 1, f"score_threshold: expected 0 < t <= 1, got {named}")
        self.query("check", ())
        self.train("check:", self.out, {})

    def asked(self, known: Asked) -> Asked:
        """How every round is diagnosed: as `known`, where the settings say nothing else."""
        given: dict[str, Any] = {"score_threshold": self.score_threshold, "class_map": self.class_map}
        return replace(known, **{name: value for name, value in given.items() if value})

    def train(
        self,
        detector: str,
        out: Path,
        class_map: Mapping[str, str],
        selections: tuple[str, ...] = (),
        samples: tuple[str, ...] = (),
    ) -> TrainConfig:
        """The training of a round."""
        own = {f.name for f in fields(self)} & {f.name for f in fields(TrainConfig)}
        shared = {name: getattr(self, name) for name in own - {"detector", "out", "samples", "class_map"}}
        return TrainConfig(
            **shared,
            detector=detector,
            out=out,
            selections=selections,
            samples=samples,
            class_map=dict(class_map),
        )

    def query(self, name: str, without: tuple[str, ...]) -> QueryConfig:
        """The query of a round, which chooses nothing that earlier ones chose."""
        return QueryConfig(
            name=name,
            without=without,
            failures=self.failures,
            method=self.method,
            budget=self.budget,
            embedder=self.embedder,
            seed=self.seed,
            device=self.device,
        )

    def synthesize(self, name: str) -> SynthesizeConfig:
        """The samples of a round, painted into the training images and what it chose."""
        return SynthesizeConfig(
            name=name,
            selection=name,
            budget=self.samples,
            inpainter=self.inpainter,
            failures=self.failures,
            seed=self.seed,
            device=self.device,
        )
