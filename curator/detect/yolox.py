"""Decoding of YOLOX exports (Ge et al., arXiv:2107.08430).

In: raw output (B, A, 5 + K): centre offset and log size in strides, objectness, classes after the sigmoid.
Out: score = objectness * class; boxes in the input frame. Input: BGR 0-255, letterboxed to the top left,
padded with 114.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curator.detect.decoding import Decoded, cells
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import joint_log_odds
from curator.errors import InputError
from store.records import Pin

_GREY = 114 / 255


class YoloxDecoder:
    """See `decoding.Decoder`."""

    strides: tuple[int, ...] = (8, 16, 32)
    mean_color = (_GREY, _GREY, _GREY)
    padding = _GREY
    nms_iou = 0.45
    single_label = True
    clips_last = False
    top_k = 400
    antialias = False
    fixed = True

    def pin(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Pin:
        """Keep the aspect ratio; the image lies at the top left."""
        height, width = image_size
        ratio = min(input_size[0] / height, input_size[1] / width)
        h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
        return Pin(image_size=image_size, input_size=input_size, scale=(w / width, h / height))

    def normalise(self, u: Tensor) -> Tensor:
        """RGB [0, 1] -> BGR 0-255."""
        return u.flip(1) * 255

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """Per level the map at which the box, objectness and class branches part."""
        joined = graph.upstream(graph.outputs[0], "Concat")
        if len(joined.input) != len(self.strides):
            raise InputError(
                f"yolox: expected {len(self.strides)} levels, the model joins "
                f"{len(joined.input)}; is this a YOLOX export?"
            )
        return [graph.last_common(list(graph.upstream(value, "Concat").input)) for value in joined.input]

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """None."""
        return []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Channels of the output less box and objectness."""
        h, w = graph.input_size
        count = sum((h // s) * (w // s) for s in self.strides)
        shape = tuple(outputs[0].shape)
        if len(shape) != 3 or shape[1] != count or shape[2] < 6:
            raise InputError(
                f"yolox: expected an output (N, {count}, 5 + classes), got {shape}; is this a YOLOX export?"
            )
        return shape[2] - 5

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; p = objectness * class."""
        raw = outputs[0].float()
        corner, stride = cells(input_size, self.strides, device=raw.device)
        if index is not None:
            raw, corner, stride = raw[:, index], corner[index], stride[index]
        centre = (raw[..., :2] + corner) * stride
        half = raw[..., 2:4].exp() * stride / 2
        objectness, classes = raw[..., 4:5], raw[..., 5:]
        log_odds = joint_log_odds(objectness, classes)
        return Decoded(objectness * classes, log_odds, torch.cat([centre - half, centre + half], -1))
