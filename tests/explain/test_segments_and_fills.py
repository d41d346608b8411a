"""Segments, fills, precision and the heat map."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import ConfigError, InputError
from curator.explain.fills.fill import HOLES, BlurHole, LocalMeanHole, MeanHole, make_fill
from curator.explain.precision import faithful
from curator.explain.segments import picture_box, segment_hashes, segment_sizes, slic_segments
from curator.precision import autocast, fast_bf16
from curator.represent.heatmap import BLUE, RED, density, overlay
from store.records import Pin, SegmentMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Convolutional, TinyDetector, blocks, picture


def plain_pin(height: int, width: int) -> Pin:
    return Pin(image_size=(height, width), input_size=(height, width), scale=(1.0, 1.0))


# ------------------------------------------------------------ segments


@pytest.mark.parametrize("count", [2, 12, 60, 200])
def test_slic_gives_about_the_wanted_number_of_compact_labels_and_repeats_itself(count):
    image = picture(120, 160, seed=1)
    labels = slic_segments(image, plain_pin(120, 160), count)
    assert labels.dtype == np.uint16
    assert labels.shape == (120, 160)
    assert (segment_sizes(labels) > 0).all()
    assert abs(int(labels.max()) + 1 - count) <= max(1, 0.15 * count)
    np.testing.assert_array_equal(labels, slic_segments(image.clone(), plain_pin(120, 160), count))


def test_segments_follow_edges():
    image = torch.zeros(3, 64, 64)
    image[:, :, 29:] = 1.0
    labels = slic_segments(image, plain_pin(64, 64), 30)
    assert not set(labels[:, :28].ravel()) & set(labels[:, 30:].ravel())


def test_letterbox_padding_is_one_segment_of_its_own():
    pin = Pin(image_size=(100, 200), input_size=(96, 96), scale=(0.48, 0.48), offset=(0.0, 24.0))
    assert picture_box(pin) == (0, 24, 96, 72)
    labels = slic_segments(picture(96, 96), pin, 20)
    assert set(labels[:24].ravel()) == set(labels[72:].ravel()) == {int(labels.max())}
    assert int(labels.max()) not in labels[24:72]


def test_tiny_images_and_wrong_sizes():
    labels = slic_segments(picture(6, 6), plain_pin(6, 6), 500)
    assert 1 <= int(labels.max()) + 1 <= 36
    with pytest.raises(InputError, match="expected an image of"):
        slic_segments(picture(8, 6), plain_pin(6, 6), 5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(20)))
def test_hashes_follow_segments_not_labels(order):
    segments = blocks(30, 40, 4, 5)
    hashes = segment_hashes(segments)
    assert len(set(hashes.tolist())) == 20
    np.testing.assert_array_equal(segment_hashes(np.asarray(order, np.uint16)[segments])[list(order)], hashes)


# ------------------------------------------------------------ fills


@pytest.mark.parametrize("name", sorted(HOLES))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_fills_are_bit_exact_outside_the_hole(name, seed, share):
    detector = TinyDetector(Convolutional(), size=(20, 30), mean=(0.4, 0.5, 0.6))
    fill = make_fill(name, detector, method="sp", takes=("hole",))
    image = picture(20, 30, seed=seed % 7)
    hole = torch.from_numpy(np.random.default_rng(seed).random((20, 30)) < share)
    filled = fill.fill(image, hole, seed)
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    assert bool(torch.isfinite(filled).all())
    assert float(filled.min()) >= -1e-5
    assert float(filled.max()) <= 1 + 1e-5


def test_what_each_fill_paints():
    image = torch.zeros(3, 40, 40)
    image[:, :, 20:] = 1.0
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[15:25, 2:8] = True
    color = (0.1, 0.2, 0.3)
    assert torch.equal(MeanHole(color).fill(image, hole, 0)[:, 20, 5], torch.tensor(color))
    assert float(BlurHole(2.0).fill(image, hole, 0)[:, hole].abs().max()) < 1e-3  # far from the white half
    flat = torch.full((3, 40, 40), 0.7)
    torch.testing.assert_close(BlurHole(3.0).fill(flat, hole, 0), flat)
    ramp = torch.linspace(0, 1, 40).expand(3, 40, 40).clone()
    local = LocalMeanHole((0.0, 0.0, 0.0)).fill(ramp, hole, 0)
    assert float(local[:, hole].mean()) == pytest.approx(float(ramp[:, hole].mean()), abs=0.1)
    whole = torch.ones_like(hole)
    assert torch.equal(LocalMeanHole(color).fill(image, whole, 0)[:, 3, 3], torch.tensor(color))


def test_wrong_pairings_are_refused():
    detector = TinyDetector(Convolutional(), size=(20, 30))
    with pytest.raises(ConfigError, match="e2x fades segments towards a baseline and takes one of: mean"):
        make_fill("local-mean", detector, method="e2x", takes=("continuous",))
    with pytest.raises(ConfigError, match=r"expected one of mean, blur, noise, .* got 'magic'"):
        make_fill("magic", detector, method="sp", takes=("hole",))


# ------------------------------------------------------------ precision


def test_auto_takes_bf16_only_on_hardware_that_has_it(tmp_path):
    cpu = torch.device("cpu")
    cpuinfo = tmp_path / "cpuinfo"
    assert not fast_bf16(cpu, cpuinfo)
    cpuinfo.write_text("flags : fpu avx512_bf16\n")
    assert not fast_bf16(cpu, cpuinfo)
    cpuinfo.write_text("flags : fpu amx_bf16 amx_tile\n")
    assert fast_bf16(cpu, cpuinfo)


@pytest.mark.parametrize(("noise", "expected"), [(0.0, True), (0.05, True), (1.0, False), (np.nan, False)])
def test_bf16_is_faithful_where_its_maps_are_those_of_fp32(noise, expected):
    numbers = np.random.default_rng(0)
    phi = numbers.normal(size=(2, 50)).astype(np.float32)

    def maps(rows):
        return [SegmentMap(phi=row, full=1.0, empty=0.0, gap=0.0, passes=1) for row in rows]

    noisy = phi + noise * np.stack([np.zeros(50), numbers.normal(size=50)])  # one of two suffices
    assert faithful(maps(phi), maps(noisy)) is expected


def test_flat_maps_say_nothing_about_faithfulness():
    flat = SegmentMap(phi=np.zeros(5, np.float32), full=1.0, empty=0.0, gap=0.0, passes=1)
    assert not faithful([flat], [flat])
    assert not faithful([], [])


def test_bf16_autocast_reaches_the_convolutions():
    module = Convolutional()
    with autocast("bf16", torch.device("cpu")):
        assert module.first(torch.zeros(1, 3, 8, 8)).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert module.first(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


# ------------------------------------------------------------ heat map


def test_overlay_paints_red_blue_and_nothing_through_the_pin():
    pixels = np.full((20, 40, 3), 100, np.uint8)
    pin = Pin(image_size=(20, 40), input_size=(32, 32), scale=(0.8, 0.8), offset=(0.0, 8.0))
    labels = np.zeros((32, 32), np.uint16)
    labels[:, 16:] = 1
    labels[:8], labels[24:] = 2, 2
    painted = overlay(pixels, labels, np.array([1.0, -1.0, 0.0], np.float32), pin)
    assert painted.shape == pixels.shape
    assert painted.dtype == np.uint8
    assert painted[10, 5, 0] > 100 > painted[10, 5, 2]  # red where phi > 0
    assert painted[10, 35, 2] > 100 > painted[10, 35, 0]  # blue where phi < 0
    assert np.abs(painted[10, 5].astype(int) - RED).sum() < np.abs(pixels[10, 5].astype(int) - RED).sum()
    assert np.abs(painted[10, 35].astype(int) - BLUE).sum() < np.abs(pixels[10, 35].astype(int) - BLUE).sum()
    np.testing.assert_array_equal(overlay(pixels, labels, np.zeros(3, np.float32), pin), pixels)


def test_density_divides_by_the_segments_size():
    labels = np.array([[0, 0, 0, 1]], np.uint16)
    np.testing.assert_allclose(density(labels, np.array([0.3, 0.3], np.float32)), [0.1, 0.3], rtol=1e-6)
