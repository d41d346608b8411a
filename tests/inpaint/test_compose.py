"""The inpainter without a model: compositions kept, and blended by the Poisson equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import InputError, RegistryError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.compose import poisson


def _picture(seed: int = 0, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 0.6, (3, *size))


def test_a_source_in_another_light_is_cloned_without_a_seam() -> None:
    """Known beyond the hole, and brighter by a constant: cloning it gives the image itself (eq. 7)."""
    image = _picture()
    hole = np.zeros((30, 40), bool)
    hole[5:20, 0:25] = True  # up to the image's border
    np.testing.assert_allclose(poisson(image, image + 0.2, hole), image, atol=1e-9)


def test_gradients_are_kept_and_colours_fit_the_border() -> None:
    image = np.full((3, 20, 20), 0.3)
    composed = image.copy()
    rows, columns = np.mgrid[0:8, 0:8]
    composed[:, 6:14, 6:14] = 0.8 + 0.1 * np.sin(rows) * np.sin(columns)
    hole = np.zeros((20, 20), bool)
    hole[4:16, 4:16] = True
    blended = poisson(image, composed, hole)
    assert abs(blended[0, 6, 6] - 0.3) < 0.1 < composed[0, 6, 6] - 0.3
    # The discrete Laplacian inside is the composition's own.
    for y, x in ((8, 9), (10, 10), (12, 8)):
        laplacian = [
            4 * p[0, y, x] - p[0, y - 1, x] - p[0, y + 1, x] - p[0, y, x - 1] - p[0, y, x + 1]
            for p in (blended, composed)
        ]
        assert laplacian[0] == pytest.approx(laplacian[1], abs=1e-9)


def test_a_hole_over_the_whole_image_has_no_border_to_fit() -> None:
    image, composed = _picture(), _picture(1)
    np.testing.assert_array_equal(poisson(image, composed, np.ones((30, 40), bool)), composed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["alpha", "poisson"]))
def test_outside_stays_bit_for_bit_whatever_the_hole(seed: int, blend: str) -> None:
    random = torch.Generator().manual_seed(seed)
    image, initial = torch.rand(2, 1, 3, 13, 17, generator=random)
    mask = torch.rand(1, 13, 17, generator=random) < torch.rand(1, generator=random)
    out = build_inpainter(f"compose:?blend={blend}").inpaint(image, mask, initial=initial, seeds=[0])
    assert torch.equal(out[:, :, ~mask[0]], image[:, :, ~mask[0]])
    assert bool(torch.isfinite(out).all())
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_nothing_composed_a_wrong_blend_and_a_name_are_refused() -> None:
    image, mask = torch.rand(1, 3, 9, 9), torch.ones(1, 9, 9, dtype=torch.bool)
    with pytest.raises(InputError, match="nothing is composed") as caught:
        build_inpainter("compose:").inpaint(image, mask, seeds=[0])
    assert "\n" not in str(caught.value)
    with pytest.raises(RegistryError, match="expected one of alpha, poisson"):
        build_inpainter("compose:?blend=magic")
    with pytest.raises(RegistryError, match="without a name"):
        build_inpainter("compose:poisson")


def test_fingerprints_follow_the_blend_alone() -> None:
    prints = [
        build_inpainter(s).fingerprint for s in ("compose:", "compose:?blend=alpha", "compose:?blend=poisson")
    ]
    assert prints[0] == prints[1] != prints[2]
