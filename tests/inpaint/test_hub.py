"""Pipelines of the hub: prompts, LoRA, IP-Adapter, ControlNet, families by model_index.json, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curator.errors import InputError, RegistryError
from curator.inpaint.backends import build_inpainter

pytest.importorskip("transformers")
from tests.inpaint.tiny_families import clip_processor, clip_vision


def _paint(spec: str, **given: object) -> torch.Tensor:
    random = torch.Generator().manual_seed(2)
    image, mask = torch.rand(1, 3, 40, 40, generator=random), torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 10:30, 10:30] = True
    return build_inpainter(spec, steps=2, device="cpu").inpaint(image, mask, seeds=[1], **given)  # type: ignore[arg-type]


def test_a_prompt_is_that_of_the_plan_or_else_of_the_spec(stable_diffusion: Path) -> None:
    plain, optioned = f"auto:{stable_diffusion}", f"auto:{stable_diffusion}?prompt=a+cup&negative_prompt=zzz"
    cup = _paint(plain, prompts=["a cup"], negative_prompts=["zzz"])
    assert not torch.equal(cup, _paint(plain, prompts=["a cup"]))
    assert not torch.equal(cup, _paint(plain, prompts=["a dog"], negative_prompts=["zzz"]))
    # An empty prompt of a plan is none: the option stands in for it, and for it alone.
    assert torch.equal(cup, _paint(optioned, prompts=[""], negative_prompts=[""]))
    assert torch.equal(cup, _paint(optioned))
    assert torch.equal(
        _paint(plain, prompts=["a dog"], negative_prompts=["k"]),
        _paint(optioned, prompts=["a dog"], negative_prompts=["k"]),
    )


def _lora(folder: Path, stable_diffusion: Path, *, kohya: bool = False) -> Path:
    """LoRA weights of rank 2 for one layer, as diffusers or as kohya's scripts write them; alpha 1."""
    from diffusers import StableDiffusionInpaintPipeline

    pipe = StableDiffusionInpaintPipeline.from_pretrained(stable_diffusion)
    name = next(n for n, _ in pipe.unet.named_modules() if n.endswith("attn2.to_q"))
    weight = pipe.unet.get_submodule(name).weight
    random = torch.Generator().manual_seed(0)
    down = torch.randn(2, weight.shape[1], generator=random)
    up = torch.randn(weight.shape[0], 2, generator=random)
    flat = f"lora_unet_{name.replace('.', '_')}"
    state = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up / 2}
    if kohya:
        state = {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        state[f"{flat}.alpha"] = torch.tensor(1.0)
    folder.mkdir()
    save_file(state, folder / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    torch.save((name, weight.detach() + up @ down / 2), folder / "expected.pt")
    return folder


def test_lora_weights_are_merged(stable_diffusion: Path, tmp_path: Path) -> None:
    own = _lora(tmp_path / "own", stable_diffusion)
    merged = build_inpainter(f"auto:{stable_diffusion}?lora={own}", steps=2, device="cpu")
    name, expected = torch.load(own / "expected.pt", weights_only=True)
    weight = merged.pipe.unet.get_submodule(name).weight  # type: ignore[attr-defined]
    torch.testing.assert_close(weight, expected)
    plain = build_inpainter(f"auto:{stable_diffusion}", steps=2, device="cpu")
    assert merged.fingerprint != plain.fingerprint
    # kohya's names, with the file named; alpha / rank = 1 / 2.
    file = _lora(tmp_path / "kohya", stable_diffusion, kohya=True) / "pytorch_lora_weights.safetensors"
    again = build_inpainter(f"auto:{stable_diffusion}?lora={file}", steps=2, device="cpu")
    torch.testing.assert_close(again.pipe.unet.get_submodule(name).weight, expected)  # type: ignore[attr-defined]
    nothing = build_inpainter(f"auto:{stable_diffusion}?lora={own}@0", steps=2, device="cpu")
    assert nothing.fingerprint == plain.fingerprint


def _ip_adapter(folder: Path, stable_diffusion: Path) -> Path:
    """A tiny IP-Adapter with its image encoder beside it, as published."""
    from diffusers import StableDiffusionInpaintPipeline

    unet = StableDiffusionInpaintPipeline.from_pretrained(stable_diffusion).unet
    random = torch.Generator().manual_seed(0)
    state = {
        "image_proj.proj.weight": torch.randn(4 * 16, 16, generator=random),
        "image_proj.proj.bias": torch.zeros(4 * 16),
        "image_proj.norm.weight": torch.ones(16),
        "image_proj.norm.bias": torch.zeros(16),
    }
    number = 1
    for name in unet.attn_processors:
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for part in ("to_k_ip", "to_v_ip"):
                state[f"ip_adapter.{number}.{part}.weight"] = torch.randn(width, 16, generator=random)
            number += 2
    folder.mkdir()
    save_file(state, folder / "ip.safetensors")
    clip_vision().save_pretrained(folder / "image_encoder")
    clip_processor().save_pretrained(folder / "image_encoder")
    return folder / "ip.safetensors"


def test_an_ip_adapter_shows_the_exemplar(stable_diffusion: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        file = _ip_adapter(tmp_path / "ip", stable_diffusion)
    spec = f"auto:{stable_diffusion}?ip_adapter={file}"
    random = torch.Generator().manual_seed(1)
    one, two = (_paint(spec, exemplars=[torch.rand(3, *s, generator=random)]) for s in ((20, 40), (30, 10)))
    assert not torch.equal(one, two)
    prints = {
        build_inpainter(text, steps=2, device="cpu").fingerprint
        for text in (spec, f"{spec}@0.5", f"auto:{stable_diffusion}")
    }
    assert len(prints) == 3
    with pytest.raises(InputError, match=r"IP-Adapter paints by exemplar; expected exemplars, got none"):
        _paint(spec)


def test_a_controlnet_is_added(stable_diffusion: Path, tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    from tests.inpaint.tiny_families import FAMILIES

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = FAMILIES["controlnet"]().controlnet
    assert isinstance(net, ControlNetModel)
    net.save_pretrained(tmp_path / "net")
    built = build_inpainter(f"auto:{stable_diffusion}?controlnet={tmp_path / 'net'}", steps=2, device="cpu")
    assert type(built.pipe).__name__ == "StableDiffusionControlNetInpaintPipeline"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("lora=/nowhere", InputError, "lora: expected LoRA weights as safetensors"),
        ("lora=/nowhere@much", RegistryError, "expected PATH or PATH@WEIGHT"),
        ("ip_adapter=/nowhere.bin", InputError, "expected a .safetensors file"),
        ("ip_adapter=/nowhere/ip.safetensors", InputError, "expected an IP-Adapter for StableDiffusion"),
        ("controlnet=/nowhere", InputError, "expected a diffusers pipeline"),
        ("offload=model", InputError, "expected a CUDA device"),
        ("offload=some", RegistryError, "expected model or sequential"),
        ("dtype=float8", RegistryError, "expected one of float32"),
    ],
)
def test_wrong_options_give_one_clear_line(
    stable_diffusion: Path, options: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build_inpainter(f"auto:{stable_diffusion}?{options}", device="cpu")
    assert "\n" not in str(caught.value)


def test_lora_weights_of_another_model_are_refused(stable_diffusion: Path, tmp_path: Path) -> None:
    state = {f"unet.no.such.layer.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not fit this StableDiffusionInpaintPipeline"):
        build_inpainter(f"auto:{stable_diffusion}?lora={tmp_path / 'other.safetensors'}", device="cpu")


def test_a_model_of_no_family_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableAudioPipeline"}))
    with pytest.raises(InputError, match="is a StableAudioPipeline; expected a model for one of Chroma"):
        build_inpainter(f"auto:{tmp_path}", device="cpu")


def test_an_exemplar_pipeline_without_exemplars_is_refused(tmp_path: Path) -> None:
    from tests.inpaint.tiny_families import save

    with pytest.raises(InputError, match="by exemplar"):
        _paint(f"diffusers:PaintByExamplePipeline:{save('paint-by-example', tmp_path)}?size=32")
