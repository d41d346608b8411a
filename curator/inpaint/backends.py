"""Inpainters behind one seam: crop around the hole, paint at the pipeline's own size, paste back.

In: a spec. Out: an `Inpainter`.

    builtin:                      the shipped `ExemplarInpaintPipeline`
    curator:DIR                   one that `curator example train-inpainter` or `train_inpainter` saved
    auto:ID                       AutoPipelineForInpainting: a hub id or a folder (Stable Diffusion, SDXL,
                                  Flux, ...)
    diffusers:ClassName:ID        a class that Auto does not map (PaintByExamplePipeline, FluxFillPipeline,
                                  ...)

Options of the hub's pipelines: `size` (side that crops are resized to), `guidance`, `prompt` (used where a
plan has none), `dtype` (float32, bfloat16, float16), `variant`, `revision`. Weights are read as safetensors
only; code from the hub is never run.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError, RegistryError
from curator.inpaint.base import Inpainter
from curator.inpaint.loading import (
    fingerprint,
    hide_transformers_bars,
    load_pipeline,
    quiet,
    restore_paint_by_example,
)
from curator.registry import Spec
from curator.tensors import generator, resolve_device

_CONTEXT = 1.8
"""Side of the crop relative to the longer side of the hole's bounding box."""
_CHUNK = 4
"""Crops painted at once, always exactly so many (padded), since batch sizes change the last bits of a
result."""


