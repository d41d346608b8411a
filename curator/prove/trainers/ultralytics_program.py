"""Train a YOLO of the package `ultralytics` with its own trainer; what `--trainer ultralytics:` runs.

    python -m curator.prove.trainers.ultralytics_program --data data.yaml --spec ultralytics:FILE ...

In: a YOLO data set, a detector. Out: `OUT/best.safetensors`, which `ultralytics:FILE` reads. Their trainer
reads and writes pickles: those that it reads here were written here, in this process. It trains whole epochs,
so a training has as many as make the wanted steps, and at least one. AdamW at the wanted rate, no evaluation,
nothing downloaded, drawn or reported; any of their settings can be given by `--set`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from typing import Any

from curator.prove.trainers.program_arguments import program_arguments, read_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    given = program_arguments(arguments, __doc__ or "")
    os.environ.update(
        YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", WANDB_MODE="disabled"
    )
    os.environ.setdefault("YOLO_CONFIG_DIR", str(given.out))
    train(given)


def train(given: argparse.Namespace) -> None:
    """Write their kind of file, train, convert what came."""
    import torch

    from curator.detect.load import load_detector
    from curator.detect.ultralytics import UltralyticsDetector
    from curator.detect.ultralytics_file import convert

    detector = load_detector(given.spec, "cpu")
    if not isinstance(detector, UltralyticsDetector):
        raise SystemExit(f"{given.spec}: expected a detector ultralytics:FILE")
    from ultralytics.models import YOLO

    network = detector.plain_network().requires_grad_(True)
    start = given.out / "start.pt"
    torch.save({"model": network, "train_args": dict(network.args), "epoch": -1}, start)
    settings: dict[str, Any] = {
        "data": str(given.data),
        "epochs": given.epochs,
        "batch": given.batch,
        "imgsz": max(detector.input_size),
        "seed": given.seed,
        "deterministic": True,
        "device": given.device if given.device != "auto" else None,
        "optimizer": "AdamW",
        "lr0": given.learning_rate,
        "warmup_bias_lr": 0.0,  # as the package sets it where it chooses AdamW itself
        "nbs": given.batch,  # a step of the optimiser per batch
        "workers": 0,
        "val": False,
        "plots": False,
        "amp": False,
        "verbose": False,
        "project": str(given.out / "runs"),
        "name": "train",
        "exist_ok": True,
        **read_settings(given.set),
    }
    YOLO(str(start), task="detect").train(**settings)
    convert(given.out / "runs" / "train" / "weights" / "last.pt", given.out / "best.safetensors")
    start.unlink()
    shutil.rmtree(given.out / "runs")


if __name__ == "__main__":
    main()
