"""Inpainters of the hub: any diffusers inpainting pipeline behind the seam of `backends.py`.

In: a spec `auto:ID` or `diffusers:ClassName:ID`. Out: an `Inpainter`. What differs from family to family
stands in `families.py`; what is put on top of weights (LoRA, IP-Adapter, ControlNet) in `adapters.py`.

A composition to start from (`initial`) is given as the pipeline's `image`, with its `strength`. Families
without a strength start from noise; below strength 1 their latents are replaced by the noised composition up
to the step at which SDEdit would start (Meng et al., ICLR 2022, arXiv:2108.01073), where the family's latents
are plain enough for that; the others refuse.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError, RegistryError
from curator.inpaint.adapters import add_ip_adapter, control_image, controlnet, merge_lora
from curator.inpaint.base import Inpainter
from curator.inpaint.crops import CropBatch, CropInpainter
from curator.inpaint.exemplar import squares
from curator.inpaint.families import Family, family_of, inpainting_class
from curator.inpaint.pipelines import fingerprint, load_pipeline, number, quiet, silent
from curator.registry import Spec
from curator.tensors import generator, image_pixels, resolve_device

OPTIONS = (
    "steps",
    "guidance",
    "size",
    "prompt",
    "negative_prompt",
    "dtype",
    "variant",
    "revision",
    "lora",
    "ip_adapter",
    "controlnet",
    "offload",
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HubInpainter(CropInpainter):
    """Any diffusers inpainting pipeline behind the seam, one image at a time.

    Args:
        prompt, negative_prompt: used where a request has none of its own.
        size: side of the crops, pixels. guidance: of the pipeline; None takes its own.
        settings: further settings that change results, for the fingerprint.
    """

    pads = False
    feather = 2.0

    def __init__(
        self,
        pipe: Any,
        family: Family,
        *,
        size: int,
        steps: int,
        guidance: float | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.pipe, self.family = quiet(pipe), family
        self.size, self.steps, self.guidance = size, steps, guidance
        self.prompt, self.negative_prompt = prompt, negative_prompt
        self.ip_adapter = "ip_adapter" in (settings or {})
        self.accepts = set(inspect.signature(pipe.__call__).parameters)
        self.fingerprint = fingerprint(
            pipe,
            size=size,
            steps=steps,
            guidance=guidance,
            prompt=prompt,
            negative_prompt=negative_prompt,
            **(settings or {}),
        )

    def paint(self, batch: CropBatch) -> Tensor:
        """Paint one by one: by prompt, and by exemplar where the pipeline takes one.

        Raises:
            InputError: no exemplar for a family that needs one; a strength below 1 for one that has none.
        """
        if batch.initial is not None and "strength" not in self.accepts and not self.family.restarts:
            raise InputError(
                f"{self._name} has no strength; expected strength 0 (keep the composition) or 1 (paint "
                f"anew), got {batch.strength:g}; choose one of them, or another family of inpainter"
            )
        if (self.family.needs_exemplar or self.ip_adapter) and batch.exemplars is None:
            with_adapter = " with its IP-Adapter" if self.ip_adapter else ""
            raise InputError(f"{self._name}{with_adapter} paints by exemplar; expected exemplars, got none")
        painted = []
        for i in range(len(batch.crops)):
            arguments = {**self.family.arguments, **self._arguments(batch, i)}
            given = {name: value for name, value in arguments.items() if name in self.accepts}
            with silent():
                image = np.asarray(self.pipe(**given).images[0], dtype=np.float32)
            painted.append(self._resize(torch.from_numpy(np.nan_to_num(image)).permute(2, 0, 1)))
        return torch.stack(painted)

    @property
    def _name(self) -> str:
        return type(self.pipe).__name__

    def _arguments(self, batch: CropBatch, i: int) -> dict[str, Any]:
        noise = generator("inpaint", batch.seeds[i])
        arguments: dict[str, Any] = {
            "image": _pil(batch.crops[i]),
            "mask_image": _pil(batch.holes[i].float().expand(3, -1, -1)).convert("L"),
            "num_inference_steps": self.steps,
            "output_type": "np",
            "height": self.size,
            "width": self.size,
            "max_area": self.size**2,
            "generator": noise,
            "prompt": (batch.prompts[i] if batch.prompts else "") or self.prompt,
            "strength": 1.0,
        }
        negative = (batch.negative_prompts[i] if batch.negative_prompts else "") or self.negative_prompt
        if negative:
            arguments["negative_prompt"] = negative
        if self.guidance is not None:
            arguments["guidance_scale"] = self.guidance
            if "true_cfg_scale" in self.accepts:
                arguments["true_cfg_scale"] = self.guidance
        if "control_image" in self.accepts:
            arguments["control_image"] = control_image(batch.crops[i], batch.holes[i])
        if batch.exemplars is not None:
            arguments |= self._shown(batch.exemplars[i])
        if batch.initial is not None:
            if "strength" in self.accepts:
                arguments["image"] = _pil(batch.initial[i])
                # Pipelines round the number of steps down; at least one must be left.
                arguments["strength"] = max(batch.strength, (1 + 1e-6) / self.steps)
            else:
                arguments |= self._restart(batch.initial[i], batch.strength, batch.seeds[i])
        return arguments

    def _shown(self, exemplar: Tensor) -> dict[str, Any]:
        """The exemplar as the pipeline takes it."""
        if self.family.exemplar == "example_image":  # one CLIP image, squeezed to a square as in training
            square = F.interpolate(exemplar[None], (224, 224), mode="bilinear", antialias=True)[0]
            return {"example_image": _pil(square)}
        shown = {}
        if self.family.exemplar:  # a reference image at its own aspect, as large as the crop
            scale = self.size / max(exemplar.shape[1:])
            h, w = (max(32, round(side * scale)) for side in exemplar.shape[1:])
            larger = F.interpolate(exemplar[None], (h, w), mode="bilinear", antialias=True)[0]
            shown[self.family.exemplar] = _pil(larger)
        if self.ip_adapter:
            shown["ip_adapter_image"] = _pil(squares([exemplar], max(exemplar.shape[1:]), "pad")[0])
        return shown

    def _restart(self, initial: Tensor, strength: float, seed: int) -> dict[str, Any]:
        """Arguments by which a pipeline without a strength goes on from the noised composition."""
        coder = getattr(self.pipe, "movq", None) or self.pipe.vae
        image = (initial[None] * 2 - 1).to(coder.device, coder.dtype)
        with torch.no_grad():
            coded = coder.encode(image)
        start = coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode()
        # A movq's latents are used as they are.
        start = start if hasattr(coded, "latents") else start * coder.config.scaling_factor
        noise = torch.randn(start.shape, generator=generator("inpaint start", seed)).to(start)
        kept = max(1, round(self.steps * strength))
        done = 0

        def replace(latents: Tensor) -> None:
            nonlocal done
            done += 1
            timesteps = self.pipe.scheduler.timesteps
            if done <= len(timesteps) - kept:
                latents.copy_(self.pipe.scheduler.add_noise(start, noise, timesteps[done : done + 1]))

        def on_step_end(_pipe: Any, _step: int, _t: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            replace(tensors["latents"])
            return tensors

        if "callback_on_step_end" in self.accepts:
            return {"callback_on_step_end": on_step_end, "callback_on_step_end_tensor_inputs": ["latents"]}
        return {"callback": lambda _step, _t, latents: replace(latents), "callback_steps": 1}


def build_auto(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`auto:ID`: the inpainting pipeline of the family that the model's model_index.json names."""
    if not spec.name:
        raise RegistryError(f"expected auto:ID, a hub id or a folder, got {spec.text!r}")
    kind = inpainting_class(
        spec.name, revision=spec.options.get("revision"), controlnet="controlnet" in spec.options
    )
    return _hub(spec, kind, spec.name, steps, device)


