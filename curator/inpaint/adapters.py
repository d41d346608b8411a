"""What is put on top of a pipeline's weights: LoRA, IP-Adapter, ControlNet.

LoRA weights are merged, W + scale (alpha / r) B A (Hu et al., ICLR 2022, arXiv:2106.09685), so that the
fingerprint of the pipeline is that of the merged weights, and no further package is needed. An IP-Adapter
(Ye et al. 2023, arXiv:2308.06721) shows the exemplar to a pipeline that paints by text. A ControlNet (Zhang
et al., ICCV 2023, arXiv:2302.05543) is taken for one of inpainting: it is shown the crop with -1 in the
hole.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curator.errors import InputError, RegistryError

_PARTS = {"down": "A", "up": "B"}


def weighted(text: str, option: str) -> tuple[str, float]:
    """`PATH[@WEIGHT]` -> (path, weight); the weight is 1 where none is given.

    Raises:
        RegistryError: a weight that is no number.
    """
    path, at, weight = text.rpartition("@")
    if not at or "/" in weight:
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise RegistryError(
            f"{option}: expected PATH or PATH@WEIGHT with a number, got {weight!r} in {text!r}"
        ) from None


def merge_lora(pipe: Any, text: str) -> None:
    """Merge the LoRA weights `FILE_OR_FOLDER_OR_ID[@weight]` into the pipeline's.

    Raises:
        InputError: no safetensors there, a pipeline that takes no LoRA, or weights of another model.
    """
    path, scale = weighted(text, "lora")
    if not hasattr(pipe, "lora_state_dict"):
        raise InputError(f"lora: {type(pipe).__name__} takes no LoRA weights; leave lora={text} out")
    state, alphas = _lora_state(pipe, path)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, part = key.rpartition(".lora_")
        if part in ("A.weight", "B.weight"):
            pairs.setdefault(name, {})[part[0]] = tensor
        elif not key.endswith(".alpha"):
            raise InputError(f"lora: expected pairs lora_A, lora_B in {path}, got {key}, which is not merged")
    if not pairs:
        raise InputError(f"lora: expected LoRA weights in {path}, got none")
    with torch.no_grad():
        for name, pair in pairs.items():
            component, _, inner = name.partition(".")
            if len(pair) != 2:
                raise InputError(f"lora: expected both lora_A and lora_B of {name} in {path}, got one")
            try:
                weight = getattr(pipe, component).get_submodule(inner).weight
                delta = (pair["B"].float().flatten(1) @ pair["A"].float().flatten(1)).view(weight.shape)
            except (AttributeError, RuntimeError) as error:
                raise InputError(
                    f"lora: {name} of {path} does not fit this {type(pipe).__name__}; expected LoRA weights "
                    "that were trained for this model"
                ) from error
            factor = scale * alphas.get(name, len(pair["A"])) / len(pair["A"])
            weight.copy_((weight.float() + factor * delta.to(weight.device)).to(weight.dtype))


def _lora_state(pipe: Any, path: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights named component.module.lora_A.weight and lora_B.weight, and alpha by component.module."""
    unet = getattr(pipe, "unet", None)
    try:
        found = type(pipe).lora_state_dict(
            _lora_file(path),
            use_safetensors=True,
            return_lora_metadata=True,
            **({"unet_config": unet.config} if unet is not None else {}),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(f"lora: expected LoRA weights as safetensors at {path!r}, got {reason}") from error
    state, metadata = found[0], found[-1] or {}
    network = found[1] if len(found) == 3 and found[1] else {}
    state = {_peft(key): value for key, value in state.items()}
    given = {key: float(value) for key, value in {**network, **state}.items() if key.endswith(".alpha")}
    alphas = {_peft(key[: -len(".alpha")]).removesuffix(".lora_A.weight"): v for key, v in given.items()}
    for key in state:  # one alpha for a whole component, as peft's trainers write it
        name = key.rpartition(".lora_")[0]
        whole = metadata.get(f"{name.partition('.')[0]}.lora_alpha")
        if whole is not None:
            alphas.setdefault(name, float(whole))
    return state, alphas


def _peft(key: str) -> str:
    """A key as peft writes it: MODULE.lora_A.weight, from the older ways of diffusers."""

    def module(match: re.Match[str]) -> str:
        layer = {"out": "out.0"}.get(match[1], match[1])
        return f".to_{layer}.lora_{_PARTS[match[2]]}."

    key = re.sub(r"\.(?:processor\.)?to_(q|k|v|out)_lora\.(down|up)\.", module, key)
    return re.sub(
        r"\.(?:lora|lora_linear_layer)\.(down|up)\.", lambda match: f".lora_{_PARTS[match[1]]}.", key
    )


def _lora_file(path: str) -> str:
    place = Path(path)
    if not place.is_dir():
        return path
    files = sorted(place.glob("*.safetensors"))
    named = place / "pytorch_lora_weights.safetensors"
    if named not in files and len(files) != 1:
        raise InputError(f"lora: expected one safetensors file in {path}, got {len(files)}; name the file")
    return str(named if named in files else files[0])


def add_ip_adapter(pipe: Any, text: str) -> str:
    """Load the IP-Adapter `PATH/FILE.safetensors[@scale]`; returns its identity.

    The path is a file on disk, or OWNER/NAME/FOLDERS/FILE on the hub. The image encoder is looked for in
    `image_encoder` beside the file, as published.

    Raises:
        InputError: a pipeline that takes none, or nothing loadable there.
    """
    path, scale = weighted(text, "ip_adapter")
    if not hasattr(pipe, "load_ip_adapter"):
        raise InputError(
            f"ip_adapter: {type(pipe).__name__} takes no IP-Adapter; leave ip_adapter={text} out"
        )
    if not path.endswith(".safetensors"):
        raise InputError(f"ip_adapter: expected a .safetensors file, got {path!r}; pickled ones are not read")
    file = Path(path)
    if file.is_file():
        model, subfolder = str(file.parent), ""
        identity = hashlib.sha256(file.read_bytes()).hexdigest()
    else:
        parts = path.split("/")
        model, subfolder, identity = "/".join(parts[:2]), "/".join(parts[2:-1]), path
    encoder = {} if getattr(pipe, "image_encoder", None) is None else {"image_encoder_folder": None}
    arguments: dict[str, Any] = {"subfolder": subfolder, "weight_name": file.name, **encoder}
    if type(pipe).__name__.startswith(("Flux", "Chroma")):  # these name the encoder's folder
        arguments.pop("image_encoder_folder", None)
        arguments["image_encoder_pretrained_model_name_or_path"] = f"{model}/image_encoder"
    try:
        pipe.load_ip_adapter(model, **arguments)
        pipe.set_ip_adapter_scale(scale)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"ip_adapter: expected an IP-Adapter for {type(pipe).__name__} at {path!r}, with its "
            f"image_encoder beside it, got {type(error).__name__}: {reason}"
        ) from error
    return json.dumps([identity, scale])


def controlnet(model: str, dtype: torch.dtype) -> Any:
    """The ControlNet (of inpainting) of a hub id or folder.

    Raises:
        InputError: nothing loadable there.
    """
    from diffusers import ControlNetModel

    from curator.inpaint.pipelines import load_pipeline

    return load_pipeline(ControlNetModel, model, {"torch_dtype": dtype})


def control_image(crop: Tensor, hole: Tensor) -> Tensor:
    """What a ControlNet of inpainting is shown: (1, 3, S, S) in [0, 1], -1 in the hole.

    Args:
        crop: (3, S, S) RGB [0, 1]. hole: (1, S, S) bool.
    """
    return torch.where(hole, torch.tensor(-1.0), crop)[None]
