"""Pasting: what is outside the hole is untouched, the thing keeps its colour, light and sharpness follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from curator.errors import StageError
from curator.synthesize.compose import LIGHT, light_between, paste
from curator.synthesize.cutout import Cutout, cut_object, soft_box
from curator.synthesize.photometry import blur, blurred, lab_of, noise, noisy, spread

BOX = (20.0, 30.0, 44.0, 60.0)


def _ground(level: float, size: int = 96, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, 0.03, (1, 3, 12, 12)).astype(np.float32))
    return (torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0] + level).clamp(0, 1)


def _source(level: float = 0.6) -> tuple[torch.Tensor, Cutout]:
    """A red block with a lighter stripe at the left of it, and its cut-out."""
    image = _ground(level)
    image[:, 30:60, 20:44] = torch.tensor([0.7, 0.15, 0.1])[:, None, None]
    image[:, 30:60, 22:26] = torch.tensor([0.9, 0.5, 0.4])[:, None, None]
    rectangle = (20.0, 30.0, 44.0, 30.0, 44.0, 60.0, 20.0, 60.0)
    return image, cut_object(image, BOX, (rectangle,))


@settings(max_examples=40, deadline=None)
@given(
    centre=st.tuples(st.floats(-10, 106), st.floats(-10, 106)),
    scale=st.floats(0.3, 1.7),
    mirrored=st.booleans(),
)
def test_outside_the_hole_nothing_changes(centre: tuple[float, float], scale: float, mirrored: bool) -> None:
    scene = _ground(0.5, seed=1)
    image, cutout = _source()
    try:
        pasted = paste(
            scene,
            image,
            cutout,
            centre=centre,
            scale=scale,
            mirrored=mirrored,
            rng=np.random.default_rng(0),
        )
    except StageError:
        return
    assert torch.equal(pasted.image[:, ~pasted.hole], scene[:, ~pasted.hole])
    assert pasted.image.dtype == torch.float32
    assert 0 <= float(pasted.image.min()) <= float(pasted.image.max()) <= 1
    rows, columns = np.nonzero(pasted.thing.numpy())
    assert pasted.extent == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert bool(pasted.hole[pasted.thing].all())
    distance = ndimage.distance_transform_cdt(~pasted.thing.numpy(), "taxicab")
    assert 3 <= distance[pasted.hole.numpy()].max() <= 9


def test_a_thing_pasted_as_it_is_keeps_its_pixels_and_its_place() -> None:
    scene = _ground(0.5, seed=1)
    image, cutout = _source()
    pasted = paste(
        scene, image, cutout, centre=(50, 40), scale=1.0, rng=np.random.default_rng(0), match=False
    )
    assert pasted.extent == (38, 25, 62, 55)
    assert pasted.box == pasted.extent
    assert torch.allclose(pasted.image[:, 28:52, 41:59], image[:, 33:57, 23:41], atol=1e-5)


def test_a_mirrored_thing_is_a_mirror_image() -> None:
    scene = _ground(0.5, seed=1)
    image, cutout = _source()
    one, two = (
        paste(
            scene,
            image,
            cutout,
            centre=(50, 40),
            scale=1.0,
            mirrored=m,
            rng=np.random.default_rng(0),
            match=False,
        )
        for m in (False, True)
    )
    assert one.extent == two.extent
    assert torch.allclose(one.image[:, 28:52, 41:59], two.image[:, 28:52, 41:59].flip(-1), atol=1e-5)
    assert float(one.image[1, 40, 42]) > float(two.image[1, 40, 42])  # the stripe


def test_no_halo_of_the_old_ground_goes_along() -> None:
    image, cutout = _source(level=0.95)  # from a white ground
    scene = _ground(0.1, seed=1)
    pasted = paste(
        scene, image, cutout, centre=(50, 40), scale=1.0, rng=np.random.default_rng(0), match=False
    )
    ring = pasted.hole & ~torch.from_numpy(ndimage.binary_erosion(pasted.thing.numpy()))
    assert float(pasted.image[2, ring].max()) < 0.45  # blue: the stripe has 0.4, the ground had 0.95


def test_light_follows_the_surroundings_by_its_share_and_colour_survives() -> None:
    image, cutout = _source(0.8)
    dark = _ground(0.2, seed=1)
    place = torch.zeros(96, 96, dtype=torch.bool)
    place[25:55, 38:62] = True
    home = np.zeros((96, 96), bool)
    home[30:60, 20:44] = True
    moved, _ = light_between(image, home, dark, place.numpy())
    expected = LIGHT[0] * (lab_of(dark)[place.numpy()][:, 0].mean() - lab_of(image)[~home][:, 0].mean())
    assert moved[0] == pytest.approx(max(expected, -25), abs=4)
    pasted = paste(dark, image, cutout, centre=(50, 40), scale=1.0, rng=np.random.default_rng(0))
    now, before = lab_of(pasted.image)[35:50, 50:58].mean((0, 1)), lab_of(image)[40:55, 32:40].mean((0, 1))
    assert now[0] < before[0] - 10
    assert abs(np.arctan2(now[2], now[1]) - np.arctan2(before[2], before[1])) < 0.25  # hue
    assert now[1] > 25  # still red
    same = paste(image, image, cutout, centre=(75, 75), scale=1.0, rng=np.random.default_rng(0))
    assert max(map(abs, same.details["light"])) < 6


def _edges(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    blocks = torch.from_numpy(rng.uniform(0.1, 0.9, (1, 1, 8, 8)).astype(np.float32))
    return torch.nn.functional.interpolate(blocks, (96, 96))[0].repeat(3, 1, 1)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
def test_blur_is_read_off_the_edges(sigma: float) -> None:
    assert blur(blurred(_edges(), sigma)) == pytest.approx(sigma, rel=0.2, abs=0.1)
    assert np.isnan(blur(torch.full((3, 32, 32), 0.5)))


@pytest.mark.parametrize("sigma", [0.01, 0.04])
def test_noise_is_read_off_the_finest_detail(sigma: float) -> None:
    rng = np.random.default_rng(0)
    assert noise(noisy(_ground(0.5), sigma, rng)) == pytest.approx(sigma, rel=0.15)
    assert noise(_ground(0.5)) < 0.004


def test_spread_is_what_haze_makes_small() -> None:
    assert spread(0.3 * _edges() + 0.5) == pytest.approx(0.3 * spread(_edges()), rel=0.01)


def test_a_thing_is_as_soft_and_as_noisy_as_its_scene() -> None:
    image, cutout = _source()
    rng = np.random.default_rng(0)
    soft = paste(blurred(_edges(), 2), image, cutout, centre=(50, 40), scale=1.0, rng=rng)
    assert soft.details["blur"] > 1
    grainy = paste(noisy(_ground(0.5), 0.05, rng), image, cutout, centre=(50, 40), scale=1.0, rng=rng)
    assert grainy.details["noise"] == pytest.approx(0.05, abs=0.015)
    clean = paste(_edges(), image, cutout, centre=(50, 40), scale=1.0, rng=rng)
    assert clean.details["blur"] == 0
    assert clean.details["noise"] < 0.01


def test_a_soft_box_is_labelled_by_its_box_and_any_other_by_what_is_seen() -> None:
    image, cutout = _source()
    scene = _ground(0.5, seed=1)
    soft = paste(scene, image, soft_box(image, BOX), centre=(50, 40), scale=0.5, rng=np.random.default_rng(0))
    assert soft.box == pytest.approx((44, 32.5, 56, 47.5), abs=1)
    cut = paste(scene, image, cutout, centre=(90, 40), scale=1.0, rng=np.random.default_rng(0))
    assert cut.box == cut.extent == (78, 25, 96, 55)  # the rest is outside the image


def test_what_would_hardly_be_seen_is_refused() -> None:
    image, cutout = _source()
    for centre, scale in (((107, 40), 1.0), ((300, 40), 1.0), ((50, 40), 0.1)):
        with pytest.raises(StageError):
            paste(image, image, cutout, centre=centre, scale=scale, rng=np.random.default_rng(0))


def test_two_bands_keep_the_grain_where_a_wide_edge_mixes() -> None:
    rng = np.random.default_rng(0)
    scene, source = (
        torch.from_numpy(rng.normal(level, 0.05, (3, 80, 80)).astype(np.float32)) for level in (0.4, 0.6)
    )
    alpha = torch.clamp((40 - (torch.arange(80) - 40).abs().float()) / 20 - 0.5, 0, 1)[None, :].expand(80, 80)
    cutout = Cutout(
        pixels=source,
        alpha=alpha.contiguous(),
        window=(0, 0, 80, 80),
        extent=(0.0, 0.0, 80.0, 80.0),
        box=(0.0, 0.0, 80.0, 80.0),
        quality=0.0,
        source="box",
    )
    found = {
        bands: paste(
            scene, source, cutout, centre=(40, 40), scale=1.0, rng=rng, match=False, bands=bands
        ).image[0]
        for bands in (False, True)
    }
    edge = (alpha > 0.3) & (alpha < 0.7)

    def grain(image: torch.Tensor) -> float:
        return float((image[:, 1:] - image[:, :-1])[edge[:, 1:]].std())

    whole = grain(scene[0])
    assert grain(found[False]) < 0.85 * whole
    assert grain(found[True]) > 0.92 * whole
    middle = found[True][:, 38:42].mean()
    assert abs(float(middle) - 0.6) < 0.02  # coarse structure follows the alpha all the same
