"""Fine-tuning: deterministic, resumable to the bit, honest about batch normalisation."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from curator.detect.small_ssd import SsdOptions, make_detector
from curator.detect.ssd import SsdDetector
from curator.errors import ConfigError, InputError
from curator.prove.trainers.fine_tune import Example, FineTuneConfig, draw, fine_tune, vary
from store.errors import ImageError


class Squares:
    """Dark squares on a bright ground; counts how often each image is read."""

    def __init__(self, count: int = 6, side: int = 64) -> None:
        rng = np.random.default_rng(0)
        self.weights = [1.0] * count
        self.reads = 0
        self._examples = []
        for number in range(count):
            pixels = rng.integers(180, 256, (side, side, 3), dtype=np.uint8)
            x, y = rng.integers(2, side - 26, 2)
            pixels[y : y + 24, x : x + 24] = rng.integers(0, 60, (24, 24, 3), dtype=np.uint8)
            boxes = np.array([[x, y, x + 24, y + 24]], np.float32)[
                : number % 5 != 4
            ]  # the fifth is a negative
            self._examples.append(Example(pixels=pixels, boxes=boxes, labels=np.zeros(len(boxes), np.int64)))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        self.reads += 1
        return self._examples[index]


@pytest.fixture(scope="module")
def detector() -> SsdDetector:
    return make_detector(
        SsdOptions(classes=("square",), size=64, channels=(4, 6, 8, 8, 8), anchors=(12.0, 24.0, 40.0, 60.0)),
        seed=1,
    )


def state(detector: SsdDetector) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in detector.network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def settings(**changes: object) -> FineTuneConfig:
    return FineTuneConfig(
        **{
            "steps": 6,
            "batch_size": 3,
            "learning_rate": 0.01,
            "checkpoint_every": 2,
            "device": "cpu",
            **changes,
        }
    )  # type: ignore[arg-type]


def test_equal_seeds_give_equal_weights_and_the_original_is_untouched(detector: SsdDetector) -> None:
    before, fingerprint = state(detector), detector.fingerprint
    first, losses = fine_tune(detector, Squares(), settings())
    second, again = fine_tune(detector, Squares(), settings())
    other, _ = fine_tune(detector, Squares(), settings(seed=1))
    assert losses == again
    assert len(losses) == 6
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert same(state(detector), before)
    assert detector.fingerprint == fingerprint != first.fingerprint


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_untouched(detector: SsdDetector, workers: int) -> None:
    before, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fine_tune(detector, Squares(), settings(steps=2, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy


def test_workers_change_nothing(detector: SsdDetector) -> None:
    alone, losses = fine_tune(detector, Squares(), settings())
    data = Squares()
    helped, again = fine_tune(detector, data, settings(workers=2))
    assert data.reads == 0  # others did read
    assert again == losses
    assert helped.fingerprint == alone.fingerprint


class Unreadable(Squares):
    """One image is gone."""

    def __getitem__(self, index: int) -> Example:
        if index == 3:
            raise ImageError("images/3.png: expected an image, found none")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_stops_with_its_own_message(
    detector: SsdDetector, workers: int
) -> None:
    with pytest.raises(ImageError) as error:
        fine_tune(detector, Unreadable(), settings(workers=workers))
    assert str(error.value) == "images/3.png: expected an image, found none"


def rates(detector: SsdDetector, monkeypatch: pytest.MonkeyPatch, steps: int) -> list[float]:
    """The learning rate of every step of a real training."""
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        fine_tune(detector, Squares(), settings(steps=steps, batch_size=1))
    return seen


def test_one_cycle_rises_to_the_peak_in_a_fifth_and_falls_to_a_thousandth(
    detector: SsdDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rates(detector, monkeypatch, 20)
    assert found[0] == pytest.approx(0.001)
    assert int(np.argmax(found)) == 3
    assert found[3] == pytest.approx(0.01)
    assert found[-1] == pytest.approx(0.00001)
    assert found[:4] == sorted(found[:4])
    assert found[3:] == sorted(found[3:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])  # torch's schedule divides by 0 where a fifth is one step
def test_short_trainings_have_a_schedule_too(
    detector: SsdDetector, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    found = rates(detector, monkeypatch, steps)
    assert len(found) == steps
    assert max(found) == pytest.approx(0.001 if steps == 1 else 0.01)


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("killed_after", [3, 4])
def test_a_killed_training_continues_to_the_same_weights(
    detector: SsdDetector, tmp_path: Path, killed_after: int
) -> None:
    whole, losses = fine_tune(detector, Squares(), settings())
    checkpoint = tmp_path / "checkpoint.safetensors"
    done: list[int] = []

    def die(step: int, loss: float) -> None:
        if step == killed_after:
            raise KilledError

    with pytest.raises(KilledError):
        fine_tune(detector, Squares(), settings(), checkpoint=checkpoint, on_step=die)
    assert checkpoint.is_file()
    resumed, again = fine_tune(
        detector, Squares(), settings(), checkpoint=checkpoint, on_step=lambda step, _: done.append(step)
    )
    assert done[0] == killed_after // 2 * 2 + 1  # it did continue
    assert again == losses
    assert resumed.fingerprint == whole.fingerprint


def test_the_loss_falls(detector: SsdDetector) -> None:
    _, losses = fine_tune(detector, Squares(), settings(steps=60, batch_norm="train"))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_frozen_batch_norm_keeps_its_statistics(detector: SsdDetector) -> None:
    frozen, _ = fine_tune(detector, Squares(), settings())
    moving, _ = fine_tune(detector, Squares(), settings(batch_norm="train"))
    assert isinstance(frozen, SsdDetector)
    assert isinstance(moving, SsdDetector)
    before = state(detector)
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(state(frozen)[name], before[name]) for name in statistics)
    assert not any(torch.equal(state(moving)[name], before[name]) for name in statistics)
    assert not any(p.requires_grad for p in frozen.network.parameters())


def test_flips_mirror_boxes_with_pixels() -> None:
    example = Squares()[0]
    flipped = 0
    for seed in range(12):
        image, boxes, _ = vary(example, np.random.default_rng(seed), settings(zoom=0.0), torch.device("cpu"))
        x1, y1, x2, y2 = boxes[0].int().tolist()
        assert image[:, y1:y2, x1:x2].max() < 0.25  # the dark square lies where the box says
        assert image[:, y1:y2, x1 - 1].min() > 0.6
        flipped += x1 != int(example.boxes[0, 0])
    assert 2 < flipped < 10


def test_zooms_move_boxes_with_pixels() -> None:
    example = Squares()[0]
    sides = []
    for seed in range(20):
        image, boxes, labels = vary(
            example, np.random.default_rng(seed), settings(zoom=0.3), torch.device("cpu")
        )
        assert image.shape == (3, 64, 64)
        assert len(boxes) == len(labels) == 1
        x1, y1, x2, y2 = boxes[0].tolist()
        dark = (image.mean(0) < 0.45).nonzero()
        low, high = dark.min(0).values, dark.max(0).values + 1
        np.testing.assert_allclose([low[1], low[0], high[1], high[0]], [x1, y1, x2, y2], atol=1.6)
        sides.append(x2 - x1)
    assert min(sides) < 22 < 26 < max(sides)


def test_a_window_beyond_the_image_repeats_its_edge() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15], pixels[:, 15:] = 40, 200  # no black anywhere
    example = Example(pixels=pixels, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))
    shares = []
    for seed in range(20):
        image, boxes, labels = vary(
            example, np.random.default_rng(seed), settings(zoom=0.4), torch.device("cpu")
        )
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)
        assert image.min() >= 40 / 255 - 1e-6
        assert image.max() <= 200 / 255 + 1e-6
        shares.append(float((image > 0.5).float().mean()))
    assert min(shares) < 0.45 < 0.55 < max(shares)


def test_an_object_cut_away_loses_its_box() -> None:
    pixels = np.full((64, 64, 3), 200, np.uint8)
    corner = Example(
        pixels=pixels, boxes=np.array([[0, 0, 8, 8], [20, 20, 50, 50]], np.float32), labels=np.array([0, 1])
    )
    kept = [
        vary(corner, np.random.default_rng(seed), settings(zoom=0.4, flip=False), torch.device("cpu"))
        for seed in range(30)
    ]
    assert {1, 2} == {len(boxes) for _, boxes, _ in kept}
    assert all(len(labels) == len(boxes) and labels[-1] == 1 for _, boxes, labels in kept)


def test_draws_depend_on_seed_and_step_and_follow_the_weights() -> None:
    weights = np.array([1.0, 1.0, 1.0, 5.0, 0.0])
    np.testing.assert_array_equal(draw(3, 7, weights, 2), draw(3, 7, weights, 2))
    assert any(not np.array_equal(draw(3, s, weights, 2), draw(3, 7, weights, 2)) for s in range(5))
    drawn = np.concatenate([draw(0, step, weights, 1) for step in range(800)])
    counts = np.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert 0.55 < counts[3] / counts.sum() < 0.70
    assert len(set(draw(0, 0, weights, 4).tolist())) == 4


def test_images_are_decoded_once_while_they_fit(detector: SsdDetector) -> None:
    data = Squares()
    fine_tune(detector, data, settings(steps=8))
    assert data.reads <= len(data)
    fine_tune(detector, data, settings(steps=8, cache_bytes=0))
    assert data.reads > 2 * len(data)


def test_wrong_input_is_refused(detector: SsdDetector) -> None:
    with pytest.raises(InputError, match="role train"):
        fine_tune(detector, Squares(0), settings())
    with pytest.raises(ConfigError, match="steps"):
        settings(steps=0)
