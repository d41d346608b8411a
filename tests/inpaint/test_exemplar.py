"""The pipeline itself: shapes, known pixels, saving and loading, independence of images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curator.inpaint.exemplar import (
    ExemplarInpaintPipeline,
    build_pipeline,
    collage,
    square_collage,
    squares,
)


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
    laid = collage([torch.full((3, 5, 5), 0.25)], mask)
    assert torch.allclose(laid[..., 2:6, 3:11], torch.tensor(0.25))
    laid[..., 2:6, 3:11] = 0.5
    assert bool((laid == 0.5).all())


def test_a_strength_runs_the_last_steps_from_the_composition(tiny_folder: Path) -> None:
    pipe = _load(tiny_folder)
    image, mask, exemplar = _inputs(1)

    def paint(strength: float, initial: torch.Tensor | None) -> torch.Tensor:
        return pipe(
            image,
            mask,
            exemplar,
            initial=initial,
            strength=strength,
            num_inference_steps=10,
            generator=_seeds(1),
        ).images

    seen: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1])))
    for strength, steps in ((0.01, 1), (0.34, 3), (1.0, 10)):
        seen.clear()
        paint(strength, image)
        assert len(seen) == steps
        assert seen == sorted(seen, reverse=True)
        assert seen[0] <= 1000 * max(strength, 0.1)
    hook.remove()
    assert torch.equal(paint(1.0, image), paint(1.0, None))  # from nothing: the composition is not seen
    assert not torch.equal(paint(0.3, image), paint(0.3, 1 - image))
    with pytest.raises(ValueError, match="expected 0 < strength <= 1"):
        paint(0.5, None)
    with pytest.raises(ValueError, match="expected initial"):
        paint(0.5, image[..., :8])


def test_an_exemplar_keeps_its_aspect_where_the_weights_were_trained_so() -> None:
    wide = torch.full((3, 4, 12), 0.25)
    padded, squashed = (squares([wide], 24, fit)[0] for fit in ("pad", "squash"))
    assert torch.allclose(squashed, torch.tensor(0.25))
    assert bool((padded[:, 8:16] == 0.25).all())
    assert bool((padded[:, :8] == 0.5).all())
    assert bool((padded[:, 16:] == 0.5).all())
    mask = torch.zeros(1, 1, 32, 32)
    mask[0, 0, 4:28, 4:28] = 1  # a square hole: a third of its height is filled
    laid = collage([wide], mask, "pad")
    assert bool((laid[0, :, 12:20, 4:28] == 0.25).all())
    assert float((laid != 0.5).float().mean()) == pytest.approx(8 * 24 / 32**2)
    # Squares padded beforehand lie where the exemplar itself would.
    mask = torch.zeros(1, 1, 32, 32)
    mask[0, 0, 10:18, 2:26] = 1
    same = square_collage(squares([wide], 24, "pad"), mask)
    torch.testing.assert_close(same, collage([wide], mask, "pad"))


def test_the_fit_is_saved_and_older_folders_squash(tmp_path: Path, tiny_folder: Path) -> None:
    assert _load(tiny_folder).fit == "pad"
    _load(tiny_folder).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    saved = json.loads(index.read_text())
    assert saved.pop("fit") == "pad"
    index.write_text(json.dumps(saved))
    assert _load(tmp_path).fit == "squash"
