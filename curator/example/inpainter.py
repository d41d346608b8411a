"""Train the inpainter that the built-in example ships: `curator example train-inpainter`.

In: rendered scenes, pixels only. Out: a saved `ExemplarInpaintPipeline`.

The scenes are drawn from the example's pool distribution with a renderer seed of their own, so that no image
of a demo or benchmark is among them; unlike in a pool, where the planted gaps are rare, six scenes in seven
show one, since an inpainter cannot paint what it never saw. No label, mask or box of the renderer is used.
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
    """Render `count` unlabelled scenes (192, 192, 3), each gap and the clean scene in turn."""
    from curator.example.gaps import GAPS
    from curator.example.scene import SceneParams, render_scene

    kinds = (*GAPS, None)
    return [
        render_scene(SceneParams(role="pool", index=i, seed=seed, gap=kinds[i % len(kinds)])).pixels
        for i in range(count)
    ]


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
