"""`torchvision:`, the trainer of detectors that have a loss here; see `fine_tune` for what it does.

    torchvision:?ema=0.999&freeze=backbone

ema: the weights kept are a running mean over the steps (Polyak averaging; Tarvainen and Valpola,
arXiv:1703.01780), with this decay after a warm-up. freeze: parameters whose names begin so are not trained;
several by commas.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curator.detect.base import Detector, TrainableDetector
from curator.errors import InputError
from curator.page import Pixels
from curator.prove.trainers.base import Trained, TrainerSettings
from curator.prove.trainers.fine_tune import FineTuneConfig, fine_tune
from curator.prove.trainers.watch import Watch
from curator.prove.training_data import TrainingFiles, TrainingRecipe
from curator.registry import Spec

CHECKPOINT = "checkpoint.safetensors"  # in the folder of a training


class TorchvisionTrainer:
    """See `curator.prove.trainers.base.Trainer`."""

    default_weight = 3.0

    def __init__(self, text: str, settings: TrainerSettings) -> None:
        """Read the options.

        Raises:
            RegistryError: unknown ones. InputError: a decay that is no share.
        """
        spec = Spec.parse(text).only(("ema", "freeze"))
        try:
            self.ema = float(spec.options.get("ema", "0"))
        except ValueError:
            self.ema = -1.0
        if not 0 <= self.ema < 1:
            raise InputError(f"{text}: ema: expected 0 <= decay < 1, got {spec.options['ema']}")
        self.watch: Watch | None = None
        self.freeze = tuple(part for part in spec.options.get("freeze", "").split(",") if part)

    def identity(self) -> Any:
        """The options."""
        return ["torchvision", self.ema, self.freeze]

    def check(self, detector: Detector, images: Sequence[Pixels], device: str) -> None:
        """Does it have a loss?

        Raises:
            InputError: it has none.
        """
        self._trainable(detector)

    def _trainable(self, detector: Detector) -> TrainableDetector:
        if not isinstance(detector, TrainableDetector):
            raise InputError(
                f"{detector.spec}: cannot be trained here (no loss); train it with your own program by "
                "--trainer 'command:python train.py --data {dataset} ...' (docs/training.md)"
            )
        return detector

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
        """Train; continues from the checkpoint in `out`, writes `out/weights.safetensors`.

        The checkpoint of the last step stays there: given again before what follows is done, nothing is
        trained.
        """
        checkpoint = out / CHECKPOINT
        settings = FineTuneConfig(
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            seed=seed,
            flip=recipe.flip,
            zoom=recipe.zoom,
            batch_norm=recipe.batch_norm,
            precision=recipe.precision,
            device=device,
            ema=self.ema,
            freeze=self.freeze,
        )
        trained, losses = fine_tune(
            self._trainable(detector), files, settings, checkpoint=checkpoint, watch=self.watch
        )
        weights = out / "weights.safetensors"
        trained.save(weights)
        figures: dict[str, Any] = {
            "fingerprint": trained.fingerprint,
            "loss_first": float(np.mean(losses[:20])),
            "loss_last": float(np.mean(losses[-20:])),
        }
        if self.watch is not None:
            figures["watched"] = [[step, None if np.isnan(ap) else ap] for step, ap in self.watch.seen]
        return Trained(trained, f"curator:{weights}", figures)
