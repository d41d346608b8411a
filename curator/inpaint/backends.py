"""Inpainters behind one seam: crop around the hole, paint at the pipeline's own size, paste back.

In: a spec. Out: an `Inpainter`.

    compose:                      no model: the composition itself, `blend=alpha` or `blend=poisson`
    builtin:                      the shipped `ExemplarInpaintPipeline`
    curator:DIR                   one that `curator train-inpainter` saved
    auto:ID                       a hub id or a folder of a family in `families.py` (Stable Diffusion, SDXL,
                                  Flux, ...)
    diffusers:ClassName:ID        any other inpainting class of diffusers

Options of the hub's pipelines: `size` (side that crops are resized to), `steps`, `guidance`, `prompt` and
`negative_prompt` (used where a plan has none), `lora` (FILE_OR_FOLDER[@weight]), `ip_adapter` (FILE[@scale]:
the exemplar is shown to a pipeline that paints by text), `controlnet` (of inpainting), `offload` (model or
sequential, with CUDA), `dtype` (float32, bfloat16, float16), `variant`, `revision`. Weights are read as
safetensors only; code from the hub is never run.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from torch import Tensor

from curator.errors import InputError
from curator.inpaint.base import Inpainter
from curator.inpaint.crops import CropBatch, CropInpainter
from curator.inpaint.pipelines import fingerprint, load_pipeline, number, quiet
from curator.registry import Spec
from curator.tensors import generator, resolve_device


class ExemplarInpainter(CropInpainter):
    """`ExemplarInpaintPipeline` behind the seam."""

    feather = 1.0

    def __init__(self, folder: Path, *, steps: int = 12, guidance: float = 1.0, device: str = "auto") -> None:
        from curator.inpaint.exemplar import ExemplarInpaintPipeline

        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"expected a saved inpainter (model_index.json) in {folder}; "
                f"`curator train-inpainter --out {folder}` makes one"
            )
        # Folders saved before the pipeline moved here name it by its old module.
        sys.modules.setdefault("curator.synthesize.pipeline", sys.modules[ExemplarInpaintPipeline.__module__])
        self.pipe = quiet(load_pipeline(ExemplarInpaintPipeline, str(folder), {}))
        self.pipe.to(resolve_device(device))
        self.size = self.pipe.size
        self.steps, self.guidance = steps, guidance
        self.fingerprint = fingerprint(
            self.pipe, steps=steps, guidance=guidance, fit=self.pipe.fit, predicts=self.pipe.predicts
        )

    def paint(self, batch: CropBatch) -> Tensor:
        """Paint; prompts are not used, the exemplar says what."""
        images: Tensor = self.pipe(
            batch.crops,
            batch.holes.float(),
            batch.exemplars,
            initial=batch.initial,
            strength=batch.strength,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[generator("inpaint", seed) for seed in batch.seeds],
        ).images
        return images.float().cpu()


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


def _exemplar(spec: Spec, folder: Path, steps: int | None, device: str) -> Inpainter:
    options = spec.only(("steps", "guidance")).options
    return ExemplarInpainter(
        folder,
        device=device,
        steps=number(spec, "steps", int, steps or 12),
        guidance=number(spec, "guidance", float, 1.0) if "guidance" in options else 1.0,
    )
