"""Tiny models of `transformers`, random and saved as a user's would be."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DabDetrConfig,
    DabDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    LwDetrConfig,
    LwDetrForObjectDetection,
    LwDetrViTConfig,
    ResNetConfig,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
)

KINDS = ("detr", "conditional_detr", "dab-detr", "yolos", "rt_detr", "rt_detr_v2")
KINDS = (*KINDS, "deformable_detr", "d_fine", "lw_detr", "rf_detr")
FIXED = {"size": {"height": 96, "width": 128}, "do_normalize": False}
SQUARE = {"size": {"height": 128, "width": 128}, "do_normalize": False}
KEPT = {"size": {"shortest_edge": 64, "longest_edge": 96}}
_NAMES = {0: "a", 1: "b", 2: "N/A", 3: "N/A"}


def save_tiny(kind: str, folder: Path) -> Path:
    """Write a tiny model of a kind (`KINDS`) into `folder`."""
    layers = {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    common = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 12,
        "id2label": _NAMES,
        "label2id": {name: i for i, name in _NAMES.items()},
        "use_timm_backbone": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if kind == "yolos":
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
            shape = {"image_size": [96, 128], "patch_size": 16, "num_detection_tokens": 12}
            names = {name: common[name] for name in ("id2label", "label2id")}
            model = YolosForObjectDetection(YolosConfig(**sizes, **shape, **names, intermediate_size=64))
            with torch.no_grad():
                model.class_labels_classifier.layers[-1].weight.mul_(40)
        elif kind in ("lw_detr", "rf_detr"):
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 128}
            names = {name: common[name] for name in ("id2label", "label2id", "d_model", "num_queries")}
            own = {"decoder_layers": 2, "decoder_ffn_dim": 32, "decoder_self_attention_heads": 4}
            own |= {"decoder_cross_attention_heads": 4, "group_detr": 1, "c2f_num_blocks": 1}
            if kind == "lw_detr":
                vit = LwDetrViTConfig(**sizes, num_windows=4, window_block_indices=[0], out_indices=[1, 2])
                model = LwDetrForObjectDetection(
                    LwDetrConfig(backbone_config=vit, projector_scale_factors=[1.0], **names, **own)
                )
            else:
                vit = RfDetrDinov2Config(**sizes, patch_size=16, num_windows=2, out_indices=[1, 2])
                model = RfDetrForObjectDetection(RfDetrConfig(backbone_config=vit, **names, **own))
        elif kind in ("rt_detr", "rt_detr_v2", "d_fine"):
            backbone = RTDetrResNetConfig(**layers, out_features=["stage2", "stage3", "stage4"])
            own = {
                "encoder_hidden_dim": 32,
                "encoder_in_channels": [16, 24, 32],
                "decoder_in_channels": [32] * 3,
            }
            config, network = {
                "rt_detr": (RTDetrConfig, RTDetrForObjectDetection),
                "rt_detr_v2": (RTDetrV2Config, RTDetrV2ForObjectDetection),
                "d_fine": (DFineConfig, DFineForObjectDetection),
            }[kind]
            model = network(config(backbone_config=backbone, **common, **own, num_denoising=0))
        else:
            config, network = {
                "detr": (DetrConfig, DetrForObjectDetection),
                "conditional_detr": (ConditionalDetrConfig, ConditionalDetrForObjectDetection),
                "dab-detr": (DabDetrConfig, DabDetrForObjectDetection),
                "deformable_detr": (DeformableDetrConfig, DeformableDetrForObjectDetection),
            }[kind]
            several = ["stage4"]
            if kind == "deformable_detr":
                several, common["num_feature_levels"] = ["stage2", "stage3", "stage4"], 3
            backbone = ResNetConfig(**layers, out_features=several)
            model = network(config(backbone_config=backbone, **common, use_pretrained_backbone=False))
            head = getattr(model, "class_labels_classifier", None) or model.class_embed
            with torch.no_grad():  # fresh heads give every query the same score
                for part in set(head) if isinstance(head, torch.nn.ModuleList) else [head]:
                    part.weight.mul_(20)
        model.save_pretrained(folder)
    settings = KEPT if kind in ("detr", "conditional_detr", "dab-detr", "deformable_detr") else FIXED
    settings = SQUARE if kind in ("lw_detr", "rf_detr") else settings
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
