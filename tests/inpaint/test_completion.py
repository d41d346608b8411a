"""Completion by patches: textures go on through a hole, nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from curator.errors import InputError
from curator.inpaint.completion import completed


def stripes(height: int = 90, width: int = 110) -> torch.Tensor:
    """Slanted bands of two colours (3, H, W)."""
    y, x = np.mgrid[0:height, 0:width]
    on = ((x + y // 2) // 6) % 2
    image = np.where(on[..., None], [0.9, 0.8, 0.2], [0.1, 0.2, 0.5])
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous()


def hole_at(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """A hole (H, W), True within the box."""
    hole = np.zeros(size, bool)
    hole[box[1] : box[3], box[0] : box[2]] = True
    return hole


def test_a_texture_goes_on_where_an_equation_blurs_it() -> None:
    image = stripes()
    hole = hole_at((90, 110), (40, 30, 66, 52))
    spoilt = image.clone()
    spoilt[:, hole] = torch.rand(3, int(hole.sum()), generator=torch.Generator().manual_seed(0))
    found = completed(spoilt, hole)
    smooth = inpaint_biharmonic(spoilt.permute(1, 2, 0).numpy(), hole, channel_axis=-1)
    error = float((found - image)[:, hole].abs().mean())
    blurred = float(np.abs(smooth - image.permute(1, 2, 0).numpy())[hole].mean())
    assert error < 0.05
    assert error < blurred / 4
    assert torch.equal(found, completed(spoilt, hole))


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 30), (80, 60, 110, 90), (0, 40, 110, 50), (50, 20, 51, 21), (20, 5, 100, 85)]
)
def test_everything_outside_the_hole_stays_as_it_was(box: tuple[int, int, int, int]) -> None:
    image = stripes() + 0.05 * torch.rand(3, 90, 110, generator=torch.Generator().manual_seed(1))
    image = image.clamp(0, 1)
    hole = hole_at((90, 110), box)
    before = image.clone()
    found = completed(image, hole)
    assert torch.equal(image, before)
    assert torch.equal(found[:, ~hole], image[:, ~hole])
    assert bool(found.isfinite().all())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_nothing_is_taken_from_what_is_to_be_avoided() -> None:
    ground = torch.full((3, 120, 120), 0.5) + 0.02 * torch.randn(
        3, 120, 120, generator=torch.Generator().manual_seed(2)
    )
    things = np.zeros((120, 120), bool)
    for x in (10, 50, 90):  # three alike; the middle one is removed, and the others look most like its edge
        things[45:75, x : x + 20] = True
    image = torch.where(torch.from_numpy(things), torch.tensor(1.0), ground).clamp(0, 1)
    hole = hole_at((120, 120), (52, 45, 78, 75))  # a strip of the middle one is left at its side
    assert float(completed(image, hole)[:, hole].max()) > 0.9
    assert float(completed(image, hole, things)[:, hole].max()) < 0.7


def test_flat_colours_bring_in_no_other() -> None:
    """Where all distances are large against most, every weight of a pixel may vanish: black, it was."""
    image = torch.full((3, 160, 160), 0.8)
    image[:, 78:82] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    image[:, 10:30, 10:150] = 0.0  # a bar that black would draw in
    found = completed(image, hole_at((160, 160), (50, 50, 110, 110)))
    assert float(found[:, 50:110, 50:110].sum(0).min()) > 0.9


def test_a_long_thin_hole_in_a_large_picture_is_filled_soon() -> None:
    image = stripes(500, 700)
    hole = hole_at((500, 700), (60, 240, 640, 254))
    spoilt = image.clone()
    spoilt[:, hole] = 0.5
    found = completed(spoilt, hole)
    assert float((found - image)[:, hole].abs().mean()) < 0.1


def test_a_tiny_image_and_no_hole_at_all() -> None:
    small = stripes(9, 10)
    assert torch.equal(completed(small, np.zeros((9, 10), bool)), small)
    found = completed(small, hole_at((9, 10), (3, 3, 6, 6)))
    assert bool(found.isfinite().all())
    with pytest.raises(InputError, match="something of the image around it"):
        completed(small, np.ones((9, 10), bool))


def test_a_large_hole_is_copied_at_full_size_from_what_was_found_at_a_smaller_one() -> None:
    image = stripes(400, 420)
    hole = hole_at((400, 420), (120, 130, 300, 280))
    spoilt = image.clone()
    spoilt[:, hole] = 0.5
    found = completed(spoilt, hole)
    shown = found[:, hole]
    ends = torch.minimum(
        (shown - image[:, 0, 0][:, None]).abs().sum(0), (shown - image[:, 0, 6][:, None]).abs().sum(0)
    )
    assert float((ends < 0.05).float().mean()) > 0.9  # one of the two colours, nothing between them
