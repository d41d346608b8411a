"""Decoding of YOLOX exports (Ge et al., arXiv:2107.08430).

In: output (B, A, 5 + K): box, objectness, classes after the sigmoid. The box is
  yolox          centre offset and log size in strides: raw
  yolox-decoded  centre and size in input pixels: exported with `--decode_in_inference`
Out: score = objectness * class; boxes in the input frame. Input: BGR 0-255, letterboxed to the top left,
padded with 114.

Read in Megvii-BaseDetection/YOLOX: yolox/models/yolo_head.py (`forward`, `decode_outputs`) and
tools/export_onnx.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from curator.detect.decoding import Decoded, cells
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import joint_log_odds
from curator.detect.yolo import cell_count, corners
from curator.errors import InputError
from store.records import Pin

_GREY = 114 / 255


class YoloxDecoder:
    """See `decoding.Decoder`; raw."""

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
        joined = self._join(graph)
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
        count = cell_count(self.strides, graph.input_size)
        shape = tuple(outputs[0].shape)
        if len(shape) != 3 or shape[1] != count or shape[2] < 6:
            raise InputError(
                f"yolox: expected an output (N, {count}, 5 + classes), got {shape}; is this a YOLOX export?"
            )
        return shape[2] - 5

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; p = objectness * class."""
        raw = outputs[0].float()
        raw = raw if index is None else raw[:, index]
        objectness, classes = raw[..., 4:5], raw[..., 5:]
        boxes = corners(self._boxes(raw[..., :4], index, input_size))
        return Decoded(objectness * classes, joint_log_odds(objectness, classes), boxes)

    def _join(self, graph: OnnxGraph) -> Any:
        """The node that joins the levels."""
        return graph.upstream(graph.outputs[0], "Concat")

    def _boxes(self, raw: Tensor, index: Tensor | None, input_size: tuple[int, int]) -> Tensor:
        """Centre and size (B, q, 4) in input pixels."""
        corner, stride = cells(input_size, self.strides, device=raw.device)
        if index is not None:
            corner, stride = corner[index], stride[index]
        return torch.cat([(raw[..., :2] + corner) * stride, raw[..., 2:].exp() * stride], -1)


class YoloxDecodedDecoder(YoloxDecoder):
    """See `decoding.Decoder`; decoded in the network."""

    def _join(self, graph: OnnxGraph) -> Any:
        found = decoded_join(graph, len(self.strides))
        if found is None:
            raise InputError(
                f"yolox-decoded: expected {len(self.strides)} levels that are decoded once they are joined; "
                "is this a YOLOX export with --decode_in_inference?"
            )
        return found

    def _boxes(self, raw: Tensor, index: Tensor | None, input_size: tuple[int, int]) -> Tensor:
        return raw


def decoded_join(graph: OnnxGraph, levels: int) -> Any | None:
    """The node that joins the levels of a YOLOX that decodes in the network: sizes are exponentials of what
    it joins. None for another file: YOLOv6 (meituan/YOLOv6, yolov6/models/effidehead.py) has no exponential
    and its first release one a level, before it joins them."""
    above = graph.ancestors(graph.outputs[0])
    exponentials = [
        graph.ancestors(node.input[0])
        for node in graph.model.graph.node
        if node.op_type == "Exp" and node.output[0] in above
    ]
    shape = graph.shape(graph.outputs[0])
    for join in graph.joins(levels, shape[1]) if len(shape) == 3 else []:
        if any(join.output[0] in values for values in exponentials):
            return join
    return None
