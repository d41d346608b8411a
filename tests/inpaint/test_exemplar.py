"""The pipeline itself: shapes, known pixels, saving and loading, independence of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curator.inpaint.exemplar import ExemplarInpaintPipeline, build_pipeline, collage


def _inputs(n: int, size: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    mask = torch.zeros(n, 1, size, size)
    for i in range(n):
        mask[i, :, 6 + i : 20, 8:22] = 1
    return torch.rand(n, 3, size, size, generator=random), mask, torch.rand(n, 3, 16, 16, generator=random)


def _seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def _load(folder: Path) -> ExemplarInpaintPipeline:
    pipe = ExemplarInpaintPipeline.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_saved_and_loaded_paint_alike(tiny_folder: Path, tmp_path: Path) -> None:
    image, mask, exemplar = _inputs(2)
    first = _load(tiny_folder)
    first.save_pretrained(tmp_path / "again", safe_serialization=True)
    second = _load(tmp_path / "again")
    painted = [
        pipe(image, mask, exemplar, num_inference_steps=3, generator=_seeds(1, 2)).images
        for pipe in (first, second)
    ]
    assert torch.equal(*painted)
    assert not list((tmp_path / "again").rglob("*.bin"))


def test_known_pixels_stay_and_the_exemplar_matters(tiny_folder: Path) -> None:
    pipe = _load(tiny_folder)
    image, mask, exemplar = _inputs(2)
    painted = pipe(image, mask, exemplar, num_inference_steps=3, generator=_seeds(1, 2)).images
    known = (mask < 0.5).expand_as(image)
    assert torch.equal(painted[known], image[known])
    assert float(painted.min()) >= 0
    assert float(painted.max()) <= 1
    other = pipe(image, mask, 1 - exemplar, num_inference_steps=3, generator=_seeds(1, 2)).images
    assert not torch.equal(painted, other)
    without = pipe(image, mask, None, num_inference_steps=3, generator=_seeds(1, 2)).images
    assert not torch.equal(painted, without)


def test_an_image_does_not_depend_on_its_batch_mates(tiny_folder: Path) -> None:
    pipe = _load(tiny_folder)
    image, mask, exemplar = _inputs(3)
    together = pipe(image, mask, exemplar, num_inference_steps=3, generator=_seeds(1, 2, 3)).images
    alone = pipe(image[2:], mask[2:], exemplar[2:], num_inference_steps=3, generator=_seeds(3)).images
    torch.testing.assert_close(together[2:], alone, atol=1e-4, rtol=0)


def test_guidance_of_one_is_no_guidance_and_others_differ(tiny_folder: Path) -> None:
    pipe = _load(tiny_folder)
    image, mask, exemplar = _inputs(1)
    plain, guided = (
        pipe(image, mask, exemplar, num_inference_steps=3, guidance_scale=scale, generator=_seeds(1)).images
        for scale in (1.0, 3.0)
    )
    assert not torch.equal(plain, guided)


def test_wrong_shapes_are_refused(tiny_folder: Path) -> None:
    pipe = _load(tiny_folder)
    image, mask, exemplar = _inputs(1)
    with pytest.raises(ValueError, match=r"expected images \(B, 3, 32, 32\)"):
        pipe(image[..., :16], mask, exemplar)
    with pytest.raises(ValueError, match="expected masks"):
        pipe(image, mask[:, :, :16], exemplar)


def test_fresh_weights_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    one, two = (
        build_pipeline(size=32, width=32, channels=(16, 32), seed=seed).unet.conv_in.weight for seed in (1, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)


def test_the_collage_fills_the_holes_bounding_box_only() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 2:6, 3:11] = 1
    laid = collage(torch.full((1, 3, 5, 5), 0.25), mask)
    assert torch.allclose(laid[..., 2:6, 3:11], torch.tensor(0.25))
    laid[..., 2:6, 3:11] = 0.5
    assert bool((laid == 0.5).all())
