"""Tiny vision models of `transformers`, random and saved as a user's would be, with their own tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

_TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


@pytest.fixture(scope="session")
def tiny_vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models clip, siglip, dinov2, dinov2_with_registers, dinov3_vit and vit."""
    import transformers

    root = tmp_path_factory.mktemp("vision")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary[letter] = len(vocabulary)
        vocabulary[letter + "</w>"] = len(vocabulary)
    (root / "vocab.json").write_text(json.dumps(vocabulary))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=16
    )
    text = {**_TEXT, "vocab_size": len(vocabulary)}
    layers = {key: value for key, value in _TOWER.items() if key != "intermediate_size"}
    configs: dict[str, Any] = {
        "clip": transformers.CLIPConfig(text_config=text, vision_config=_TOWER, projection_dim=12),
        "siglip": transformers.SiglipConfig(text_config=text, vision_config=_TOWER),
        "dinov2": transformers.Dinov2Config(**layers),
        "dinov2_with_registers": transformers.Dinov2WithRegistersConfig(**layers, num_register_tokens=3),
        "dinov3_vit": transformers.DINOv3ViTConfig(**_TOWER, num_register_tokens=2),
        "vit": transformers.ViTConfig(**_TOWER),
    }
    for kind, config in configs.items():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = transformers.AutoModel.from_config(config)
        model.save_pretrained(root / kind)
        if kind in ("clip", "siglip"):
            tokenizer.save_pretrained(root / kind)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }
    (root / "clip" / "preprocessor_config.json").write_text(json.dumps(settings))
    return root
