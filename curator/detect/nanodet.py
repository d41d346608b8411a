"""Decoding of NanoDet exports (heads of Generalized Focal Loss, Li et al., arXiv:2006.04388).

In: per stride class scores (B, A_s, K) after the sigmoid and side distributions (B, A_s, 4 bins). Out: the
score is the class score; a side's distance is the mean of its distribution, in strides. Input: BGR with
ImageNet mean and deviation, stretched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curator.detect.decoding import Decoded, cells
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import probability_log_odds
from curator.errors import InputError
from store.records import Pin

_MEAN = (123.675, 116.28, 103.53)  # RGB
_DEVIATION = (58.395, 57.12, 57.375)


class NanodetDecoder:
    """See `decoding.Decoder`. Outputs are the class scores of all strides, then all distributions."""

    strides: tuple[int, ...] = (8, 16, 32)
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
        """Per level the input of the convolution that gives classes and sides."""
        return [str(graph.upstream(name, "Conv").input[0]) for name in graph.outputs[: len(self.strides)]]

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """None."""
        return []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Channels of the class outputs."""
        h, w = graph.input_size
        counts = [(h // s) * (w // s) for s in self.strides]
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
        levels = len(self.strides)
        scores = torch.cat(list(outputs[:levels]), 1).float()
        sides = torch.cat(list(outputs[levels : 2 * levels]), 1).float()
        corner, stride = cells(input_size, self.strides, device=scores.device)
        if index is not None:
            scores, sides, corner, stride = scores[:, index], sides[:, index], corner[index], stride[index]
        bins = sides.view(*sides.shape[:2], 4, sides.shape[2] // 4).softmax(-1)
        # (B, q, 4): left, top, right, bottom, px
        distance = (bins * torch.arange(bins.shape[-1], device=bins.device)).sum(-1) * stride
        centre = (corner + 0.5) * stride
        boxes = torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], -1)
        return Decoded(scores, probability_log_odds(scores), boxes)
