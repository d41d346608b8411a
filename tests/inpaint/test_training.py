"""Self-supervised training: it learns, it is seeded, it refuses what it cannot use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curator.errors import InputError
from curator.inpaint.exemplar import ExemplarInpaintPipeline, build_pipeline
from curator.inpaint.masks import superpixels
from curator.inpaint.training import diffusion_loss, distort, make_crop, train_inpainter
from curator.tensors import generator


def _images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        image = np.full((64, 64, 3), rng.integers(120, 220, 3), np.uint8)
        y, x = rng.integers(8, 36, 2)
        image[y : y + 20, x : x + 14] = rng.integers(0, 120, 3)
        images.append(image)
    return images


def _tiny() -> ExemplarInpaintPipeline:
    return build_pipeline(size=32, width=32, channels=(16, 32), seed=3)


def test_training_lowers_the_loss_and_saves_half_precision(tmp_path: Path) -> None:
    pipe = _tiny()

    def loss() -> float:
        """On one fixed batch with fixed noise, so that only the weights matter."""
        rng = np.random.default_rng(9)
        image = _images(1)[0]
        crops = [make_crop(image, superpixels(image), 32, rng) for _ in range(48)]
        batch = [
            torch.from_numpy(np.stack(part)).float()
            for part in ([c.image for c in crops], [c.hole[None] for c in crops], [c.exemplar for c in crops])
        ]
        with torch.no_grad():
            return float(diffusion_loss(pipe, batch[0] / 255, batch[1], batch[2] / 255, generator("test", 1)))

    before = loss()
    _, losses = train_inpainter(
        _images(6),
        tmp_path,
        steps=80,
        batch_size=8,
        crops_per_image=4,
        learning_rate=3e-3,
        seed=0,
        device="cpu",
        bfloat16=False,
        pipeline=pipe,
    )
    assert len(losses) == 80
    assert loss() < 0.8 * before
    saved = ExemplarInpaintPipeline.from_pretrained(tmp_path, use_safetensors=True, torch_dtype=torch.float16)
    assert saved.unet.dtype == torch.float16


def test_equal_seeds_give_equal_weights_and_no_global_randomness() -> None:
    before = torch.get_rng_state()
    runs = [
        train_inpainter(
            _images(2),
            None,
            steps=2,
            batch_size=2,
            crops_per_image=2,
            seed=5,
            device="cpu",
            bfloat16=False,
            pipeline=_tiny(),
        )[0]
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    one, two = (run.unet.state_dict() for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_holes_and_exemplars_of_every_kind_are_usable() -> None:
    pixels = _images(1)[0]
    labels = superpixels(pixels)
    rng = np.random.default_rng(1)
    for _ in range(40):
        crop = make_crop(pixels, labels, 32, rng)
        assert crop.image.shape == (3, 32, 32)
        assert crop.exemplar.shape == (3, 16, 16)
        assert crop.hole.any()
        assert not crop.hole.all()


def test_distortion_changes_an_exemplar_within_range() -> None:
    exemplar = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = distort(exemplar, generator("test", 0))
    assert moved.shape == exemplar.shape
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert float((moved - exemplar).abs().mean()) > 0.02


def test_no_images_and_tiny_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        train_inpainter([], None)
    with pytest.raises(InputError, match="at least 32 pixels"):
        train_inpainter([np.zeros((20, 64, 3), np.uint8)], None)
