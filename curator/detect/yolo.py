"""Decoding of YOLO exports: the heads of YOLOv5 to YOLO26 as Ultralytics, YOLOv5, v6, v7 and v9 write them.

In: outputs that are decoded inside the network already.
  yolo        (B, 4 + K, A): centre, width, height in input pixels, then classes after the sigmoid (v8 to v12,
              v26, and v5 by Ultralytics)
  yolov5      (B, A, 5 + K): the same with objectness, score = objectness * class (v5, v6, v7)
  yolo-end2end (B, M, 6): corners, score and class of the best, without NMS (v10, v26). Ranks mean nothing on
              a masked image, so the candidates are read before the network chooses among them.
Out: scores, log-odds, boxes in the input frame. Input: RGB 0-1, letterboxed to the middle, padded with 114.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curator.detect.decoding import Decoded, grid
from curator.detect.letterbox import GREY, NMS_IOU, TOP_K, letterbox
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import joint_log_odds, probability_log_odds
from curator.errors import InputError
from store.records import Pin

STRIDES = ((8, 16, 32), (16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
"""Of the usual heads: plain, tiny, P2 and P6."""
ANCHORS = 3  # of a cell of an anchor-based head


class YoloDecoder:
    """See `decoding.Decoder`; without objectness.

    Attributes:
        strides: known once `level_values` has seen the graph.
    """

    strides: tuple[int, ...] = ()
    mean_color = (GREY, GREY, GREY)
    padding = GREY
    nms_iou = NMS_IOU
    single_label = True
    clips_last = True
    top_k = TOP_K
    antialias = False
    fixed = True

    def pin(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Pin:
        """Keep the aspect ratio; the image lies in the middle, on whole pixels."""
        return letterbox(image_size, input_size)

    def normalise(self, u: Tensor) -> Tensor:
        """RGB [0, 1] as it is."""
        return u

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """Per level the map at which the branches of boxes and classes part; none where the graph joins its
        levels in an unusual way.

        Raises:
            InputError: the output is of another kind.
        """
        shape = self._candidates(graph)
        self.strides = strides_of(shape[2], graph.input_size)
        joins = graph.joins(len(self.strides), shape[2])
        found = []
        for parts in zip(*(join.input for join in joins), strict=True):
            if len(parts) == 1:  # one map a level: boxes and classes were joined before
                before = graph.nearest(parts[0], "Concat")
                parts = tuple(before.input) if before is not None else parts
            found.append(graph.last_common(list(parts)))
        return found

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """The classes before their sigmoid, where the graph has them alone."""
        last = graph.producers.get(graph.outputs[0])
        if last is None or last.op_type != "Concat" or len(last.input) != 2:
            return []
        sigmoid = graph.producers.get(last.input[1])
        return [sigmoid.input[0]] if sigmoid is not None and sigmoid.op_type == "Sigmoid" else []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Rows of the output less the box's four."""
        return int(outputs[0].shape[1]) - 4

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; log-odds are the logits where the graph gives them."""
        raw = outputs[0].float()
        raw = raw if index is None else raw[:, :, index]
        raw = raw.transpose(1, 2)
        scores = raw[..., 4:]
        if len(outputs) > 1:
            logits = outputs[1].float()
            log_odds = (logits if index is None else logits[:, :, index]).transpose(1, 2)
        else:
            log_odds = probability_log_odds(scores)
        return Decoded(scores, log_odds, self._corners(raw[..., :4]))

    def _corners(self, boxes: Tensor) -> Tensor:
        return corners(boxes)

    def _candidates(self, graph: OnnxGraph) -> tuple[int, ...]:
        """Shape of the output that holds them."""
        shape = graph.shape(graph.outputs[0])
        if len(shape) != 3 or shape[1] < 5 or shape[2] < 1:
            raise InputError(f"yolo: expected an output (N, 4 + classes, candidates), got {shape}")
        return shape


class Yolov5Decoder(YoloDecoder):
    """See `decoding.Decoder`; with objectness."""

    nms_iou = 0.45

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """Per level the input of the convolution that gives all; none where it is not found."""
        shape = self._candidates(graph)
        heads = [
            strides
            for strides in STRIDES
            for anchors in (ANCHORS, 1)
            if anchors * cell_count(strides, graph.input_size) == shape[1]
        ]
        self.strides = heads[0] if heads else STRIDES[0]
        joins = graph.joins(len(self.strides), shape[1], axis=1)
        if not joins:
            return []
        convolutions = [graph.nearest(value, "Conv") for value in joins[0].input]
        return [str(c.input[0]) for c in convolutions if c is not None]

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """None."""
        return []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Columns of the output less box and objectness."""
        return int(outputs[0].shape[2]) - 5

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; p = objectness * class."""
        raw = outputs[0].float()
        raw = raw if index is None else raw[:, index]
        objectness, classes = raw[..., 4:5], raw[..., 5:]
        log_odds = joint_log_odds(objectness, classes)
        return Decoded(objectness * classes, log_odds, corners(raw[..., :4]))

    def _candidates(self, graph: OnnxGraph) -> tuple[int, ...]:
        shape = graph.shape(graph.outputs[0])
        if len(shape) != 3 or shape[2] < 6 or shape[1] < 1:
            raise InputError(f"yolov5: expected an output (N, candidates, 5 + classes), got {shape}")
        return shape


class YoloEndToEndDecoder(YoloDecoder):
    """See `decoding.Decoder`; read before the network chooses, without NMS."""

    nms_iou = 1.0
    single_label = False

    def _corners(self, boxes: Tensor) -> Tensor:
        return boxes  # as they are put out

    def _candidates(self, graph: OnnxGraph) -> tuple[int, ...]:
        """Makes what the network chooses from the output."""
        chosen = graph.shape(graph.outputs[0])
        if len(chosen) != 3 or chosen[2] != 6:
            raise InputError(f"yolo-end2end: expected an output (N, detections, 6), got {chosen}")
        for strides in STRIDES:
            for node in reversed(graph.joins(2, cell_count(strides, graph.input_size))):
                if graph.shape(node.output[0])[1] > 4 and node.output[0] in graph.ancestors(graph.outputs[0]):
                    graph.cut(node.output[0])
                    return graph.shape(node.output[0])
        raise InputError("yolo-end2end: found no candidates in the graph; export it with end2end=False")


def corners(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as centre and size -> corners."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def cell_count(strides: Sequence[int], input_size: tuple[int, int]) -> int:
    """Cells of all levels."""
    return sum(rows * columns for rows, columns in (grid(input_size, s) for s in strides))


def strides_of(count: int, input_size: tuple[int, int]) -> tuple[int, ...]:
    """Strides of a usual head with so many candidates.

    Raises:
        InputError: none has.
    """
    for strides in STRIDES:
        if cell_count(strides, input_size) == count:
            return strides
    raise InputError(
        f"yolo: expected as many candidates as the cells of an input of {input_size[0]} x {input_size[1]}, "
        f"got {count}; is this a detection export of YOLO?"
    )
