"""`train`: fine-tune a detector on the training images, named selections and accepted samples.

In: a `TrainConfig`; images of role train with their labels, selected pool images with theirs, samples; those
that equal a holdout image are left out.
Out: the trained weights at `config.out` (`curator:PATH` reads them). A killed training continues from its
last checkpoint, kept under `WORKSPACE/training/KEY/`, and ends with the weights of an undisturbed one; a
finished one is not repeated. What verify trains goes through the same `fine_tune`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.data.additions import LeftOut
from curator.data.run_additions import left_out
from curator.detect.base import TrainableDetector
from curator.detect.load import load_detector
from curator.diagnose.run_current import class_map
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.outputs import require_file
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.matching import ClassMap
from curator.precision import resolve_precision
from curator.prove.run_arms import human_labels, usable_hits, usable_samples
from curator.prove.run_verify import read_training, training_targets
from curator.prove.settings import TrainConfig
from curator.prove.trainers.fine_tune import FineTuneConfig
from curator.prove.trials import TrainingFiles, TrainingImage
from curator.registry import TRAINERS
from curator.tensors import resolve_device
from store.keys import content_key

if TYPE_CHECKING:
    from store.store import Store

STAGE = "train"
STAGE_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingItem:
    """One training: the images it sees."""

    originals: tuple[TrainingImage, ...]
    added: tuple[TrainingImage, ...]


@dataclass
class TrainWork:
    """Trains; plain data (`jobs.base.Work`).

    Attributes:
        fingerprint: of the initial weights that `config.detector` names. folder: where checkpoints and the
            finished weights of each training live, by key.
    """

    config: TrainConfig
    fingerprint: str
    folder: str
    batch_size: int = 1

    def key(self, item: TrainingItem) -> str:
        """Content key: initial weights, labelled images, and the settings that change the weights."""
        config = self.config
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.fingerprint,
            [_identity(image) for image in item.originals],
            [_identity(image) for image in item.added],
            config.steps,
            config.batch_size,
            config.learning_rate,
            config.weight_decay,
            config.added_weight,
            config.flip,
            config.zoom,
            config.precision,
            config.batch_norm,
            config.seed,
        )

    def weights(self, item: TrainingItem) -> Path:
        """Where the finished weights lie."""
        return Path(self.folder) / self.key(item)[:16] / "weights.safetensors"

    def setup(self, device: str) -> tuple[TrainableDetector, str]:
        """Load the initial weights.

        Raises:
            InputError: the detector cannot be trained.
        """
        detector = load_detector(self.config.detector, device)
        if not isinstance(detector, TrainableDetector):
            raise InputError(
                f"{self.config.detector}: cannot be trained here (no loss); train needs a torchvision: or "
                "curator: detector. Export the data set and train with your own framework instead"
            )
        return detector, device

    def process(
        self, state: tuple[TrainableDetector, str], batch: Sequence[TrainingItem]
    ) -> list[dict[str, Any]]:
        """Train on each item; returns figures."""
        return [self._train(*state, item) for item in batch]

    def _train(self, detector: TrainableDetector, device: str, item: TrainingItem) -> dict[str, Any]:
        config = self.config
        weights = self.weights(item)
        finished = weights.with_name("figures.json")
        if weights.is_file() and finished.is_file():  # killed after the training, before it was recorded
            stored: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
            return stored
        checkpoint = weights.with_name("checkpoint.safetensors")
        settings = FineTuneConfig(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            flip=config.flip,
            zoom=config.zoom,
            batch_norm=config.batch_norm,
            precision=config.precision,
            device=device,
        )
        trained, losses = TRAINERS.load("builtin")(
            detector,
            TrainingFiles(item.originals, item.added, config.added_weight),
            settings,
            checkpoint=checkpoint,
        )
        trained.save(weights)
        figures = {
            "fingerprint": trained.fingerprint,
            "loss_first": float(np.mean(losses[:20])),
            "loss_last": float(np.mean(losses[-20:])),
        }
        finished.write_text(json.dumps(figures), encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
        return figures


def train(store: Store, config: TrainConfig, *, executor: Executor | None = None) -> StageResult:
    """Train and write `config.out`.

    Returns:
        with the summary {"out", "detector" (its spec), "fingerprint", "images", "added", "loss_first",
        "loss_last", "missing_classes", "left_out" (number of images that tell of
        the holdout), "left_out_by_reason", "warnings"}.
    Raises:
        InputError: no training images, a selected image without labels, no accepted sample, or a detector
            that cannot be trained.
    """
    require_file(config.out)
    detector = load_detector(config.detector, config.device)
    classes = class_map(store, detector.classes, config.class_map)
    config = replace(config, precision=resolve_precision(config.precision, resolve_device(config.device)))
    without = left_out(store, config.selections, config.samples)
    item = TrainingItem(
        originals=read_training(store, classes, without.originals),
        added=_added(store, config, classes, without),
    )
    work = TrainWork(config, detector.fingerprint, str(store.path / "training"))
    weights = work.weights(item)
    with recorded_run(store, STAGE, config, models=(detector.fingerprint,)) as (run_id, counts):
        if not weights.is_file() and store.done_keys(STAGE, [work.key(item)]):
            work.process(work.setup(config.device), [item])  # the record outlived its file

        def save(done: Done) -> None:
            """The weights are on disk already; the item's status is all that the database holds."""

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=[item],
            save=save,
            describe=lambda _: str(config.out),
            device=config.device,
            executor=executor,
        )
        if result.failed:
            return result
        figures: dict[str, Any] = json.loads(weights.with_name("figures.json").read_text(encoding="utf-8"))
        _copy(weights, config.out)
    return replace(
        result,
        summary={
            "out": str(config.out),
            "detector": f"curator:{config.out}",
            "images": len(item.originals),
            "added": len(item.added),
            "missing_classes": list(classes.missing),
            **figures,
            **without.summary(),
        },
    )


def _added(
    store: Store, config: TrainConfig, classes: ClassMap, without: LeftOut
) -> tuple[TrainingImage, ...]:
    """Selected pool images and accepted samples, each once, in the order of their hashes."""
    added: dict[str, TrainingImage] = {}
    for name in config.selections:
        ids = usable_hits(store, name, without)
        labels = store.annotations(ids, reader="train")
        human_labels(labels, ids, name)
        for image in store.images(reader="train", ids=ids):
            added[image.sha256] = TrainingImage(
                sha256=image.sha256, uri=image.uri, **training_targets(labels[image.id].annotations, classes)
            )
    for name in config.samples:
        for sample in usable_samples(store, name, without):
            added[sample.blob] = TrainingImage(
                sha256=sample.blob,
                data=store.blob(sample.blob),
                **training_targets(sample.annotations, classes),
            )
    return tuple(added[key] for key in sorted(added))


def _identity(image: TrainingImage) -> dict[str, Any]:
    return {"sha256": image.sha256, "boxes": image.boxes, "labels": image.labels}


def _copy(source: Path, out: Path) -> None:
    """Copy by way of a temporary file, unless `out` holds the same bytes."""
    if out.is_file() and out.read_bytes() == source.read_bytes():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    shutil.copyfile(source, part)
    part.replace(out)
