"""Every backend behind the seam: pixels outside the mask, seeds, batches, fingerprints, errors."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from curator.errors import InputError, RegistryError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.crops import CropInpainter, crop_window
from tests.tiny_diffusion import unet, vae

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def paint_by_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaintByExamplePipeline, random weights."""
    from diffusers import DDIMScheduler, PaintByExamplePipeline

    # Its module moved between versions of diffusers; the class is found beside the pipeline.
    home = PaintByExamplePipeline.__module__.rpartition(".")[0]
    image_encoder = importlib.import_module(f"{home}.image_encoder").PaintByExampleImageEncoder
    folder = tmp_path_factory.mktemp("pbe")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = image_encoder(
            transformers.CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=32,
                patch_size=16,
                projection_dim=16,
            ),
            proj_size=16,
        )
        pipe = PaintByExamplePipeline(
            vae=vae(),
            image_encoder=encoder,
            unet=unet(),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            safety_checker=None,
            requires_safety_checker=False,
            feature_extractor=transformers.CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            ),
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    # As the published Fantasy-Studio/Paint-by-Example names it; diffusers 0.42 cannot load what it writes
    # itself.
    index = json.loads((folder / "model_index.json").read_text())
    index["image_encoder"] = ["paint_by_example", "PaintByExampleImageEncoder"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> str:
    """The spec of a tiny pipeline, by the name of its fixture."""
    prefix, fixture = request.param
    return f"{prefix}{request.getfixturevalue(fixture)}"


ALL = pytest.mark.parametrize(
    "spec",
    [
        ("curator:", "tiny_folder"),
        ("auto:", "stable_diffusion"),
        ("diffusers:PaintByExamplePipeline:", "paint_by_example"),
    ],
    indirect=True,
    ids=["curator", "auto", "diffusers"],
)


def _problem(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    masks = torch.zeros(n, 50, 61, dtype=torch.bool)
    for i in range(n):
        masks[i, 5 + 9 * i : 20 + 9 * i, 30:45] = True
    masks[0, :4, 55:] = True  # far away, at the image's corner
    return torch.rand(n, 3, 50, 61, generator=random), masks, torch.rand(n, 3, 24, 24, generator=random)


@ALL
def test_pixels_outside_the_mask_are_bit_identical_and_those_inside_change(spec: str) -> None:
    inpainter = build_inpainter(spec, steps=2, device="cpu")
    images, masks, exemplars = _problem()
    before = images.clone()
    painted = inpainter.inpaint(images, masks, exemplars=exemplars, seeds=[1, 2, 3])
    assert torch.equal(images, before)
    outside = ~masks[:, None].expand_as(images)
    assert torch.equal(painted[outside], images[outside])
    for i in range(len(images)):
        assert float((painted - images)[i].abs().max()) > 0.01
    assert float(painted.min()) >= 0
    assert float(painted.max()) <= 1


@ALL
def test_a_result_depends_on_its_own_seed_and_not_on_batch_mates(spec: str) -> None:
    inpainter = build_inpainter(spec, steps=2, device="cpu")
    images, masks, exemplars = _problem()
    together = inpainter.inpaint(images, masks, exemplars=exemplars, seeds=[1, 2, 3])
    alone = inpainter.inpaint(images[1:2], masks[1:2], exemplars=exemplars[1:2], seeds=[2])
    assert torch.equal(together[1], alone[0])
    other = inpainter.inpaint(images[1:2], masks[1:2], exemplars=exemplars[1:2], seeds=[4])
    assert not torch.equal(alone, other)


@ALL
def test_an_empty_mask_changes_nothing(spec: str) -> None:
    inpainter = build_inpainter(spec, steps=2, device="cpu")
    images, masks, exemplars = _problem(2)
    masks[1] = False
    painted = inpainter.inpaint(images, masks, exemplars=exemplars, seeds=[1, 2])
    assert torch.equal(painted[1], images[1])


@ALL
def test_the_fingerprint_follows_settings(spec: str) -> None:
    one, two, three = (build_inpainter(spec, steps=steps, device="cpu").fingerprint for steps in (2, 2, 3))
    assert one == two
    assert one != three


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


def test_prompts_reach_a_text_pipeline(stable_diffusion: Path) -> None:
    inpainter = build_inpainter(f"auto:{stable_diffusion}", steps=2, device="cpu")
    images, masks, _ = _problem(1)
    one, two = (inpainter.inpaint(images, masks, prompts=[prompt], seeds=[1]) for prompt in ("a cup", "zzz"))
    assert not torch.equal(one, two)


def test_the_hole_fades_only_inwards() -> None:
    class White(CropInpainter):
        """Paints white."""

        size, fingerprint, feather = 32, "white", 3.0

        def paint(self, crops: torch.Tensor, holes: torch.Tensor, **_: Any) -> torch.Tensor:
            """White everywhere, outside the hole too."""
            return torch.ones_like(crops)

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
        ("auto:/nowhere/at/all", InputError, "expected a diffusers pipeline"),
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


def test_an_exemplar_pipeline_without_exemplars_is_refused(paint_by_example: Path) -> None:
    inpainter = build_inpainter(f"diffusers:PaintByExamplePipeline:{paint_by_example}", steps=2, device="cpu")
    images, masks, _ = _problem(1)
    with pytest.raises(InputError, match="by exemplar"):
        inpainter.inpaint(images, masks, seeds=[1])


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
