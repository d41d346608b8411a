"""Cut-outs: what is known exactly is found; what is believed, when not, and what is said then."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from curator.errors import StageError
from curator.synthesize.cutout import (
    Cutout,
    cut_mask,
    cut_object,
    outline_contrast,
    polygon_mask,
    soft_box,
)


def _disc(size: int = 80, radius: float = 20.0, colour: tuple[float, ...] = (0.8, 0.3, 0.1)) -> torch.Tensor:
    """A disc in the middle of a noisy green ground, (3, size, size)."""
    rng = np.random.default_rng(1)
    image = torch.tensor([0.4, 0.6, 0.4])[:, None, None].repeat(1, size, size)
    image[:, _round(size, radius)] = torch.tensor(colour)[:, None]
    noise = torch.from_numpy(rng.normal(0, 0.02, (3, size, size)).astype(np.float32))
    return (image + noise).clamp(0, 1)


def _round(size: int, radius: float) -> torch.Tensor:
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return torch.from_numpy(np.hypot(x - size / 2, y - size / 2) <= radius)


def _mask(cutout: Cutout, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = cutout.window
    mask[y1:y2, x1:x2] = cutout.alpha.numpy() >= 0.5
    return mask


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("size", "radius"), [(80, 20.0), (80, 6.0), (400, 120.0)])
def test_a_disc_is_cut_out_of_its_box(size: int, radius: float) -> None:
    image = _disc(size, radius)
    low, high = size / 2 - radius, size / 2 + radius
    cutout = cut_object(image, (low, low, high, high))
    truth = _round(size, radius).numpy()
    assert cutout.source == "cut"
    assert _iou(_mask(cutout, (size, size)), truth) > 0.95
    assert cutout.box == (low, low, high, high)
    assert cutout.extent == pytest.approx(cutout.box, abs=1.5)
    x1, y1, x2, y2 = cutout.window
    assert torch.equal(cutout.pixels, image[:, y1:y2, x1:x2])
    assert cutout.quality > 0.7


def test_the_edge_is_soft_by_about_a_pixel() -> None:
    cutout = cut_object(_disc(), (20.0, 20.0, 60.0, 60.0))
    soft = (cutout.alpha > 0.02) & (cutout.alpha < 0.98)
    away = ndimage.distance_transform_edt(cutout.alpha.numpy() < 0.5)
    away += ndimage.distance_transform_edt(cutout.alpha.numpy() >= 0.5)
    assert bool(soft.any())
    assert float(away[soft.numpy()].max()) <= 3


def test_a_polygon_is_believed() -> None:
    square = (30.0, 30.0, 50.0, 30.0, 50.0, 50.0, 30.0, 50.0)
    cutout = cut_object(_disc(), (20.0, 20.0, 60.0, 60.0), (square,))
    assert cutout.source == "polygon"
    assert cutout.extent == (30, 30, 50, 50)
    assert cutout.box == (20, 20, 60, 60)
    assert _mask(cutout, (80, 80))[32:48, 32:48].all()
    assert _mask(cutout, (80, 80)).sum() == 400


def test_rings_of_a_polygon_are_joined_and_a_degenerate_one_is_nothing() -> None:
    rings = ((0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0), (6.0, 6.0, 9.0, 6.0, 9.0, 9.0, 6.0, 9.0), (1.0, 1.0))
    mask = polygon_mask(rings, (10, 10))
    assert mask.sum() == 16 + 9
    assert mask[:4, :4].all()
    assert mask[6:9, 6:9].all()


def test_a_cut_that_does_not_fill_its_box_is_not_believed() -> None:
    image, box = _disc(radius=8), (20.0, 20.0, 60.0, 60.0)
    cutout = cut_object(image, box)
    assert cutout.source == "box"
    assert cutout.quality == 0
    assert cutout.box == cutout.extent == box
    assert cut_object(image, box, fallback=False).source == "cut"


@pytest.mark.parametrize("box", [(10.0, 10.0, 12.0, 40.0), (90.0, 10.0, 99.0, 40.0), (5.0, 5.0, 5.0, 5.0)])
def test_a_box_of_hardly_a_pixel_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(StageError, match="at least 4 pixels"):
        cut_object(_disc(), box)


@settings(max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.floats(-20, 70), st.floats(-20, 70)),
    extent=st.tuples(st.floats(1, 90), st.floats(1, 90)),
)
def test_any_box_gives_a_cut_out_in_the_image_or_is_refused(
    corner: tuple[float, float], extent: tuple[float, float]
) -> None:
    image = _disc()
    box = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    try:
        cutout = cut_object(image, box)
    except StageError:
        return
    x1, y1, x2, y2 = cutout.window
    assert 0 <= x1 < x2 <= 80
    assert 0 <= y1 < y2 <= 80
    assert cutout.pixels.shape == (3, y2 - y1, x2 - x1)
    assert cutout.alpha.shape == (y2 - y1, x2 - x1)
    assert 0 <= float(cutout.alpha.min()) <= float(cutout.alpha.max()) <= 1
    assert float(cutout.alpha.max()) >= 0.5
    assert 0 <= cutout.quality < 1


def test_an_object_cut_by_the_image_s_border_is_opaque_there() -> None:
    image = _disc()
    half = image[:, :, 40:].contiguous()
    cutout = cut_object(half, (0.0, 20.0, 20.0, 60.0))
    assert cutout.window[0] == 0
    assert float(cutout.alpha[cutout.alpha.shape[0] // 2, 0]) == pytest.approx(1, abs=1e-3)


def test_seeds_grow_and_shrink_to_the_thing_s_outline() -> None:
    truth = _round(80, 16).numpy()
    for seeds in (ndimage.binary_erosion(truth, iterations=3), ndimage.binary_dilation(truth, iterations=2)):
        cutout = cut_mask(_disc(radius=16), seeds)
        assert cutout.source == "mask"
        assert _iou(_mask(cutout, (80, 80)), truth) > max(0.93, _iou(seeds, truth))
    with pytest.raises(StageError, match="at least 16 pixels"):
        cut_mask(_disc(), np.zeros((80, 80), bool))


def test_seeds_on_plain_ground_keep_their_own_outline() -> None:
    seeds = np.zeros((80, 80), bool)
    seeds[30:50, 34:46] = True
    cutout = cut_mask(torch.full((3, 80, 80), 0.5), seeds)
    assert _iou(_mask(cutout, (80, 80)), seeds) > 0.6


def test_contrast_is_that_along_the_outline() -> None:
    image, truth = _disc(radius=20), _round(80, 20).numpy()
    right = outline_contrast(image, truth)
    assert right > outline_contrast(image, ndimage.binary_erosion(truth, iterations=5)) + 0.2
    assert outline_contrast(image, np.ones((80, 80), bool)) == 0


def test_equal_arguments_give_equal_cut_outs() -> None:
    one, two = (cut_object(_disc(), (20.0, 20.0, 60.0, 60.0)) for _ in range(2))
    assert torch.equal(one.alpha, two.alpha)
    assert one.quality == two.quality


def test_a_soft_box_fades_out_and_is_half_gone_at_its_box() -> None:
    cutout = soft_box(_disc(), (20.0, 24.0, 60.0, 56.0))
    x1, y1, x2, y2 = cutout.window
    assert x1 < 20 < 60 < x2
    assert y1 < 24 < 56 < y2
    assert float(cutout.alpha[40 - y1, 40 - x1]) == 1
    assert float(cutout.alpha[40 - y1, 20 - x1]) == pytest.approx(0.5, abs=0.15)
    rim = torch.cat([cutout.alpha[0], cutout.alpha[-1], cutout.alpha[:, 0], cutout.alpha[:, -1]])
    assert float(rim.max()) < 0.1
