"""Self-supervised training: it learns, it is seeded, it goes on after a kill, it keeps what is best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from curator.errors import InputError
from curator.inpaint.checkpoint import save_pipeline
from curator.inpaint.examples import Crops, distort, make_crop, recompose
from curator.inpaint.exemplar import (
    UNKNOWN,
    ExemplarInpaintPipeline,
    build_pipeline,
    collage,
    square_collage,
    squares,
)
from curator.inpaint.sheet import unpadded
from curator.inpaint.training import Trained, diffusion_loss, train_inpainter
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


def _train(out: Path | None, **given: Any) -> Trained:
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 2,
        "crops_per_image": 2,
        "seed": 5,
        "device": "cpu",
        "bfloat16": False,
        "held_out": _images(4)[3:],
        "check_every": 2,
        "pipeline": _tiny(),
        **given,
    }
    return train_inpainter(_images(3), out, **settings)


def _weights(pipe: ExemplarInpaintPipeline) -> dict[str, torch.Tensor]:
    return {**pipe.unet.state_dict(), **pipe.encoder.state_dict()}


def test_training_lowers_the_loss_and_saves_half_precision(tmp_path: Path) -> None:
    pipe = build_pipeline(size=32, width=32, channels=(16, 32), predicts="image", seed=3)
    batch = Crops(_images(4), size=32, fit="pad", seed=9).batch(range(16))

    def loss() -> float:
        """On one fixed batch with fixed noise, so that only the weights matter."""
        with torch.no_grad():
            return float(diffusion_loss(pipe, *batch, generator("test", 1)))

    before = loss()
    trained = _train(
        tmp_path,
        steps=40,
        batch_size=8,
        learning_rate=5e-3,
        pipeline=pipe,
        held_out=_images(4),
        check_every=20,
        sheet_every=20,
    )
    assert len(trained.losses) == 40
    assert loss() < 0.8 * before
    saved = ExemplarInpaintPipeline.from_pretrained(tmp_path, use_safetensors=True, torch_dtype=torch.float16)
    assert saved.unet.dtype == torch.float16
    assert [step for step, _ in trained.checks] == [20, 40]
    sheets = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert sheets == ["step_000020.png", "step_000040.png"]
    with PIL.Image.open(tmp_path / "sheets" / sheets[0]) as sheet:
        assert sheet.size == (6 * 36, 8 * 36)
    assert not list(tmp_path.rglob("*.bin"))
    assert not list(tmp_path.rglob("*.part"))


def test_equal_seeds_give_equal_weights_and_no_global_randomness() -> None:
    before = torch.get_rng_state()
    one, two = (_weights(_train(None, steps=2).pipe) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")

    class KilledError(Exception):
        """Raised at the second check."""

    def kill(line: str) -> None:
        if line.startswith("step 4 "):
            raise KilledError

    with pytest.raises(KilledError):
        _train(tmp_path / "killed", log=kill)
    resumed = _train(tmp_path / "killed")
    assert resumed.losses == whole.losses
    assert resumed.checks == whole.checks
    one, two = _weights(whole.pipe), _weights(resumed.pipe)
    assert all(torch.equal(one[name], two[name]) for name in one)
    again = _train(tmp_path / "killed")  # nothing is left to do
    assert again.losses == whole.losses
    longer = _train(tmp_path / "killed", steps=8)
    assert longer.losses[:6] == whole.losses
    assert len(longer.losses) == 8


def test_the_best_weights_are_kept_and_patience_ends(tmp_path: Path) -> None:
    trained = _train(tmp_path, steps=200, learning_rate=3.0, patience=2)  # it diverges at once
    losses = [loss for _, loss in trained.checks]
    best = losses.index(min(losses))
    assert len(losses) == best + 3
    assert trained.stopped == "the held-out loss has not improved for 2 checks"
    saved = _weights(ExemplarInpaintPipeline.from_pretrained(tmp_path, use_safetensors=True))
    for name, tensor in _weights(trained.pipe).items():
        assert torch.equal(saved[name].half(), tensor.half())


def test_another_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    _train(tmp_path, steps=2)
    with pytest.raises(InputError, match="holds a training with other images or settings"):
        _train(tmp_path, key="other images")
    (tmp_path / "checkpoint" / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="expected a checkpoint"):
        _train(tmp_path)


def test_minutes_end_a_training_and_count_over_interruptions(tmp_path: Path) -> None:
    first = _train(tmp_path, steps=10**6, minutes=1e-9)
    assert len(first.losses) == 1
    assert first.checks
    assert first.stopped.startswith("after 1e-09 minutes")
    assert len(_train(tmp_path, steps=10**6, minutes=1e-9).losses) == 1


def test_saved_weights_stay_as_they_are_in_memory(tmp_path: Path) -> None:
    pipe = _tiny()
    before = {name: tensor.clone() for name, tensor in _weights(pipe).items()}
    save_pipeline(pipe, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in _weights(pipe).items())


def test_holes_and_exemplars_of_every_kind_are_usable() -> None:
    rng = np.random.default_rng(1)
    for number in range(40):
        pixels = _images(1)[0] if number % 2 else rng.integers(0, 255, (40, 90, 3), np.uint8)
        crop = make_crop(pixels, 32, rng, ("pad", "squash")[number % 3 == 0])
        assert crop.image.shape == (3, 32, 32)
        assert crop.exemplar.shape == (3, 16, 16)
        assert crop.hole.any()
        assert not crop.hole.all()


def test_a_crop_is_its_number_whenever_it_is_made() -> None:
    crops = Crops(_images(5), size=32, fit="pad", seed=2, per_image=2, kept=6, fresh=2)
    for step in range(4):
        drawn = crops.draw(step, 3, generator("draw", step))
        other = Crops(_images(5), size=32, fit="pad", seed=2, per_image=2, kept=6, fresh=2)
        alone = other.draw(step, 3, generator("draw", step))
        assert all(torch.equal(one, two) for one, two in zip(drawn, alone, strict=True))
        assert len(crops._made) == 6


def test_distortion_changes_an_exemplar_within_range() -> None:
    exemplar = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = distort(exemplar, generator("test", 0))
    assert moved.shape == exemplar.shape
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert float((moved - exemplar).abs().mean()) > 0.02


def test_a_composition_differs_in_the_inner_part_of_the_hole_alone() -> None:
    image, hole = torch.rand(3, 3, 32, 32) * 0.5 + 0.2, torch.zeros(3, 1, 32, 32)
    hole[:, :, 8:24, 8:24] = 1
    shown = recompose(image, hole, generator("test", 0))
    outside = (hole < 0.5).expand_as(image)
    assert torch.equal(shown[outside], image[outside])
    assert bool((shown[:, :, 12:20, 12:20] != image[:, :, 12:20, 12:20]).any())
    assert torch.equal(shown[:, :, 8], image[:, :, 8])  # the rim


def test_no_images_and_tiny_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        train_inpainter([], None)
    with pytest.raises(InputError, match="at least 32 pixels"):
        train_inpainter([np.zeros((20, 64, 3), np.uint8)], None, pipeline=_tiny())


def test_a_sheet_lays_an_exemplar_as_training_did() -> None:
    coarse = torch.rand(1, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, (20, 44), mode="bilinear")[0]
    square = squares([image], 32, "pad")[0]
    hole = torch.zeros(1, 64, 64)
    hole[:, 20:40, 10:54] = 1
    content = unpadded(square, hole)
    assert content.shape == (3, 15, 32)
    trained = square_collage(square[None], hole[None])
    laid, padded = (collage([shown], hole[None], "pad") for shown in (content, square))
    assert float((laid - trained).abs().mean()) < 0.01
    assert float((padded - trained).abs().mean()) > 0.03  # as it was: its padding was laid along
    assert bool((laid[0, :, 21:39, 12:52] != UNKNOWN).any(0).all())  # but for a rounded pixel at the edge
