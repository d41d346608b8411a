"""Families of the hub's inpainting pipelines: which class paints for which model, and how it is asked.

In: a hub id or a folder, whose model_index.json names a class. Out: the inpainting class of its family, and
what sets it apart. diffusers' own `AutoPipelineForInpainting` maps neither Chroma, FluxFill, Flux Kontext,
Flux.2 Klein nor Paint-by-Example; a class that stands not here is looked up there.

Family                     Below strength 1        Exemplar                Conformance suite
Stable Diffusion           strength                IP-Adapter              yes (also LoRA, IP-Adapter)
Stable Diffusion XL        strength                IP-Adapter              yes
Stable Diffusion 3         strength                IP-Adapter              yes
ControlNet inpaint (SD)    strength                IP-Adapter              yes
ControlNet inpaint (SDXL)  strength                IP-Adapter              mapped only
Flux                       strength                IP-Adapter              yes
FluxFill                   strength                no                      yes
Flux Kontext               strength                reference image         yes
Flux.2 Klein               strength                reference image         yes
Qwen-Image                 strength                no                      yes
Qwen-Image-Edit            strength                no                      mapped only: always 1024 x 1024
Z-Image                    strength                no                      yes
Chroma                     strength                IP-Adapter              yes
Kandinsky 2.2              restarted (see hub.py)  no                      yes
Paint-by-Example           restarted               always                  yes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from curator.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What sets a family of inpainting pipelines apart.

    Attributes:
        pipeline: name of its inpainting class in diffusers.
        models: class names in model_index.json that it paints for, besides its own.
        exemplar: the argument that takes an exemplar; "" where there is none but an IP-Adapter's.
        needs_exemplar: does it paint by exemplar alone?
        restarts: it has no strength, but plain latents that may be replaced between two steps.
        arguments: what every call is given besides.
    """

    pipeline: str
    models: tuple[str, ...] = ()
    exemplar: str = ""
    needs_exemplar: bool = False
    restarts: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, kind: Any) -> None:
        """What must be in place before a model of this family is loaded."""
        if self.pipeline == "PaintByExamplePipeline":
            # Recent versions of diffusers moved it to `pipelines.deprecated`, while the published
            # model_index.json names the old address for its image encoder.
            pipelines = import_module("diffusers.pipelines")
            if not hasattr(pipelines, "paint_by_example"):
                home = import_module(kind.__module__.rpartition(".")[0])
                setattr(pipelines, "paint_by_example", home)  # noqa: B010

    def mend(self, pipe: Any) -> None:
        """What a loaded model of this family lacks."""
        if self.pipeline == "ChromaInpaintPipeline" and "guidance_embeds" not in pipe.transformer.config:
            # The pipeline reads this of Flux's configuration; published Chromas carry it, others need not.
            pipe.transformer.register_to_config(guidance_embeds=False)


# Families whose guidance compares with a negative prompt leave it out where there is none.
_BLANK = {"negative_prompt": " "}
FAMILIES = (
    Family(pipeline="StableDiffusionInpaintPipeline", models=("StableDiffusionPipeline",)),
    Family(pipeline="StableDiffusionXLInpaintPipeline", models=("StableDiffusionXLPipeline",)),
    Family(pipeline="StableDiffusion3InpaintPipeline", models=("StableDiffusion3Pipeline",)),
    Family(
        pipeline="StableDiffusionControlNetInpaintPipeline",
        models=("StableDiffusionControlNetPipeline",),
        arguments={"controlnet_conditioning_scale": 1.0},
    ),
    Family(
        pipeline="StableDiffusionXLControlNetInpaintPipeline",
        models=("StableDiffusionXLControlNetPipeline",),
    ),
    Family(pipeline="FluxInpaintPipeline", models=("FluxPipeline", "FluxImg2ImgPipeline")),
    Family(pipeline="FluxFillPipeline"),
    Family(
        pipeline="FluxKontextInpaintPipeline",
        models=("FluxKontextPipeline",),
        exemplar="image_reference",
        arguments={"_auto_resize": False},
    ),
    Family(pipeline="Flux2KleinInpaintPipeline", models=("Flux2KleinPipeline",), exemplar="image_reference"),
    Family(pipeline="QwenImageInpaintPipeline", models=("QwenImagePipeline",), arguments=_BLANK),
    Family(
        pipeline="QwenImageEditInpaintPipeline",
        models=("QwenImageEditPipeline", "QwenImageEditPlusPipeline"),
        arguments=_BLANK,
    ),
    Family(pipeline="ZImageInpaintPipeline", models=("ZImagePipeline",)),
    Family(pipeline="ChromaInpaintPipeline", models=("ChromaPipeline",)),
    Family(
        pipeline="KandinskyV22InpaintCombinedPipeline",
        models=(
            "KandinskyV22InpaintPipeline",
            "KandinskyV22Pipeline",
            "KandinskyV22CombinedPipeline",
        ),
        restarts=True,
    ),
    Family(pipeline="PaintByExamplePipeline", exemplar="example_image", needs_exemplar=True, restarts=True),
)
_BY_MODEL = {name: family for family in FAMILIES for name in (family.pipeline, *family.models)}
_WITH_CONTROLNET = {
    "StableDiffusionInpaintPipeline": "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLControlNetInpaintPipeline",
}


def family_of(kind: type[Any]) -> Family:
    """The family of a pipeline class; a class that stands in no family is asked by its arguments alone."""
    return _BY_MODEL.get(kind.__name__, Family(pipeline=kind.__name__))


def inpainting_class(model: str, *, revision: str | None = None, controlnet: bool = False) -> type[Any]:
    """The class that paints with a model.

    Args:
        model: hub id (downloaded or cached), or a folder with a model_index.json.
        controlnet: is a ControlNet added?
    Raises:
        InputError: no model there, or one of a family that cannot inpaint here.
    """
    import diffusers

    try:
        index: Mapping[str, Any] = diffusers.DiffusionPipeline.load_config(model, revision=revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"expected a diffusers pipeline with a model_index.json at {model!r} (a folder, or a hub id that "
            f"this machine can download or has cached), got {type(error).__name__}: {reason}"
        ) from error
    named = str(index.get("_class_name", ""))
    family = _BY_MODEL.get(named)
    wanted = family.pipeline if family else _automatic(named)
    if controlnet:
        wanted = _WITH_CONTROLNET.get(wanted or "", wanted if wanted in _WITH_CONTROLNET.values() else None)
    kind = getattr(diffusers, wanted, None) if wanted else None
    if kind is None:
        known = ", ".join(sorted(family.pipeline for family in FAMILIES))
        raise InputError(
            f"{model!r} is a {named or 'model without a class'}"
            f"{', which takes no ControlNet here' if controlnet else ''}; expected a model for one of "
            f"{known}, or name its class: diffusers:ClassName:ID"
        )
    found: type[Any] = kind
    return found


def _automatic(named: str) -> str | None:
    """What diffusers maps by itself (DeepFloyd IF, perturbed-attention guidance, ...)."""
    from diffusers.pipelines import auto_pipeline

    kind = auto_pipeline._get_task_class(
        auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING, named, throw_error_if_not_exist=False
    )
    return kind.__name__ if kind else None
