"""PDA: the fitted patches, the weight of evidence, and planted truths."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.pda import PDA, PatchGaussian, fit_patches, smoothed_log2_odds, window_means
from curator.registry import ATTRIBUTIONS
from store.records import Pin

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Convolutional, IgnoresLeft, Linear, TinyDetector, blocks, picture

H, W = 24, 32
MEAN = (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("pda") / "patches.safetensors"
    fit_patches((picture(H, W, k) for k in range(20)), patch=4, pad=1, per_image=100).save(path)
    return path


def explain(model, detector, targets, *, image=None, pin=None, seed=0, batch_size=16, **settings):
    texts = {name: str(value) for name, value in settings.items()}
    method = PDA(AttributionOptions(batch_size=batch_size, settings={"model": str(model), **texts}))
    return method.explain(
        detector,
        picture(H, W) if image is None else image,
        pin or detector.pin(),
        blocks(H, W, 2, 2),
        MeanFill(),
        targets,
        seed=seed,
        image_key="i",
    )


def random_gaussian(patch=2, pad=1):
    size = 3 * (patch + 2 * pad) ** 2
    numbers = np.random.default_rng(0)
    root = numbers.normal(size=(size, size)) / 100
    return PatchGaussian(patch, pad, np.full(size, 0.5), root @ root.T + 1e-4 * np.eye(size))


@pytest.mark.parametrize(("top", "left"), [(1, 1), (0, 2)])
def test_draws_have_the_conditional_mean_and_covariance(top, left):
    model = random_gaussian()
    numbers = np.random.default_rng(1)
    around = 0.5 + 0.02 * numbers.normal(size=(3, 4, 4))
    draws = model.draw(around, top, left, numbers.normal(size=(40_000, 12))).reshape(-1, 12)
    inside = np.zeros((3, 4, 4), dtype=bool)
    inside[:, top : top + 2, left : left + 2] = True
    i, o = np.flatnonzero(inside), np.flatnonzero(~inside)
    # By the precision matrix, not as the code does it: cov = P_ii^-1, mean = m - P_ii^-1 P_io (rest - m).
    precision = np.linalg.inv(model.covariance)
    covariance = np.linalg.inv(precision[np.ix_(i, i)])
    mean = 0.5 - covariance @ precision[np.ix_(i, o)] @ (around.ravel()[o] - 0.5)
    error = np.sqrt(np.diag(covariance) / len(draws))
    assert (np.abs(draws.mean(0) - mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05 * np.diag(covariance).max())
    around[inside] = 0  # the window itself plays no part
    again = model.draw(around, top, left, np.zeros((1, 12)))
    np.testing.assert_allclose(again.ravel(), mean, atol=1e-10)


def test_fitting_finds_mean_and_covariance_and_survives_the_disk(tmp_path):
    images = [picture(H, W, k) for k in range(8)]
    model = fit_patches(iter(images), patch=2, pad=1, per_image=2000)
    squares = torch.cat(
        [image.unfold(1, 4, 1).unfold(2, 4, 1).flatten(1, 2).movedim(1, 0) for image in images]
    )
    every = squares.flatten(1).double().numpy()  # all squares of all images
    np.testing.assert_allclose(model.mean, every.mean(0), atol=0.02)
    np.testing.assert_allclose(model.covariance, np.cov(every.T), atol=0.005)
    model.save(tmp_path / "m.safetensors")
    loaded = PatchGaussian.load(tmp_path / "m.safetensors")
    assert (loaded.patch, loaded.pad) == (2, 1)
    np.testing.assert_allclose(loaded.covariance, model.covariance, atol=1e-7)
    same, other = (fit_patches(images, patch=2, pad=1, per_image=2000, seed=s) for s in (0, 1))
    np.testing.assert_array_equal(same.mean, model.mean)
    assert (other.mean != model.mean).any()


def test_weight_of_evidence_is_corrected():
    assert smoothed_log2_odds(np.array([0.5]), 100, 2) == pytest.approx([0.0])
    # p = 0, N = 100, K = 2: (0 + 1) / 102, odds 1 / 101
    assert smoothed_log2_odds(np.array([0.0]), 100, 2) == pytest.approx([-np.log2(101)])
    assert np.isfinite(smoothed_log2_odds(np.array([0.0, 1.0]), 1_200_000, 2)).all()


@pytest.mark.parametrize(("count", "size", "stride"), [(5, 4, 2), (4, 5, 2), (6, 3, 1), (1, 4, 2)])
def test_overlapping_windows_are_averaged_per_pixel(count, size, stride):
    values = np.random.default_rng(0).normal(size=count)
    half = 2 * stride * (count - 1) + 2 * size  # counted in half pixels, since centres may lie between two
    total, times = np.zeros(half), np.zeros(half)
    for i, value in enumerate(values):
        total[2 * stride * i : 2 * (stride * i + size)] += value
        times[2 * stride * i : 2 * (stride * i + size)] += 1
    pixels = total / times
    cells = [
        pixels[2 * stride * i + size - stride : 2 * stride * i + size + stride].mean() for i in range(count)
    ]
    np.testing.assert_allclose(window_means(count, size, stride) @ values, cells)


@pytest.mark.parametrize(("size", "stride"), [(4, 4), (3, 5), (1, 1)])
def test_windows_that_do_not_overlap_keep_their_values(size, stride):
    np.testing.assert_allclose(window_means(4, size, stride), np.eye(4), atol=1e-12)


def test_a_linear_score_loses_what_the_surround_does_not_tell(model):
    module, image = Linear((H, W)), picture(H, W, 30)
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    target = [Target(candidate=1, label=0, kind="log_odds")]
    found = explain(model, detector, target, image=image, stride=4, samples=400, batch_size=64)[0]
    fitted = PatchGaussian.load(model)
    weight = module.weight[1].double().numpy()
    pixels = image.double().numpy()
    assert found.values.shape == (6, 8)
    assert found.offset == (2.0, 2.0)
    i, j = 3, 4  # an inner window: its padded square is around it
    square = pixels[:, 4 * i - 1 : 4 * i + 5, 4 * j - 1 : 4 * j + 5]
    expected_window = fitted.draw(square, 1, 1, np.zeros((1, 48)))[0]
    cut = np.s_[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
    expected = (weight[cut] * (pixels[cut] - expected_window)).sum()
    assert found.values[i, j] == pytest.approx(expected, abs=0.01)


def test_constant_and_unseen_windows_give_nothing(model):
    constant = TinyDetector(Constant(connected=False), size=(H, W))
    found = explain(model, constant, [Target(candidate=0, label=0)])[0]
    assert not found.values.any()
    assert not found.evidence
    blind = TinyDetector(IgnoresLeft(), size=(H, W), classes=2)
    noise = torch.rand(3, H, W, generator=torch.Generator().manual_seed(0))
    found = explain(model, blind, [Target(candidate=0, label=0)], image=noise, stride=4)[0]
    np.testing.assert_allclose(found.values[:, :4], 0, atol=1e-4)
    assert np.abs(found.values[:, 4:]).max() > 1e-2


class Odd(torch.nn.Module):
    """Probability that an unusual bright square is there, in a scene that does not tell of it."""

    def forward(self, u):
        return u[:, :1, 8:12, 16:20].mean((2, 3))[:, None]


def test_a_planted_square_is_found(model):
    image = torch.full((3, H, W), 0.3)
    image[:, 8:12, 16:20] = 0.95
    detector = TinyDetector(Odd(), size=(H, W), values="probability")
    found = explain(model, detector, [Target(candidate=0, label=0)], image=image, stride=2)[0]
    row, column = np.unravel_index(found.values.argmax(), found.values.shape)
    assert abs(found.offset[0] + found.scale[0] * column - 18) <= 2
    assert abs(found.offset[1] + found.scale[1] * row - 10) <= 2
    assert found.values.max() > 1  # bits
    assert found.evidence
    assert np.isnan(found.gap)


def test_the_analysis_window_has_four_times_the_boxes_area(model):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)
    box = (12.0, 8.0, 20.0, 14.0)  # doubled: x 8..24, y 5..17
    boxed, far, whole = explain(
        model,
        detector,
        [
            Target(candidate=3, label=0, box=box),
            Target(candidate=3, label=0, box=(-90.0, -90.0, -80.0, -80.0)),
            Target(candidate=3, label=0),
        ],
        stride=2,
        samples=2,
    )
    x = boxed.offset[0] + boxed.scale[0] * np.arange(boxed.values.shape[1])
    y = boxed.offset[1] + boxed.scale[1] * np.arange(boxed.values.shape[0])
    assert (x[0], x[-1], y[0], y[-1]) == (8, 24, 6, 16)
    assert boxed.passes == 2 * boxed.values.size + 2
    assert far.values.shape == (1, 1)
    assert whole.values.shape == (11, 15)


def test_batches_do_not_matter_and_targets_share_the_passes(model):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)
    targets = [
        Target(candidate=9, label=1, box=(4.0, 4.0, 12.0, 12.0)),
        Target(candidate=18, label=0, kind="log_odds", box=(8.0, 6.0, 16.0, 12.0)),
    ]
    together = explain(model, detector, targets, stride=4, samples=3, batch_size=7)
    assert sum(detector.forwards) < sum(found.passes for found in together)
    for t, target in enumerate(targets):
        alone = explain(model, detector, [target], stride=4, samples=3, batch_size=16)[0]
        assert (alone.offset, alone.passes) == (together[t].offset, together[t].passes)
        np.testing.assert_allclose(alone.values, together[t].values, atol=1e-4)
    other = explain(model, detector, targets, stride=4, samples=3, seed=1)
    assert (other[0].values != together[0].values).any()


def test_windows_stay_in_the_picture(model):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)
    pin = Pin(image_size=(10, W), input_size=(H, W), scale=(1.0, 1.0), offset=(0.0, 7.0))
    found = explain(model, detector, [Target(candidate=0, label=0)], pin=pin, stride=4, samples=2)[0]
    assert found.values.shape == (2, 8)
    assert found.offset == (2.0, 10.0)  # two windows of 4 in 10 px, one pixel left over at either end
    tiny = Pin(image_size=(5, W), input_size=(H, W), scale=(1.0, 1.0), offset=(0.0, 7.0))
    with pytest.raises(ConfigError, match="at least 6 px"):
        explain(model, detector, [Target(candidate=0, label=0)], pin=tiny)


def test_what_is_wrong_is_said(model, tmp_path):
    with pytest.raises(ConfigError, match="curator fit-patches --out PATH"):
        PDA()
    with pytest.raises(ConfigError, match="expected patches that curator fit-patches wrote"):
        PDA(AttributionOptions(settings={"model": str(tmp_path / "none.safetensors")}))
    save_file({"mean": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="expected patches that curator fit-patches wrote"):
        PDA(AttributionOptions(settings={"model": str(tmp_path / "other.safetensors")}))
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(ConfigError, match="expected patches that curator fit-patches wrote"):
        PDA(AttributionOptions(settings={"model": str(tmp_path / "text.safetensors")}))
    with pytest.raises(ConfigError, match="holds patch=4, got patch=10"):
        PDA(AttributionOptions(settings={"model": str(model), "patch": "10"}))
    with pytest.raises(ConfigError, match="expected a mean of 48"):
        PatchGaussian(2, 1, np.zeros(4), np.eye(4))
    with pytest.raises(InputError, match="at least 14 px"):
        fit_patches([torch.zeros(3, 10, 30)])
    with pytest.raises(InputError, match="got none"):
        fit_patches([])
    assert ATTRIBUTIONS.load("pda") is PDA
