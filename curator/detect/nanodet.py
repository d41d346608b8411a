"""Decoding of NanoDet exports (heads of Generalized Focal Loss, Li et al., arXiv:2006.04388).

In: class scores after the sigmoid and side distributions (left, top, right, bottom) before the softmax, as
  two outputs a stride, (B, A_s, K) and (B, A_s, 4 bins) (the first exporters), or
  one output (B, A, K + 4 bins), all strides side by side.
Out: the score is the class score; a side's distance is the mean of its distribution, in strides. Input: BGR
with ImageNet mean and deviation, stretched.

Read in RangiLyu/nanodet: one output in `_forward_onnx` of nanodet/model/head/gfl_head.py and
nanodet_plus_head.py (that of nanodet_head.py in the fork HUSTLYRM/Nanodet_FP); six in `forward_single` of
older versions of nanodet_head.py. Sides as in `distance2bbox` (nanodet/util/box_transform.py). A side of the
input has ceil(size / stride) cells (`get_bboxes`). A cell's boxes start from its middle, (i + 0.5) * stride,
in gfl_head.py (`get_single_level_center_point`), but from its corner, i * stride, in nanodet_plus_head.py
(`get_single_level_center_priors`). What tells the two apart is their configurations (config/) and code:
NanoDet-Plus has 4 or 5 strides and convolutions of 5 x 5 in its head, the others have 3 strides and 3 x 3.

What no file says: NanoDet-m was trained with the aspect ratio kept (NanoDet-Plus stretched), and those with
EfficientNet-Lite on other numbers (mean 127, deviation 128). They are read as the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from curator.detect.decoding import Decoded, cells, grid, source
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import probability_log_odds
from curator.errors import InputError
from store.records import Pin

_MEAN = (123.675, 116.28, 103.53)  # RGB
_DEVIATION = (58.395, 57.12, 57.375)
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32, 64))


class NanodetDecoder:
    """See `decoding.Decoder`. Outputs are the class scores of all strides, then all distributions, or one.

    Attributes:
        strides, centre: those of a file with one output are known once `level_values` has seen the graph.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    centre = 0.5
    _joined = 0  # classes of the one output
    mean_color = (_MEAN[0] / 255, _MEAN[1] / 255, _MEAN[2] / 255)
    padding = 0.0
    nms_iou = 0.6
    single_label = False
    clips_last = False
    top_k = 400
    antialias = False
    fixed = True

    def pin(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Pin:
        """Stretch to the input."""
        return Pin(
            image_size=image_size,
            input_size=input_size,
            scale=(input_size[1] / image_size[1], input_size[0] / image_size[0]),
        )

    def normalise(self, u: Tensor) -> Tensor:
        """RGB [0, 1] -> BGR, mean 0, deviation 1 on ImageNet."""
        mean = u.new_tensor(_MEAN).view(3, 1, 1)
        return ((u * 255 - mean) / u.new_tensor(_DEVIATION).view(3, 1, 1)).flip(1)

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """Per level the input of the convolution that gives classes and sides; where there are two, the map
        at which their branches part.

        Raises:
            InputError: one output that is none of NanoDet's.
        """
        if len(graph.outputs) > 1:
            return [str(graph.upstream(name, "Conv").input[0]) for name in graph.outputs[: len(self.strides)]]
        heads = joined_heads(graph)
        shapes = [graph.shape(head.output[0]) for head in heads]
        fitting = [
            strides
            for strides in _STRIDES
            if [grid(graph.input_size, s) for s in strides] == [shape[2:] for shape in shapes]
        ]
        if not fitting:
            raise InputError(
                f"nanodet: expected one output that joins class scores and side distributions at strides "
                f"{', '.join(map(str, _STRIDES))}, got the levels {shapes}; is this a NanoDet export?"
            )
        self.strides = fitting[0]
        self._joined = graph.shape(heads[0].input[0])[1]
        last = [[graph.upstream(value, "Conv") for value in head.input] for head in heads]
        self.centre = 0.0 if len(heads) > 3 or _kernel(graph, last[0][0]) > 3 else 0.5
        return [graph.last_common([conv.input[0] for conv in convs]) for convs in last]

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """None."""
        return []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Channels of the class outputs, or those of the one output that are classes."""
        if self._joined:
            return self._joined
        counts = [rows * columns for rows, columns in (grid(graph.input_size, s) for s in self.strides)]
        shapes = [tuple(value.shape) for value in outputs[: 2 * len(counts)]]
        fits = [s[1] if len(s) == 3 else -1 for s in shapes] == counts * 2
        if not fits or any(s[2] % 4 for s in shapes[len(counts) :]):
            raise InputError(
                f"nanodet: expected class scores, then side distributions, for {counts} cells, "
                f"got {shapes}; is this a NanoDet export?"
            )
        return shapes[0][2]

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; log-odds come from the probabilities (clamped, see `probability_log_odds`)."""
        if self._joined:
            scores, sides = outputs[0].float().tensor_split([self._joined], -1)
        else:
            levels = len(self.strides)
            scores = torch.cat(list(outputs[:levels]), 1).float()
            sides = torch.cat(list(outputs[levels : 2 * levels]), 1).float()
        corner, stride = cells(input_size, self.strides, device=scores.device)
        if index is not None:
            scores, sides, corner, stride = scores[:, index], sides[:, index], corner[index], stride[index]
        bins = sides.view(*sides.shape[:2], 4, sides.shape[2] // 4).softmax(-1)
        # (B, q, 4): left, top, right, bottom, px
        distance = (bins * torch.arange(bins.shape[-1], device=bins.device)).sum(-1) * stride
        centre = (corner + self.centre) * stride
        boxes = torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], -1)
        return Decoded(scores, probability_log_odds(scores), boxes)


def joined_heads(graph: OnnxGraph) -> list[Any]:
    """Per level the node that joins class scores (after a sigmoid) and sides (4 times as many values as bins,
    after none), where the one output of a file joins such levels; none where it is of another kind."""
    output = source(graph, graph.outputs[0])
    if len(graph.outputs) > 1 or output is None or output.op_type != "Concat":
        return []
    heads = [source(graph, value) for value in output.input]
    for head in heads:
        if head is None or head.op_type != "Concat" or len(head.input) != 2:
            return []
        makers = [graph.producers.get(value) for value in head.input]
        whole, scores = graph.shape(head.output[0]), graph.shape(head.input[0])
        if [maker is not None and maker.op_type == "Sigmoid" for maker in makers] != [True, False]:
            return []
        if len(whole) != 4 or len(scores) != 4 or whole[1] - scores[1] not in range(8, 4096, 4):
            return []
    return heads


def _kernel(graph: OnnxGraph, convolution: Any) -> int:
    """Rows of the nearest kernel of more than one, from a convolution up; 1 where there is none."""
    node = convolution
    while node is not None:
        weight = graph.constants.get(node.input[1])
        if weight is not None and weight.dims[2] > 1:
            return int(weight.dims[2])
        node = graph.nearest(node.input[0], "Conv")
    return 1
