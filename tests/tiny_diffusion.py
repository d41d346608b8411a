"""A tiny StableDiffusionInpaintPipeline with its own tokenizer and random weights, and its parts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch


def vae() -> Any:
    """An AutoencoderKL for crops of 32 pixels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    )


def unet(channels: int = 9) -> Any:
    """A UNet of an inpainting pipeline: latents, mask, masked latents; 4 channels: latents alone."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _vocabulary() -> dict[str, int]:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary[letter] = len(vocabulary)
        vocabulary[letter + "</w>"] = len(vocabulary)
    return vocabulary


def clip_tokenizer() -> Any:
    """A CLIP tokenizer of single letters, 16 of them at most."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps(_vocabulary()))
        merges.write_text("#version: 0.2\n")
        return transformers.CLIPTokenizer(str(vocabulary), str(merges), model_max_length=16)


def clip_text(*, projection: bool = False) -> Any:
    """A CLIP text encoder of width 16."""
    import transformers

    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(
        transformers.CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1 + projection,  # SDXL reads the last but one
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            projection_dim=16,
        )
    )


def save_stable_diffusion(folder: Path) -> Path:
    """Save the pipeline beneath `folder`; returns where."""
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = StableDiffusionInpaintPipeline(
            vae=vae(),
            text_encoder=clip_text(),
            tokenizer=clip_tokenizer(),
            unet=unet(),
            safety_checker=None,
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"