def build_diffusers(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`diffusers:ClassName:ID`."""
    import diffusers

    name, colon, model = spec.name.partition(":")
    if not colon or not model:
        raise RegistryError(
            f"expected diffusers:ClassName:ID, such as "
            f"diffusers:PaintByExamplePipeline:Fantasy-Studio/Paint-by-Example, got {spec.text!r}"
        )
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise RegistryError(f"expected the name of a diffusers pipeline class, got {name!r} in {spec.text!r}")
    return _hub(spec, kind, model, steps, device)


def _hub(spec: Spec, kind: Any, model: str, steps: int | None, device: str) -> Inpainter:
    options = spec.only(OPTIONS).options
    target = resolve_device(device)
    dtype = options.get("dtype", "float32" if target.type == "cpu" else "bfloat16")
    if dtype not in _DTYPES:
        raise RegistryError(f"dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r} in {spec.text!r}")
    offload = options.get("offload", "")
    if offload not in ("", "model", "sequential"):
        raise RegistryError(f"offload: expected model or sequential, got {offload!r} in {spec.text!r}")
    if offload and target.type != "cuda":
        raise InputError(
            f"offload={offload}: expected a CUDA device to bring the parts of the model to, got "
            f"{target.type}; leave the option out, or choose --device cuda"
        )
    _hide_transformers_bars()
    passed: dict[str, Any] = {name: options[name] for name in ("variant", "revision") if name in options}
    arguments: dict[str, Any] = {"torch_dtype": _DTYPES[dtype], **passed}
    if "controlnet" in options:
        arguments["controlnet"] = controlnet(options["controlnet"], _DTYPES[dtype])
    family = family_of(kind)
    family.prepare(kind)
    pipe = load_pipeline(kind, model, arguments)
    family.mend(pipe)
    settings: dict[str, Any] = {"dtype": dtype} if dtype != "float32" else {}
    if "lora" in options:
        merge_lora(pipe, options["lora"])  # changes the weights, and so the fingerprint
    if "ip_adapter" in options:
        settings["ip_adapter"] = add_ip_adapter(pipe, options["ip_adapter"])
    built = HubInpainter(
        pipe,
        family,
        size=number(spec, "size", int, native_size(pipe)),
        steps=number(spec, "steps", int, steps or 20),
        prompt=options.get("prompt", ""),
        negative_prompt=options.get("negative_prompt", ""),
        guidance=number(spec, "guidance", float, 0.0) if "guidance" in options else None,
        settings=settings,
    )
    if offload:
        (pipe.enable_model_cpu_offload if offload == "model" else pipe.enable_sequential_cpu_offload)(
            device=target
        )
    else:
        pipe.to(target)
    return built


def native_size(pipe: Any) -> int:
    """Side in pixels that the pipeline was trained at: sample size of its denoiser times the VAE's factor."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(getattr(denoiser, "config", None), "sample_size", None)
    side = sample if isinstance(sample, int) else 128
    factor = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "movq_scale_factor", None)
    return side * int(factor or 8)


def _hide_transformers_bars() -> None:
    """No bars of transformers while weights are read."""
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError:  # a pipeline without text encoder does without; others say so on loading
        return
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _pil(image: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(image_pixels(image))
