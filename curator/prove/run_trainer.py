"""What `train` and `verify` have in common: who trains, with which settings, checked before any training."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from curator.config import require
from curator.detect.base import Detector
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.prove.trainers.base import Trainer, TrainerSettings, load_trainer
from curator.prove.trainers.command import CommandTrainer, stop_left_behind
from curator.prove.training_data import TrainingRecipe
from store.errors import CorruptionError, ImageError

if TYPE_CHECKING:
    from curator.page import Pixels
    from store.records import Role
    from store.store import Store

COMPARED = 8  # images on which initial weights are compared with the diagnosed detector


def settings_of(config: TrainConfig | VerifyConfig) -> TrainerSettings:
    """The user's words about the trainer."""
    return TrainerSettings(
        spec=config.trainer,
        format=config.trainer_format,
        trained=config.trained,
        init=config.init,
        init_detector=config.init_detector,
        timeout=config.trainer_timeout,
    )


def recipe_of(config: TrainConfig | VerifyConfig, trainer: Trainer) -> TrainingRecipe:
    """What all trainings have in common; of a program only what it is told.

    Raises:
        ConfigError: a weight of added images that a data set cannot hold.
    """
    weight = trainer.default_weight if config.added_weight is None else config.added_weight
    if isinstance(trainer, CommandTrainer):
        require(
            weight == round(weight),
            f"added_weight: a program's data set holds images a whole number of times, got {weight:g}",
        )
        return TrainingRecipe(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            added_weight=weight,
            precision="auto",
        )
    common = TrainingRecipe(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        added_weight=weight,
        precision=config.precision,
    )
    if isinstance(config, VerifyConfig):
        return common
    return replace(
        common,
        weight_decay=config.weight_decay,
        flip=config.flip,
        zoom=config.zoom,
        batch_norm=config.batch_norm,
    )


def usable_trainer(store: Store, config: TrainConfig | VerifyConfig, detector: Detector) -> Trainer:
    """The trainer, once it has agreed to train this detector.

    Raises:
        InputError: it does not; says why.
    """
    trainer = load_trainer(settings_of(config), detector)
    roles: tuple[Role, ...] = ("mine", "train")
    ids = next((found for role in roles if (found := store.image_ids(role=role)[:COMPARED])), [])
    pictures: list[Pixels] = []
    for image in store.images(reader="train", ids=ids):
        with suppress(ImageError, CorruptionError):
            pictures.append(store.pixels(image, reader="train"))
    trainer.check(detector, pictures, config.device)
    stop_left_behind(store.path / "training")
    return trainer
