"""The trainer seam: from initial weights and labelled images to a trained detector.

A trainer is named by a spec, `curator train|verify --trainer SPEC`:
  torchvision:   here, in this process; detectors with a loss (torchvision:, curator:, builtin:, ...)
  ultralytics:   Ultralytics' own trainer, in a process of its own
  hf:            the Trainer of `transformers`, in a process of its own
  command:...    any program; see `trainers/command.py`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from curator.detect.base import Detector
from curator.errors import InputError
from curator.page import Pixels
from curator.prove.training_data import TrainingFiles, TrainingRecipe
from curator.registry import TRAINERS, Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """What the user says of a trainer; plain data. The last five are for trainers that run a program.

    Attributes:
        spec: of the trainer; "" for the one that fits the detector.
        format: of the data set that it reads.
        trained: spec of the detector that it writes, with {out} in it.
        init: file of the initial weights, "" for the one that the detector's spec names.
        init_detector: spec that reads `init`, "" for `trained` with `init` in place of what is written.
        timeout: seconds that one training may take, 0 for any.
    """

    spec: str = ""
    format: str = "yolo"
    trained: str = ""
    init: str = ""
    init_detector: str = ""
    timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained detector.

    Attributes:
        spec: that loads it from where it was written.
        figures: plain JSON, such as the loss.
    """

    detector: Detector
    spec: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Trains a copy of a detector.

    Attributes:
        default_weight: how often an added image is drawn relative to an original, unless the user says.
    """

    default_weight: float

    def identity(self) -> Any:
        """Plain JSON of what changes the trained weights besides detector, images, recipe and seed."""

    def check(self, detector: Detector, images: Sequence[Pixels], device: str) -> None:
        """Refuse what cannot work before anything is trained.

        Args:
            images: a few stored images, (H, W, 3) uint8 RGB.
        Raises:
            InputError: says what to do.
        """

    def train(
        self,
        detector: Detector,
        files: TrainingFiles,
        out: Path,
        *,
        recipe: TrainingRecipe,
        seed: int,
        device: str,
    ) -> Trained:
        """Train from the detector's weights; a killed training may be continued from what lies in `out`.

        Args:
            out: folder of this training alone; the trained weights stay in it.
        Raises:
            InputError, StageError: one line.
        """


def load_trainer(settings: TrainerSettings, detector: Detector) -> Trainer:
    """The named trainer, or the one that fits the detector.

    Raises:
        RegistryError: an unknown one. InputError: options that only a command takes.
    """
    text = settings.spec or _fitting(detector)
    scheme = text.partition(":")[0]
    factory = TRAINERS.load(scheme)
    given = [
        option
        for option, value, default in (
            ("--trained", settings.trained, ""),
            ("--init", settings.init, ""),
            ("--init-detector", settings.init_detector, ""),
            ("--trainer-format", settings.format, TrainerSettings().format),
        )
        if value != default
    ]
    if given and scheme != "command":
        raise InputError(f"{', '.join(given)}: only a program that you name takes it (--trainer command:...)")
    trainer: Trainer = factory(text if ":" in text else f"{text}:", settings)
    return trainer


def _fitting(detector: Detector) -> str:
    scheme = Spec.parse(detector.spec).scheme
    return {"ultralytics": "ultralytics:", "hf": "hf:", "detr": "hf:"}.get(scheme, "torchvision:")