class CropInpainter:
    """Paints each hole in a square crop around it; everything outside the hole stays bit-identical.

    Args:
        size: side of the crops that `paint` takes, pixels.
        feather: pixels over which the painting fades into the original *inside* the hole's border.
    """

    fingerprint: str
    size: int
    feather: float = 1.0

    def inpaint(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        prompts: Sequence[str] | None = None,
        exemplars: Tensor | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Repaint; see `curator.synthesize.base.Inpainter`. An image with an empty mask comes back as it is.

        Raises:
            InputError: shapes that do not fit together.
        """
        n = len(images)
        if masks.shape != (n, *images.shape[2:]) or masks.dtype != torch.bool:
            raise InputError(
                f"expected bool masks {(n, *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}"
            )
        for name, given in (("prompts", prompts), ("exemplars", exemplars), ("seeds", seeds)):
            if given is not None and len(given) != n:
                raise InputError(f"expected {n} {name}, one per image, got {len(given)}")
        out = images.clone()
        todo = [i for i in range(n) if bool(masks[i].any())]
        windows = {i: crop_window(masks[i]) for i in todo}
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            padded = chunk + [chunk[-1]] * (_CHUNK - len(chunk)) if self.pads else chunk
            crops = torch.stack([self._resize(images[i][:, *windows[i]]) for i in padded])
            holes = torch.stack([self._resize(masks[i][windows[i]][None].float()) > 0 for i in padded])
            painted = self.paint(
                crops,
                holes,
                prompts=None if prompts is None else [prompts[i] for i in padded],
                exemplars=None if exemplars is None else exemplars[padded],
                seeds=[seeds[i] for i in padded],
            ).to(images)
            for i, crop in zip(chunk, painted[: len(chunk)], strict=True):
                _paste(out[i], crop, masks[i], windows[i], self.feather)
        return out

    pads = True

    def paint(
        self,
        crops: Tensor,
        holes: Tensor,
        *,
        prompts: Sequence[str] | None,
        exemplars: Tensor | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Paint crops (B, 3, size, size) in [0, 1] with holes (B, 1, size, size) bool; returns the like."""
        raise NotImplementedError

    def _resize(self, crop: Tensor) -> Tensor:
        return F.interpolate(crop[None], (self.size, self.size), mode="bilinear", antialias=True)[0].clamp(
            0, 1
        )


def crop_window(mask: Tensor, context: float = _CONTEXT) -> tuple[slice, slice]:
    """The square window (rows, columns) around a mask (H, W), shifted into the image; a rectangle only where
    the image is smaller than the square."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    height, width = mask.shape
    side = max(round(max(y2 - y1, x2 - x1) * context), 16)
    top = min(max((y1 + y2 - side) // 2, 0), max(height - side, 0))
    left = min(max((x1 + x2 - side) // 2, 0), max(width - side, 0))
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _paste(image: Tensor, crop: Tensor, mask: Tensor, window: tuple[slice, slice], feather: float) -> None:
    """Write a painted crop (3, s, s) into `image` (3, H, W) where `mask` is True, fading within the mask."""
    hole = mask[window]
    native = F.interpolate(crop[None], tuple(hole.shape), mode="bilinear", antialias=True)[0].clamp(0, 1)
    # The window's own border counts as outside only where the image goes on there.
    depth = ndimage.distance_transform_edt(np.pad(hole.cpu().numpy(), 1, mode="edge"))[1:-1, 1:-1]
    weight = torch.from_numpy(np.clip(depth / (feather + 1), 0, 1)).to(image) if feather else hole.to(image)
    view = image[:, *window]
    blended = view + weight * (native - view)
    view[:, hole] = blended[:, hole]


class ExemplarInpainter(CropInpainter):
    """`ExemplarInpaintPipeline` behind the seam."""

    feather = 1.0

    def __init__(self, folder: Path, *, steps: int = 12, guidance: float = 1.0, device: str = "auto") -> None:
        from curator.inpaint.exemplar import ExemplarInpaintPipeline

        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"expected a saved inpainter (model_index.json) in {folder}; "
                f"`curator example train-inpainter --out {folder}` makes one"
            )
        # Folders saved before the pipeline moved here name it by its old module.
        sys.modules.setdefault("curator.synthesize.pipeline", sys.modules[ExemplarInpaintPipeline.__module__])
        self.pipe = quiet(load_pipeline(ExemplarInpaintPipeline, str(folder), {}))
        self.pipe.to(resolve_device(device))
        self.size = self.pipe.size
        self.steps, self.guidance = steps, guidance
        self.fingerprint = fingerprint(self.pipe, steps=steps, guidance=guidance)

    def paint(
        self,
        crops: Tensor,
        holes: Tensor,
        *,
        prompts: Sequence[str] | None,
        exemplars: Tensor | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Paint; prompts are not used, the exemplar says what."""
        noise = [generator("inpaint", seed) for seed in seeds]
        images: Tensor = self.pipe(
            crops,
            holes.float(),
            exemplars,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=noise,
        ).images
        return images.float().cpu()


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


def build_inpainter(text: str, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """Build the inpainter that a spec names.

    Raises:
        RegistryError: unknown scheme or option.
        InputError: nothing loadable where the spec points.
    """
    from curator.registry import INPAINTERS

    spec = Spec.parse(text)
    built: Inpainter = INPAINTERS.load(spec.scheme)(spec, steps=steps, device=device)
    return built


def build_builtin(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`builtin:`, the shipped weights; options `steps`, `guidance`."""
    folder = Path(str(resources.files("curator") / "example" / "weights" / "inpainter"))
    return _exemplar(spec, folder, steps, device)


def build_curator(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`curator:DIR`; options `steps`, `guidance`."""
    return _exemplar(spec, Path(spec.name), steps, device)


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


def _exemplar(spec: Spec, folder: Path, steps: int | None, device: str) -> Inpainter:
    options = spec.only(("steps", "guidance")).options
    return ExemplarInpainter(
        folder,
        device=device,
        steps=_number(spec, "steps", int, steps or 12),
        guidance=_number(spec, "guidance", float, 1.0) if "guidance" in options else 1.0,
    )


def _hub(spec: Spec, kind: Any, model: str, steps: int | None, device: str) -> Inpainter:
    if not model:
        raise RegistryError(f"expected {spec.scheme}:ID, a hub id or a folder, got {spec.text!r}")
    options = spec.only(("steps", "guidance", "size", "prompt", "dtype", "variant", "revision")).options
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    target = resolve_device(device)
    dtype = options.get("dtype", "float32" if target.type == "cpu" else "bfloat16")
    if dtype not in dtypes:
        raise RegistryError(f"dtype: expected one of {', '.join(dtypes)}, got {dtype!r} in {spec.text!r}")
    hide_transformers_bars()
    passed: dict[str, Any] = {name: options[name] for name in ("variant", "revision") if name in options}
    arguments: dict[str, Any] = {"torch_dtype": dtypes[dtype], **passed}
    if kind.__name__ == "PaintByExamplePipeline":
        restore_paint_by_example(kind)
    pipe = load_pipeline(kind, model, arguments)
    pipe.to(target)
    return HubInpainter(
        pipe,
        size=_number(spec, "size", int, native_size(pipe)),
        steps=_number(spec, "steps", int, steps or 20),
        prompt=options.get("prompt", ""),
        guidance=_number(spec, "guidance", float, 0.0) if "guidance" in options else None,
    )


def _number(spec: Spec, name: str, kind: type[Any], default: Any) -> Any:
    text = spec.options.get(name)
    try:
        return default if text is None else kind(text)
    except ValueError:
        raise RegistryError(f"{name}: expected {kind.__name__}, got {text!r} in {spec.text!r}") from None


def native_size(pipe: Any) -> int:
    """Side in pixels that the pipeline was trained at: sample size of its denoiser times the VAE's factor."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(getattr(denoiser, "config", None), "sample_size", None)
    side = sample if isinstance(sample, int) else 128
    return side * int(getattr(pipe, "vae_scale_factor", 8))


def _pil(image: Tensor) -> Any:
    from PIL import Image

    from curator.tensors import image_pixels

    return Image.fromarray(image_pixels(image))
