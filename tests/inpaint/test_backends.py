"""Every backend behind the seam: pixels outside the mask, seeds, batches, fingerprints, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curator.errors import InputError, RegistryError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.crops import CropBatch, CropInpainter, crop_window

pytest.importorskip("transformers")


def _problem(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    masks = torch.zeros(n, 50, 61, dtype=torch.bool)
    for i in range(n):
        masks[i, 5 + 9 * i : 20 + 9 * i, 30:45] = True
    return torch.rand(n, 3, 50, 61, generator=random), masks, torch.rand(n, 3, 24, 24, generator=random)


def test_an_empty_mask_changes_nothing(tiny_folder: Path) -> None:
    inpainter = build_inpainter(f"curator:{tiny_folder}", steps=2, device="cpu")
    images, masks, exemplars = _problem(2)
    masks[1] = False
    painted = inpainter.inpaint(images, masks, exemplars=exemplars, seeds=[1, 2])
    assert torch.equal(painted[1], images[1])
    assert not torch.equal(painted[0], images[0])


def test_the_fingerprint_follows_settings(tiny_folder: Path, stable_diffusion: Path) -> None:
    for spec in (f"curator:{tiny_folder}?", f"auto:{stable_diffusion}?"):
        one, two, three, four = (
            build_inpainter(spec + options, device="cpu").fingerprint
            for options in ("steps=2", "steps=2", "steps=3", "steps=2&guidance=3")
        )
        assert one == two
        assert len({one, three, four}) == 3


def test_the_fingerprint_follows_weights(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from curator.inpaint.exemplar import ExemplarInpaintPipeline

    ExemplarInpaintPipeline.from_pretrained(tiny_folder, use_safetensors=True).save_pretrained(tmp_path)
    same = build_inpainter(f"curator:{tmp_path}", steps=2, device="cpu").fingerprint
    assert same == build_inpainter(f"curator:{tiny_folder}", steps=2, device="cpu").fingerprint
    file = next((tmp_path / "encoder").glob("*.safetensors"))
    weights = load_file(file)
    weights["position"] = weights["position"] + 1
    save_file(weights, file, metadata={"format": "pt"})
    assert build_inpainter(f"curator:{tmp_path}", steps=2, device="cpu").fingerprint != same


def test_the_hole_fades_only_inwards() -> None:
    class White(CropInpainter):
        """Paints white."""

        size, fingerprint, feather = 32, "white", 3.0

        def paint(self, batch: CropBatch) -> torch.Tensor:
            """White everywhere, outside the hole too."""
            return torch.ones_like(batch.crops)

    image, mask = torch.zeros(1, 3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 10:30, 10:30] = True
    painted = White().inpaint(image, mask, seeds=[0])
    assert bool((painted[:, :, ~mask[0]] == 0).all())
    assert float(painted[0, 0, 20, 10]) < float(painted[0, 0, 20, 12]) < 1
    assert float(painted[0, 0, 20, 20]) == 1


def test_the_crop_window_is_a_square_inside_the_image() -> None:
    mask = torch.zeros(40, 100, dtype=torch.bool)
    mask[0:10, 95:100] = True
    rows, columns = crop_window(mask)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 18, 82, 100)
    mask[:, :] = True
    rows, columns = crop_window(mask)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 40, 0, 100)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("curator:/nowhere", InputError, "train-inpainter"),
        ("auto:/nowhere/at/all", InputError, "expected a diffusers pipeline with a model_index.json"),
        ("auto:", RegistryError, "a hub id or a folder"),
        ("diffusers:PaintByExamplePipeline", RegistryError, "diffusers:ClassName:ID"),
        ("diffusers:NoSuchPipeline:x", RegistryError, "name of a diffusers pipeline class"),
        ("diffusers:DDIMScheduler:x", RegistryError, "name of a diffusers pipeline class"),
        ("curator:/nowhere?colour=red", RegistryError, "knows the options"),
        ("curator:/nowhere?steps=many", RegistryError, "expected int"),
        ("magic:", RegistryError, "choose one of"),
    ],
)
def test_bad_specs_give_one_clear_line(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build_inpainter(spec, device="cpu")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from curator.inpaint.exemplar import ExemplarInpaintPipeline

    ExemplarInpaintPipeline.from_pretrained(tiny_folder, use_safetensors=True).save_pretrained(tmp_path)
    file = next((tmp_path / "unet").glob("*.safetensors"))
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(InputError, match="safetensors"):
        build_inpainter(f"curator:{tmp_path}", device="cpu")


def test_shapes_that_do_not_fit_are_refused(tiny_folder: Path) -> None:
    inpainter = build_inpainter(f"curator:{tiny_folder}", steps=2, device="cpu")
    images, masks, exemplars = _problem(2)
    with pytest.raises(InputError, match="expected bool masks"):
        inpainter.inpaint(images, masks[:, :20], seeds=[1, 2])
    with pytest.raises(InputError, match="expected 2 exemplars"):
        inpainter.inpaint(images, masks, exemplars=exemplars[:1], seeds=[1, 2])


def test_a_strength_needs_a_composition_and_a_range(tiny_folder: Path) -> None:
    inpainter = build_inpainter(f"curator:{tiny_folder}", steps=2, device="cpu")
    images, masks, _ = _problem(2)
    with pytest.raises(InputError, match=r"strength 0\.3: expected an initial composition"):
        inpainter.inpaint(images, masks, strength=0.3, seeds=[1, 2])
    with pytest.raises(InputError, match=r"expected 0 <= strength <= 1, got 1\.5"):
        inpainter.inpaint(images, masks, initial=images, strength=1.5, seeds=[1, 2])
    with pytest.raises(InputError, match="expected initial"):
        inpainter.inpaint(images, masks, initial=images[:, :, :9], strength=0.5, seeds=[1, 2])
    with pytest.raises(InputError, match=r"expected exemplars \(3, h, w\)"):
        inpainter.inpaint(images, masks, exemplars=[torch.rand(1, 4, 4)] * 2, seeds=[1, 2])


def test_what_the_painter_is_too_small_for_is_kept_of_the_composition() -> None:
    class Same(CropInpainter):
        """Paints what it was given, at its own small size."""

        size, fingerprint, feather = 8, "same", 0.0

        def paint(self, batch: CropBatch) -> torch.Tensor:
            """The composition, without its fine detail."""
            assert batch.initial is not None
            return batch.initial

    random = torch.Generator().manual_seed(0)
    image, initial = torch.rand(2, 1, 3, 40, 40, generator=random)
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 10:30, 10:30] = True
    far = [
        float(
            (Same().inpaint(image, mask, initial=initial, strength=s, seeds=[0]) - initial)[:, :, mask[0]]
            .abs()
            .mean()
        )
        for s in (0.01, 0.3, 0.9)
    ]
    assert far[0] < 0.01 < far[1] < far[2]


def test_the_shipped_weights_are_small_and_paint_what_the_exemplar_shows() -> None:
    from importlib import resources

    folder = Path(str(resources.files("curator"))) / "example" / "weights" / "inpainter"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 12 * 2**20
    inpainter = build_inpainter("builtin:", steps=6, device="cpu")
    images = torch.full((2, 3, 96, 96), 0.7)
    masks = torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[:, 30:66, 40:58] = True
    exemplars = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.8]])[:, :, None, None].expand(-1, -1, 64, 64)
    painted = inpainter.inpaint(images, masks, exemplars=exemplars, seeds=[1, 1])
    colours = [exemplars[0, :, 0, 0], exemplars[1, :, 0, 0], images[0, :, 0, 0]]
    for number, image in enumerate(painted):
        middle = image[:, 38:58, 45:53].mean((1, 2))
        distances = [float((middle - colour).norm()) for colour in colours]
        assert distances[number] < 0.3 * min(distances[:number] + distances[number + 1 :])
