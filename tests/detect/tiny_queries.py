"""Tiny query-based models, and their ONNX files as the families' own exporters write them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from tiny_models import save_tiny
from torch import Tensor, nn
from transformers import (
    AutoModelForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    RfDetrConfig,
    RfDetrForObjectDetection,
)

SIZES = {"rf_detr": (64, 96)}
SIZE = (96, 128)
NAMES = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}


def save(kind: str, folder: Path) -> Path:
    """Write a tiny model and its preprocessor's settings, which stretch."""
    own = {"rf_detr": rf_detr, "d_fine": d_fine}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if kind in own:
            model = own[kind]()
        else:
            model = AutoModelForObjectDetection.from_pretrained(save_tiny(kind, folder))
        with torch.no_grad():  # fresh ones let no signal through: of equal scores any may be chosen
            for name, value in model.named_parameters():
                if name.endswith("weight"):
                    value.fill_(1) if value.ndim == 1 else value.normal_(0, value[0].numel() ** -0.5)
        model.save_pretrained(folder)
    height, width = SIZES.get(kind, SIZE)
    normal = kind in ("rf_detr", "detr")
    settings = {"size": {"height": height, "width": width}, "do_normalize": normal}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def rf_detr() -> nn.Module:
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 8,
        "image_size": 64,
        "num_windows": 2,
        "out_features": ["stage1", "stage2"],
        "window_block_indexes": [0],
        "mlp_ratio": 2,
    }
    sizes = {
        "d_model": 32,
        "num_queries": 12,
        "decoder_layers": 2,
        "decoder_ffn_dim": 32,
        "decoder_self_attention_heads": 4,
        "decoder_cross_attention_heads": 4,
        "decoder_n_points": 2,
        "group_detr": 2,
        "c2f_num_blocks": 1,
    }
    model: nn.Module = RfDetrForObjectDetection(RfDetrConfig(backbone_config=backbone, **sizes, **NAMES))
    return model


def d_fine() -> nn.Module:
    backbone = HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 24],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 24, 32],
        stage_num_blocks=[1] * 4,
        stage_downsample=[False, True, True, True],
        stage_light_block=[False] * 4,
        stage_kernel_size=[3] * 4,
        stage_numb_of_layers=[1] * 4,
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {
        "d_model": 32,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 24, 32],
        "decoder_in_channels": [32] * 3,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 12,
        "num_denoising": 0,
        "decoder_n_points": [2, 2, 2],
    }
    model: nn.Module = DFineForObjectDetection(DFineConfig(backbone_config=backbone, **sizes, **NAMES))
    return model


class Plain(nn.Module):
    """As transformers and optimum export it."""

    inputs: Sequence[str] = ("pixel_values",)
    outputs: Sequence[str] = ("logits", "pred_boxes")

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Any:
        out = self.network(pixel_values=pixel_values)
        return out.logits, out.pred_boxes


class Swapped(Plain):
    """As RF-DETR exports it."""

    inputs, outputs = ("input",), ("dets", "labels")

    def forward(self, pixel_values: Tensor) -> Any:
        return super().forward(pixel_values)[::-1]


class Joined(Plain):
    """As Ultralytics exported RT-DETR before it chose in the graph."""

    inputs, outputs = ("images",), ("output0",)

    def forward(self, pixel_values: Tensor) -> Any:
        logits, boxes = super().forward(pixel_values)
        return torch.cat([boxes, logits.sigmoid()], -1)


class Deployed(Plain):
    """As the repositories of RT-DETR and D-FINE deploy it."""

    inputs, outputs = ("images", "orig_target_sizes"), ("labels", "boxes", "scores")

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> Any:
        logits, boxes = super().forward(images)
        x, y, w, h = boxes.unbind(-1)
        boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
        boxes = boxes * orig_target_sizes.repeat(1, 2).unsqueeze(1)
        scores, index = torch.topk(torch.sigmoid(logits).flatten(1), 12, dim=-1)
        labels = index - index // logits.shape[-1] * logits.shape[-1]
        index = index // logits.shape[-1]
        return labels, boxes.gather(dim=1, index=index.unsqueeze(-1).repeat(1, 1, 4)), scores


def export(folder: Path, wrapper: type[Plain], path: Path, **facts: str) -> Path:
    """Export the model in `folder` for its own input size."""
    network = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True).eval()
    stored = json.loads((folder / "preprocessor_config.json").read_text())["size"]
    pixels = torch.rand(1, 3, stored["height"], stored["width"], generator=torch.Generator().manual_seed(0))
    for part in network.modules():  # RF-DETR's own exporter computes these before
        if hasattr(part, "interpolate_pos_encoding"):
            freeze_positions(part, network, pixels)
    sizes = torch.tensor([[stored["width"], stored["height"]]])
    values = (pixels, sizes) if len(wrapper.inputs) == 2 else (pixels,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapper(network),
            values,
            str(path),
            input_names=list(wrapper.inputs),
            output_names=list(wrapper.outputs),
            dynamo=False,
            opset_version=17,
        )
    model = onnx.load(str(path))
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


def freeze_positions(part: Any, network: nn.Module, pixels: Tensor) -> None:
    """Replace position embeddings of the input's size by their values."""
    plain, seen = part.interpolate_pos_encoding, []

    def keep(*values: Any) -> Tensor:
        seen.append(plain(*values))
        return seen[-1]

    part.interpolate_pos_encoding = keep
    with torch.no_grad():
        network(pixel_values=pixels)
    part.interpolate_pos_encoding = lambda *_: seen[-1]
