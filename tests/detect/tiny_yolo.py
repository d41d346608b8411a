"""Tiny models of the package `ultralytics`, random and saved as a user's would be, and pictures for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from curator.tensors import generator
from store.records import Detections

NAMES = {0: "cup", 1: "plate", 2: "spoon"}
TABLES = {
    "yolov8": "yolov8n",
    "yolo11": "yolo11n",
    "yolov10": "yolov10n",
    "yolo26": "yolo26n",
    "yolov8-p2": "yolov8n-p2",
}
"""Kind -> the table that ships in the package."""


def save_table(kind: str, folder: Path, *, task: str = "") -> Path:
    """Write the package's table of a kind (`TABLES`) at a quarter of the weights of its smallest model."""
    from ultralytics.nn.tasks import yaml_model_load

    table = dict(yaml_model_load(f"{TABLES[kind]}{task}.yaml"))
    table |= {"nc": len(NAMES), "scales": {"t": [0.33, 0.125, 1024]}, "scale": "t"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind.replace('yolo', 'tiny')}{task}.yaml"
    path.write_text(yaml.safe_dump(table), encoding="utf-8")
    return path


def save_weights(kind: str, folder: Path, *, task: str = "", **extra: Any) -> Path:
    """Write a `.pt` file as their training does, with random weights whose scores are spread out.

    Args:
        extra: further entries of the checkpoint.
    """
    from ultralytics import YOLO

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = YOLO(str(save_table(kind, folder, task=task)))
    model.model.names = NAMES
    spread(model.model)
    pictures = np.stack([picture(96, 128, seed) for seed in range(4)])
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    calibrate(model.model, lambda: model.model(inputs))
    if extra:
        model.ckpt = {**(model.ckpt or {}), **extra}
    path = folder / f"{kind}{task}.pt"
    model.save(str(path))
    return path


def spread(network: Any) -> None:
    """Random statistics and class weights, so that candidates differ."""
    draw = generator("spread")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draw) * 0.4 + 0.3)
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=draw) * 0.1)
    for name, module in network.model[-1].named_modules():
        if isinstance(module, torch.nn.Conv2d) and "cv3" in name and module.bias is not None:
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=draw) * 0.3)
            module.bias.data.fill_(-1.0)


def calibrate(network: Any, run: Callable[[], object]) -> None:
    """Take the statistics of batch normalisation from what `run` shows the network, as training would: with
    others a random network hardly sees its input."""
    layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        run()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Coloured blobs with noise (H, W, 3) uint8: no two places look the same, so that no scores are equal."""
    draw = np.random.default_rng(seed)
    image = np.full((height, width, 3), draw.integers(0, 255, 3), np.uint8)
    for _ in range(12):
        y, x = draw.integers(0, height - 8), draw.integers(0, width - 8)
        image[y : y + draw.integers(8, 60), x : x + draw.integers(8, 60)] = draw.integers(0, 255, 3)
    return (image * 0.8 + draw.integers(0, 50, image.shape)).astype(np.uint8)


def matched(found: Detections, theirs: np.ndarray, *, pixels: float = 1, score: float = 1e-3) -> float:
    """Share of their detections (n, 6) that ours hold, within a pixel and .001 of the score."""
    held = 0
    for x1, y1, x2, y2, value, label in theirs:
        off = np.abs(found.boxes - [x1, y1, x2, y2]).max(1)
        near = (off < pixels) & (np.abs(found.scores - value) < score) & (found.labels == label)
        held += bool(near.any())
    return held / len(theirs)
