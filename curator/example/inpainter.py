"""Train the inpainter that the built-in example ships: `curator example train-inpainter`.

In: rendered scenes, pixels only. Out: a saved `ExemplarInpaintPipeline`.

The scenes have a renderer seed of their own, so that no image of a demo or benchmark is among them, and none
shows a planted gap: whatever a sample shows of one comes from its exemplar alone, as it must where the pool
holds nothing of what is missing. No label, mask or box of the renderer is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.example.settings import InpainterConfig

RENDERER_SEED = 740_011
"""Of the training scenes; benchmarks and the demo draw theirs elsewhere."""


def training_scenes(count: int, *, seed: int = RENDERER_SEED) -> list[NDArray[np.uint8]]:
    """Render `count` unlabelled scenes (192, 192, 3) without any gap."""
    from curator.example.scene import SceneParams, render_scene

    return [render_scene(SceneParams(role="pool", index=i, seed=seed, gap=None)).pixels for i in range(count)]


def train_example_inpainter(
    config: InpainterConfig, *, log: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Render, train, save; returns {"out", "steps", "loss_first", "loss_last", "fingerprint"}."""
    from curator.inpaint.backends import ExemplarInpainter
    from curator.inpaint.training import train_inpainter

    images = training_scenes(config.scenes)
    losses = train_inpainter(
        images,
        config.out,
        steps=config.steps,
        batch_size=config.batch_size,
        crops_per_image=config.crops,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=config.device,
        minutes=config.minutes,
        key=f"example {RENDERER_SEED} {config.scenes}",
        log=log,
    ).losses
    shutil.rmtree(config.out / "checkpoint", ignore_errors=True)  # no part of what ships
    saved = ExemplarInpainter(config.out, device=config.device)
    return {
        "out": str(config.out),
        "steps": len(losses),
        "loss_first": float(np.mean(losses[:50])),
        "loss_last": float(np.mean(losses[-200:])),
        "fingerprint": saved.fingerprint,
    }
