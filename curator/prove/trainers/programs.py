"""`ultralytics:` and `hf:`: the trainers of those packages, each in a process of its own.

Both seed the global random state and write where they like, which a program may and a library may not. They
are curator's own programs behind `CommandTrainer`: a data set is written, the program trains offline on it,
and what it wrote is loaded.

    ultralytics:?lr0=0.01&optimizer=SGD&freeze=10    settings of their trainer, by its own names
    hf:?weight_decay=0.01&warmup_steps=20            fields of transformers.TrainingArguments
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from curator.prove.trainers.base import TrainerSettings
from curator.prove.trainers.command import CommandTrainer
from curator.registry import Spec

_COMMON = (
    "--data {dataset} --spec {spec} --out {out} --steps {steps} --epochs {epochs} --batch {batch} "
    "--learning-rate {learning_rate} --seed {seed} --device {device}"
)


def transformers(text: str, settings: TrainerSettings) -> CommandTrainer:
    """`hf:`, for models of AutoModelForObjectDetection; writes a folder that `hf:FOLDER` reads."""
    return _program("transformers_program", text, settings, format="coco", trained="hf:{out}/model")


def ultralytics(text: str, settings: TrainerSettings) -> CommandTrainer:
    """`ultralytics:`, for YOLO models of the package (AGPL-3.0); writes what `ultralytics:FILE` reads."""
    return _program(
        "ultralytics_program", text, settings, format="yolo", trained="ultralytics:{out}/best.safetensors"
    )


def _program(
    module: str, text: str, settings: TrainerSettings, *, format: str, trained: str
) -> CommandTrainer:
    options = Spec.parse(text).options
    words = [sys.executable, "-m", f"curator.prove.trainers.{module}", *_COMMON.split()]
    for name, value in sorted(options.items()):
        words += ["--set", f"{name}={value}"]
    return CommandTrainer(
        "command:" + shlex.join(words), replace(settings, format=format, trained=trained), own=True
    )
