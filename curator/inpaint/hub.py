"""Inpainters of the hub: any diffusers inpainting pipeline behind the seam of `backends.py`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError, RegistryError
from curator.inpaint.base import Inpainter
from curator.inpaint.crops import CropInpainter
from curator.inpaint.pipelines import fingerprint, load_pipeline, number, quiet
from curator.registry import Spec
from curator.tensors import generator, resolve_device


class HubInpainter(CropInpainter):
    """Any diffusers inpainting pipeline behind the seam, one image at a time."""

    pads = False
    feather = 2.0

    def __init__(self, pipe: Any, *, size: int, steps: int, guidance: float | None, prompt: str) -> None:
        self.pipe, self.size, self.steps, self.guidance, self.prompt = (
            quiet(pipe),
            size,
            steps,
            guidance,
            prompt,
        )
        self.accepts = set(inspect.signature(pipe.__call__).parameters)
        self.fingerprint = fingerprint(pipe, size=size, steps=steps, guidance=guidance, prompt=prompt)

    def paint(
        self,
        crops: Tensor,
        holes: Tensor,
        *,
        prompts: Sequence[str] | None,
        exemplars: Tensor | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Paint one by one: by prompt, and by exemplar where the pipeline takes one (`example_image`)."""
        painted = []
        for i, (crop, hole, seed) in enumerate(zip(crops, holes, seeds, strict=True)):
            arguments: dict[str, Any] = {
                "image": _pil(crop),
                "mask_image": _pil(hole.float().expand(3, -1, -1)).convert("L"),
                "num_inference_steps": self.steps,
                "output_type": "np",
                "height": self.size,
                "width": self.size,
                "generator": generator("inpaint", seed),
                "prompt": prompts[i] if prompts else self.prompt,
            }
            if self.guidance is not None:
                arguments["guidance_scale"] = self.guidance
            if "strength" in self.accepts:
                arguments["strength"] = 1.0
            if "example_image" in self.accepts:
                if exemplars is None:
                    raise InputError(
                        f"{type(self.pipe).__name__} paints by exemplar; expected exemplars, got none"
                    )
                arguments["example_image"] = _pil(
                    F.interpolate(exemplars[i : i + 1], (224, 224), mode="bilinear", antialias=True)[0]
                )
            given = {name: value for name, value in arguments.items() if name in self.accepts}
            image = np.asarray(self.pipe(**given).images[0], dtype=np.float32)
            painted.append(self._resize(torch.from_numpy(np.nan_to_num(image)).permute(2, 0, 1)))
        return torch.stack(painted)


def build_auto(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`auto:ID`, whatever AutoPipelineForInpainting maps."""
    from diffusers import AutoPipelineForInpainting

    return _hub(spec, AutoPipelineForInpainting, spec.name, steps, device)


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
    if not model:
        raise RegistryError(f"expected {spec.scheme}:ID, a hub id or a folder, got {spec.text!r}")
    options = spec.only(("steps", "guidance", "size", "prompt", "dtype", "variant", "revision")).options
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    target = resolve_device(device)
    dtype = options.get("dtype", "float32" if target.type == "cpu" else "bfloat16")
    if dtype not in dtypes:
        raise RegistryError(f"dtype: expected one of {', '.join(dtypes)}, got {dtype!r} in {spec.text!r}")
    _hide_transformers_bars()
    passed: dict[str, Any] = {name: options[name] for name in ("variant", "revision") if name in options}
    arguments: dict[str, Any] = {"torch_dtype": dtypes[dtype], **passed}
    if kind.__name__ == "PaintByExamplePipeline":
        _restore_paint_by_example(kind)
    pipe = load_pipeline(kind, model, arguments)
    pipe.to(target)
    return HubInpainter(
        pipe,
        size=number(spec, "size", int, native_size(pipe)),
        steps=number(spec, "steps", int, steps or 20),
        prompt=options.get("prompt", ""),
        guidance=number(spec, "guidance", float, 0.0) if "guidance" in options else None,
    )


def native_size(pipe: Any) -> int:
    """Side in pixels that the pipeline was trained at: sample size of its denoiser times the VAE's factor."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(getattr(denoiser, "config", None), "sample_size", None)
    side = sample if isinstance(sample, int) else 128
    return side * int(getattr(pipe, "vae_scale_factor", 8))


def _restore_paint_by_example(kind: Any) -> None:
    """Give `diffusers.pipelines.paint_by_example` its address back: recent versions of diffusers moved it to
    `pipelines.deprecated`, while the published model_index.json names the old one for its image encoder."""
    pipelines = import_module("diffusers.pipelines")
    if not hasattr(pipelines, "paint_by_example"):
        setattr(pipelines, "paint_by_example", import_module(kind.__module__.rpartition(".")[0]))  # noqa: B010


def _hide_transformers_bars() -> None:
    """No bars of transformers while weights are read."""
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError:  # a pipeline without text encoder does without; others say so on loading
        return
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _pil(image: Tensor) -> Any:
    from PIL import Image

    from curator.tensors import image_pixels

    return Image.fromarray(image_pixels(image))
