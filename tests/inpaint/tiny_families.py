"""Tiny models of diffusers' real inpainting classes, built here with random weights and saved.

`FAMILIES` names them; `save(name, folder)` writes one, as its publisher's repository would look.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.tiny_diffusion import clip_text, clip_tokenizer, unet, vae

WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz .,"]
SIZE = 32


def letters(length: int = 16, *, template: str | None = None) -> Any:
    """A tokenizer of single letters: what the T5 and Qwen encoders here read."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    built = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=length,
    )
    built.chat_template = template
    return built


def chat() -> Any:
    """The letters' tokenizer with a chat template, as Qwen's have."""
    return letters(template="{% for message in messages %}{{ message['content'] }}{% endfor %}")


def t5(width: int = 16) -> Any:
    """A T5 encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0
    )
    return T5EncoderModel(config).eval()


def qwen3(layers: int, *, causal: bool) -> Any:
    """A Qwen3 of width 16."""
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    return (transformers.Qwen3ForCausalLM if causal else transformers.Qwen3Model)(config).eval()


def flow() -> Any:
    """The scheduler of the flow-matching families."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


def ddim() -> Any:
    """The scheduler of the older families."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(steps_offset=1, clip_sample=False)


def latent_vae(channels: int) -> Any:
    """An AutoencoderKL with a shift and without quantising convolutions."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=channels,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )


def _stable_diffusion() -> Any:
    import diffusers

    return diffusers.StableDiffusionInpaintPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        safety_checker=None,
        scheduler=ddim(),
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _controlnet() -> Any:
    import diffusers

    base = _stable_diffusion()
    plain = unet(4)  # a ControlNet guides the plain model: no channels for the mask
    return diffusers.StableDiffusionControlNetPipeline(
        **{**base.components, "unet": plain},
        controlnet=diffusers.ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=(4, 8)),
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    import diffusers

    denoiser = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=denoiser,
        scheduler=ddim(),
        add_watermarker=False,
    )


def _sd3() -> Any:
    import diffusers

    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            out_channels=16,
        ),
        scheduler=flow(),
        vae=latent_vae(16),
        text_encoder=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projection=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(32),
        tokenizer_3=letters(),
    )


def _flux(kind: str, channels: int = 8) -> Any:
    import diffusers

    return getattr(diffusers, kind)(
        scheduler=flow(),
        vae=latent_vae(2),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=letters(),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=channels,
            out_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def _flux2_klein() -> Any:
    import diffusers

    return diffusers.Flux2KleinPipeline(
        is_distilled=True,
        scheduler=flow(),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            latent_channels=2,
            sample_size=SIZE,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=qwen3(28, causal=True),  # its hidden layers 9, 18 and 27 are read
        tokenizer=chat(),
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1,
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )


def _qwen_image() -> Any:
    import diffusers
    import transformers

    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1000000.0,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
    )
    return diffusers.QwenImagePipeline(
        scheduler=flow(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=letters(1024),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def _z_image() -> Any:
    import diffusers

    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # left uninitialised by diffusers
        torch.nn.init.ones_(token)
    return diffusers.ZImagePipeline(
        scheduler=flow(),
        vae=latent_vae(4),
        text_encoder=qwen3(2, causal=False),
        tokenizer=chat(),
        transformer=transformer,
    )


def _chroma() -> Any:
    import diffusers

    return diffusers.ChromaPipeline(
        scheduler=flow(),
        vae=latent_vae(2),
        text_encoder=t5(),
        tokenizer=letters(),
        transformer=diffusers.ChromaTransformer2DModel(
            patch_size=1,
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
            approximator_hidden_dim=16,
            approximator_layers=1,
            approximator_num_channels=8,
        ),
    )


def clip_vision() -> Any:
    """An image encoder of width 16 with projection."""
    import transformers

    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=16,
        )
    ).eval()


def clip_processor() -> Any:
    """Its preprocessing."""
    import transformers

    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _kandinsky() -> Any:
    import diffusers

    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16, num_embeddings=16
    )
    torch.nn.init.ones_(prior.clip_std)
    return diffusers.KandinskyV22InpaintCombinedPipeline(
        unet=diffusers.UNet2DConditionModel(
            sample_size=16,
            in_channels=9,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            encoder_hid_dim=16,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=16,
            attention_head_dim=4,
            resnet_time_scale_shift="scale_shift",
        ),
        scheduler=ddim(),
        movq=diffusers.VQModel(
            block_out_channels=(32, 64),  # its spatial norm has 32 groups
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ),
        prior_prior=prior,
        prior_image_encoder=clip_vision(),
        prior_text_encoder=clip_text(projection=True),
        prior_tokenizer=clip_tokenizer(),
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        prior_image_processor=clip_processor(),
    )


def _paint_by_example() -> Any:
    import diffusers
    import transformers

    # Its module moved between versions of diffusers; the class is found beside the pipeline.
    home = diffusers.PaintByExamplePipeline.__module__.rpartition(".")[0]
    image_encoder = importlib.import_module(f"{home}.image_encoder").PaintByExampleImageEncoder
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=16,
    )
    return diffusers.PaintByExamplePipeline(
        vae=vae(),
        image_encoder=image_encoder(config, proj_size=16),
        unet=unet(),
        scheduler=ddim(),
        safety_checker=None,
        requires_safety_checker=False,
        feature_extractor=clip_processor(),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "stable-diffusion": _stable_diffusion,
    "controlnet": _controlnet,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": lambda: _flux("FluxPipeline"),
    "flux-fill": lambda: _flux("FluxFillPipeline", 8 + 8 + 16),
    "flux-kontext": lambda: _flux("FluxKontextPipeline"),
    "flux2-klein": _flux2_klein,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "chroma": _chroma,
    "kandinsky": _kandinsky,
    "paint-by-example": _paint_by_example,
}


def save(name: str, folder: Path) -> Path:
    """Build a family's model and save it as safetensors; returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = FAMILIES[name]()
    pipe.save_pretrained(folder, safe_serialization=True)
    if name == "paint-by-example":
        # As the published Fantasy-Studio/Paint-by-Example names it; diffusers 0.42 cannot load what it writes
        # itself.
        index = json.loads((folder / "model_index.json").read_text())
        index["image_encoder"] = ["paint_by_example", "PaintByExampleImageEncoder"]
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
