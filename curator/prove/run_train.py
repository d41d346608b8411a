"""`train`: fine-tune a detector on the training images, named selections and accepted samples.

In: a `TrainConfig`; images of role train with their labels, selected pool images with theirs, samples; those
that equal a holdout image are left out.
Out: the trained weights at `config.out` (`curator:PATH` reads them). A killed training continues from its
last checkpoint, kept under `WORKSPACE/training/KEY/`, one that Ctrl-C stopped at the step where it was, and
ends with the weights of an undisturbed one; a finished one is not repeated. What verify trains goes through
the same trainers (`trainers/`). Where a program trains, `config.out` is a folder that gets what the program
wrote.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.config import require
from curator.data.additions import LeftOut
from curator.data.run_additions import left_out
from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.diagnose.run_current import class_map
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.outputs import require_file, require_folder
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.matching import ClassMap
from curator.precision import resolve_precision
from curator.prove.run_arms import human_labels, usable_hits, usable_samples
from curator.prove.run_trainer import recipe_of, settings_of, usable_trainer
from curator.prove.run_verify import read_training, training_targets
from curator.prove.settings import TrainConfig
from curator.prove.trained_file import require_replaceable
from curator.prove.trainers.base import Trainer, load_trainer
from curator.prove.trainers.torchvision import CHECKPOINT, TorchvisionTrainer
from curator.prove.trainers.watch import Watch
from curator.prove.training_data import TrainingFiles, TrainingImage, TrainingRecipe
from curator.registry import Spec
from curator.tensors import resolve_device
from store.keys import content_key

if TYPE_CHECKING:
    from store.store import Store

STAGE = "train"
STAGE_VERSION = 3  # 3: trainers


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingItem:
    """One training: the images it sees, and those whose AP is shown meanwhile."""

    originals: tuple[TrainingImage, ...]
    added: tuple[TrainingImage, ...]
    watched: tuple[TrainingImage, ...] = ()


@dataclass
class TrainWork:
    """Trains; plain data (`jobs.base.Work`).

    Attributes:
        fingerprint: of the initial weights that `config.detector` names. identity: of the trainer. recipe:
            of the training. folder: where checkpoints and the finished weights of each training live, by key.
    """

    config: TrainConfig
    fingerprint: str
    identity: Any
    recipe: TrainingRecipe
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
            self.identity,
            self.recipe,
            config.seed,
        )

    def place(self, item: TrainingItem) -> Path:
        """The folder of this training."""
        return Path(self.folder) / self.key(item)[:16]

    def finished(self, item: TrainingItem) -> dict[str, Any] | None:
        """Figures of a finished training whose weights are still there; "spec" loads them."""
        note = self.place(item) / "figures.json"
        if not note.is_file():
            return None
        figures: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return figures if Path(Spec.parse(figures["spec"]).name).exists() else None

    def setup(self, device: str) -> tuple[Detector, Trainer, str]:
        """Load the initial weights.

        Raises:
            InputError: the detector cannot be trained.
        """
        detector = load_detector(self.config.detector, device)
        return detector, load_trainer(settings_of(self.config), detector), device

    def process(
        self, state: tuple[Detector, Trainer, str], batch: Sequence[TrainingItem]
    ) -> list[dict[str, Any]]:
        """Train on each item; returns figures."""
        return [self._train(*state, item) for item in batch]

    def _train(self, detector: Detector, trainer: Trainer, device: str, item: TrainingItem) -> dict[str, Any]:
        stored = self.finished(item)
        if stored is not None:  # killed after the training, before it was recorded
            return stored
        place = self.place(item)
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(trainer, TorchvisionTrainer) and item.watched:
            trainer.watch = Watch(item.watched, self.config.watch)
        trained = trainer.train(
            detector,
            TrainingFiles(item.originals, item.added, self.recipe.added_weight),
            place / "training",
            recipe=self.recipe,
            seed=self.config.seed,
            device=device,
        )
        figures = {**trained.figures, "spec": trained.spec}
        (place / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
        (place / "training" / CHECKPOINT).unlink(missing_ok=True)
        return figures


def train(store: Store, config: TrainConfig, *, executor: Executor | None = None) -> StageResult:
    """Train and write `config.out`.

    Returns:
        with the summary {"out", "detector" (its spec), "fingerprint", "images", "added", where the
        trainer says them "loss_first" and "loss_last", "missing_classes", "left_out" (number of images that
        tell of the holdout), "left_out_by_reason", "warnings"}.
    Raises:
        InputError: no training images, a selected image without labels, no accepted sample, a detector that
            cannot be trained, or other weights at `config.out`.
    """
    detector = load_detector(config.detector, config.device)
    trainer = usable_trainer(store, config, detector)
    here = _here(trainer)
    if here:
        require_file(config.out)
        require_replaceable(config.out, detector)
    else:
        require_folder(config.out, f"train --out {config.out}")
    classes = class_map(store, detector.classes, config.class_map)
    config = replace(config, precision=resolve_precision(config.precision, resolve_device(config.device)))
    without = left_out(store, config.selections, config.samples)
    require(here or not config.watch, "watch: a program shows its own figures in its log; leave --watch out")
    item = TrainingItem(
        watched=_watched(store, classes) if config.watch else (),
        originals=read_training(store, classes, without.originals),
        added=_added(store, config, classes, without),
    )
    recipe = recipe_of(config, trainer)
    work = TrainWork(config, detector.fingerprint, trainer.identity(), recipe, str(store.path / "training"))
    told = {"training": work.key(item)}  # names its folder, which `curator gc` leaves alone then
    with recorded_run(store, STAGE, config, models=(detector.fingerprint,), facts=told) as (run_id, counts):
        if work.finished(item) is None and store.done_keys(STAGE, [work.key(item)]):
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
        figures = work.finished(item) or {}
        written = Path(Spec.parse(spec := str(figures.pop("spec"))).name)
        if here:
            _copy(written, config.out)
            spec = f"curator:{config.out}"
        else:
            folder = work.place(item) / "training" / "out"
            _copy_folder(folder, config.out)
            spec = spec.replace(str(folder.absolute()), str(config.out), 1)
    return replace(
        result,
        summary={
            "out": str(config.out),
            "detector": spec,
            "images": len(item.originals),
            "added": len(item.added),
            "missing_classes": list(classes.missing),
            **figures,
            **without.summary(),
        },
    )


def _watched(store: Store, classes: ClassMap) -> tuple[TrainingImage, ...]:
    """The labelled mined images.

    Raises:
        InputError: there is none.
    """
    images = {image.id: image for image in store.images(reader="train", role="mine")}
    labels = store.annotations(list(images), reader="train") if images else {}
    found = tuple(
        TrainingImage(sha256=images[i].sha256, uri=images[i].uri, **training_targets(s.annotations, classes))
        for i, s in labels.items()
        if s.status == "human"
    )
    if not found:
        raise InputError(
            "--watch: expected annotated images with the role mine, got none; add some, or leave it out"
        )
    return found


def trains_here(store: Store, config: TrainConfig) -> bool:
    """Does curator train itself (`config.out` is then a file), not a program (a folder)?

    Raises:
        InputError: the detector cannot be trained.
    """
    return _here(usable_trainer(store, config, load_detector(config.detector, config.device)))


def _here(trainer: Trainer) -> bool:
    return isinstance(trainer, TorchvisionTrainer)


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


def _copy_folder(source: Path, out: Path) -> None:
    """Copy what a program wrote, file by file."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        _copy(path, out / path.relative_to(source))
