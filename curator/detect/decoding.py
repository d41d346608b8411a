"""What a decoder of an exported detector does: pixels in the way that the network saw them in training,
and boxes and scores out of its raw outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from curator.detect.onnx_graph import OnnxGraph
from store.records import Pin


@dataclass(frozen=True, slots=True)
class Decoded:
    """Candidates in the input frame: scores and log_odds (B, q, K), boxes (B, q, 4) xyxy."""

    scores: Tensor
    log_odds: Tensor
    boxes: Tensor


_MOVES = ("Transpose", "Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze")
_ARITHMETIC = {"Mul", "Add", "Sub", "Div", "Pow", "Exp"}


class Decoder(Protocol):
    """One family of exported detectors.

    Attributes:
        strides: of the levels, fine to coarse; candidates are ordered by level, row, column.
        mean_color: default baseline, RGB in [0, 1]. padding: RGB in [0, 1] around a letterboxed image.
        nms_iou: NMS threshold. single_label: a candidate can only be a detection of its best class.
        clips_last: NMS compares boxes that may reach beyond the image. top_k: candidates per class that enter
            NMS.
        antialias: images are shrunk with antialiasing. fixed: a candidate's index means the same on every
            input.
        centre: where in its cell a box is centred by default, in strides; 0.5 where it is missing.
    """

    strides: tuple[int, ...]
    mean_color: tuple[float, float, float]
    padding: float
    nms_iou: float
    single_label: bool
    clips_last: bool
    top_k: int
    antialias: bool
    fixed: bool

    def pin(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Pin:
        """How an image of (H, W) lies in the input."""

    def normalise(self, u: Tensor) -> Tensor:
        """RGB [0, 1] (B, 3, h, w) -> what the network takes."""

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """Names of the feature maps that the heads read, fine to coarse; may be none.

        Raises:
            InputError: the graph is of another kind.
        """

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """Names of inner values that `decode` gets after the model's own outputs."""

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Number of classes of the model's outputs; raises InputError where the outputs do not fit."""

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode the candidates `index` (q,), all for None."""


def source(graph: OnnxGraph, value: str) -> Any | None:
    """The node that computes a value, those that only move or cast it left out; None for an input."""
    node = graph.producers.get(value)
    while node is not None and node.op_type in _MOVES:
        node = graph.producers.get(node.input[0])
    return node


def computed(graph: OnnxGraph, value: str) -> bool:
    """Whether boxes are computed between the last convolutions and a value, rather than left raw."""
    found: set[str] = set()
    seen, stack = {value}, [value]
    while stack:
        node = graph.producers.get(stack.pop())
        if node is None or node.op_type == "Conv":
            continue
        found.add(node.op_type)
        stack += [name for name in node.input if name not in seen]
        seen.update(node.input)
    return bool(found & _ARITHMETIC)


def grid(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of a level; a cell that reaches beyond the border counts."""
    return -(-input_size[0] // stride), -(-input_size[1] // stride)


def cells(
    input_size: tuple[int, int], strides: Sequence[int], *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Columns and rows (A, 2) and strides (A, 1) of all cells, by level, row, column."""
    corners, steps = [], []
    for stride in strides:
        rows, columns = grid(input_size, stride)
        places = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
        corners.append(places.flip(-1))  # (row, column) -> (x, y)
        steps.append(torch.full((rows * columns, 1), float(stride), device=device))
    return torch.cat(corners).float(), torch.cat(steps)
