"""Fills by name: bit-exactness, settings, batches, and inpainters behind the seam."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curator.errors import ConfigError, RegistryError
from curator.explain.fills.fill import (
    CONTINUOUS,
    HOLES,
    BiharmonicHole,
    BlurFill,
    BlurHole,
    NoiseFill,
    continuous_baseline,
    fill_many,
    make_fill,
)
from curator.explain.fills.inpainting import InpaintingHole
from curator.registry import INPAINTERS

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Convolutional, TinyDetector, picture

H, W = 20, 30
MEAN = (0.4, 0.5, 0.6)


def detector() -> TinyDetector:
    return TinyDetector(Convolutional(), size=(H, W), mean=MEAN)


class Stripes:
    """An inpainter that paints by seed alone and, unlike a good one, over pixels outside the mask too."""

    fingerprint = "stripes"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def inpaint(self, images: Tensor, masks: Tensor, *, prompts=None, exemplars=None, seeds: Sequence[int]):
        self.batches.append(len(images))
        values = torch.tensor([(seed % 10) / 10 for seed in seeds]).view(-1, 1, 1, 1)
        return values.expand_as(images).clone()


def every_hole_fill():
    made = {name: make_fill(name, detector(), method="sp", takes=("hole",)) for name in HOLES}
    return {**made, "inpaint": InpaintingHole(Stripes())}


@pytest.mark.parametrize("name", sorted([*HOLES, "inpaint"]))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]), smooth=st.booleans())
def test_many_holes_are_filled_as_one_by_one_and_bit_exact_outside(name, seed, share, smooth):
    fill = every_hole_fill()[name]
    numbers = np.random.default_rng(seed)
    image = (
        picture(H, W, seed=seed % 5) if smooth else torch.from_numpy(numbers.random((3, H, W), np.float32))
    )
    holes = torch.from_numpy(numbers.random((3, H, W)) < share)
    before = image.clone()
    many = fill_many(fill, image, holes, [seed, seed, seed + 1])
    assert torch.equal(image, before)
    assert many.shape == (3, 3, H, W)
    for hole, filled, own in zip(holes, many, [seed, seed, seed + 1], strict=True):
        assert torch.equal(filled[:, ~hole], image[:, ~hole])
        assert torch.equal(filled, fill.fill(image, hole, own))
        assert float(filled.min()) + 1e-6 >= 0
        assert float(filled.max()) <= 1 + 1e-6
        if not hole.any():
            assert torch.equal(filled, image)


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_continuous_fills_give_a_baseline_that_repeats(name):
    image = picture(H, W)
    first, second = (
        make_fill(name, detector(), method="e2x", takes=("continuous",)).baseline(image, detector())
        for _ in range(2)
    )
    assert first.shape == image.shape
    assert torch.equal(first, second)
    assert float(first.min()) + 1e-6 >= 0
    assert float(first.max()) <= 1 + 1e-6


def test_what_the_fills_show():
    image = picture(H, W)
    blurred = BlurFill(3.0).baseline(image, detector())
    assert torch.equal(BlurHole(3.0).fill(image, torch.ones(H, W, dtype=torch.bool), 0), blurred)
    assert float(blurred.std()) < float(image.std())
    noise = NoiseFill().baseline(torch.zeros(3, 90, 90), detector())
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(noise.std()) == pytest.approx(1 / np.sqrt(12), abs=0.01)
    assert not torch.equal(NoiseFill(1).baseline(torch.zeros(3, 90, 90), detector()), noise)


def test_classical_inpainting_continues_a_ramp():
    ramp = torch.linspace(0, 1, W).expand(3, H, W).clone()
    hole = torch.zeros(H, W, dtype=torch.bool)
    hole[6:14, 8:20] = True
    filled = BiharmonicHole(MEAN).fill(ramp, hole, 0)
    torch.testing.assert_close(filled, ramp, atol=2e-3, rtol=0)
    whole = BiharmonicHole(MEAN).fill(ramp, torch.ones_like(hole), 0)
    assert torch.equal(whole[:, 4, 5], torch.tensor(MEAN))


def test_settings_are_read_and_unknown_ones_refused():
    blur = make_fill("blur?sigma=4", detector(), method="sp", takes=("hole",))
    assert isinstance(blur, BlurHole)
    assert blur.sigma == 4
    kinds = ("continuous", "hole")
    assert isinstance(make_fill("blur", detector(), method="mp", takes=kinds), BlurFill)
    assert isinstance(make_fill("biharmonic", detector(), method="mp", takes=kinds), BiharmonicHole)
    assert make_fill("local-mean?radius=3", detector(), method="sp", takes=("hole",)).radius == 3
    with pytest.raises(ConfigError, match="knows the settings sigma, got radius"):
        make_fill("blur?radius=4", detector(), method="sp", takes=("hole",))
    with pytest.raises(ConfigError, match=r"knows the settings \(none\), got x"):
        make_fill("mean?x=1", detector(), method="e2x", takes=("continuous",))
    with pytest.raises(ConfigError, match="sigma: expected a number"):
        make_fill("blur?sigma=0", detector(), method="e2x", takes=("continuous",))


def test_hole_fills_have_no_baseline():
    for name in ("biharmonic", "local-mean", "inpaint?spec=builtin:"):
        with pytest.raises(
            ConfigError, match="fades segments towards a baseline and takes one of: mean, blur"
        ):
            make_fill(name, detector(), method="e2x", takes=("continuous",))
    with pytest.raises(ConfigError, match="continuous fill"):
        continuous_baseline(BlurHole(), picture(H, W), detector(), method="e2x")


def test_inpainters_come_from_the_registry_with_their_own_options(monkeypatch):
    asked = []

    def build(spec, *, steps=None, device="auto"):
        asked.append((spec.scheme, spec.name, spec.options, device))
        return Stripes()

    monkeypatch.setattr(INPAINTERS, "_builtin", {"curator": f"{__name__}:unused"})
    monkeypatch.setattr(INPAINTERS, "load", lambda name: build)
    fill = make_fill("inpaint?spec=curator:some/dir&steps=4", detector(), method="sp", takes=("hole",))
    assert asked == [("curator", "some/dir", {"steps": "4"}, "cpu")]
    image, hole = picture(H, W), torch.zeros(H, W, dtype=torch.bool)
    hole[3:9, 4:12] = True
    filled = fill.fill(image, hole, 7)
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    np.testing.assert_allclose(filled[:, hole], 0.7, atol=1e-6)
    many = fill_many(fill, image, torch.stack([hole] * 5), [1, 2, 3, 4, 5])
    assert fill.inpainter.batches == [1, 5]
    np.testing.assert_allclose([float(one[0, 4, 5]) for one in many], [0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-6)


def test_an_inpainter_must_be_named():
    with pytest.raises(ConfigError, match=r"expected inpaint\?spec=SPEC"):
        make_fill("inpaint", detector(), method="sp", takes=("hole",))
    with pytest.raises(RegistryError, match="no inpainters called 'magic'"):
        make_fill("inpaint?spec=magic:x", detector(), method="sp", takes=("hole",))


def test_the_shipped_inpainter_fills_holes():
    pytest.importorskip("diffusers")
    fill = make_fill("inpaint?spec=builtin:&steps=1", detector(), method="sp", takes=("hole",))
    image, holes = picture(48, 64), torch.zeros(2, 48, 64, dtype=torch.bool)
    holes[0, 10:22, 12:30] = True
    filled = fill_many(fill, image, holes, [0, 0])
    assert torch.equal(filled[0][:, ~holes[0]], image[:, ~holes[0]])
    assert not torch.equal(filled[0], image)
    assert torch.equal(filled[1], image)
    assert torch.equal(filled[0], fill.fill(image, holes[0], 0))
