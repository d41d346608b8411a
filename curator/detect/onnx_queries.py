"""Exports of query-based detectors: RT-DETR, D-FINE, DEIM, RF-DETR, DETR.

In: a graph whose outputs are, by `decode=`,
  rtdetr         (B, M, 6): centre, width, height in [0, 1], score and class of the best, as Ultralytics
                 writes them; or (B, Q, 4 + K), as earlier versions did
  detr-deployed  labels, boxes, scores, with a second input orig_target_sizes: the repositories of RT-DETR,
                 D-FINE and DEIM
  rfdetr         dets (B, Q, 4), labels (B, Q, K): boxes as above, and logits; RF-DETR's own export
  detr-sigmoid, detr-softmax  logits (B, Q, K), pred_boxes (B, Q, 4): `transformers` and optimum; softmax for
                 DETR, Table Transformer and YOLOS, whose last logit is "no object"
Out: scores, log-odds and boxes of all queries, read before the network chooses among them, so that they can
be explained: their logits are log-odds without loss. There is no NMS.

Images are stretched to the input. Their numbers are RGB in [0, 1], or ImageNet's normalisation of these where
the family was trained so (RF-DETR, DETR); a preprocessor_config.json beside the file says it for
`transformers`, whose families differ, and `pixels=unit` or `pixels=imagenet` says it for any.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curator.config import require
from curator.detect.decoding import Decoded
from curator.detect.heads import distinct
from curator.detect.onnx_graph import OnnxGraph
from curator.detect.postprocess import softmax_log_odds
from curator.detect.query_families import DRAWN, SIGMOID, SOFTMAX
from curator.detect.yolo import corners
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from store.records import Pin

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_PIXELS = {"unit": _UNIT, "imagenet": _IMAGENET}
_SAME = ("Identity", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Cast")  # operators that move no value


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's exports share.

    Attributes:
        softmax: the last logit is "no object". pixels: None where its models differ.
        antialias: images are shrunk with antialiasing. normalised: boxes are centre and size in [0, 1], else
            corners in input pixels.
    """

    softmax: bool = False
    pixels: str | None = "unit"
    antialias: bool = True
    normalised: bool = True


FAMILIES = {
    "rtdetr": Family(antialias=False),
    "detr-deployed": Family(normalised=False),
    "rfdetr": Family(pixels="imagenet"),
    "detr-sigmoid": Family(pixels=None),
    "detr-softmax": Family(softmax=True, pixels="imagenet"),
}


class QueryDecoder:
    """See `decoding.Decoder`; after `level_values` the graph's outputs are all queries' logits and boxes.

    Attributes:
        frame: mean and deviation of the normalisation.
    """

    strides: tuple[int, ...] = ()
    padding = 0.0
    nms_iou = 1.0  # none is above
    clips_last = False
    top_k = 3000

    def __init__(self, name: str, *, mean: Sequence[float], deviation: Sequence[float], fixed: bool) -> None:
        self._name, self._family = name, FAMILIES[name]
        self.single_label = self._family.softmax
        self.antialias = self._family.antialias
        self.fixed = fixed
        self.mean_color = (mean[0], mean[1], mean[2]) if any(mean) else (0.5, 0.5, 0.5)
        self.frame = [list(mean), list(deviation)]
        self._mean, self._deviation = torch.tensor(mean), torch.tensor(deviation)

    def pin(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Pin:
        """The image is stretched."""
        scale = (input_size[1] / image_size[1], input_size[0] / image_size[0])
        return Pin(image_size=image_size, input_size=input_size, scale=scale)

    def normalise(self, u: Tensor) -> Tensor:
        """RGB [0, 1] less the mean, by the deviation."""
        mean, deviation = (value.to(u.device).view(3, 1, 1) for value in (self._mean, self._deviation))
        return (u - mean) / deviation

    def level_values(self, graph: OnnxGraph) -> list[str]:
        """No maps; makes the logits and boxes of all queries the outputs.

        Raises:
            InputError: they are not found.
        """
        logits, boxes = self._queries(graph)
        graph.cut(logits, boxes)
        return []

    def extra_values(self, graph: OnnxGraph) -> list[str]:
        """None."""
        return []

    def classes(self, graph: OnnxGraph, outputs: Sequence[Tensor]) -> int:
        """Logits of a query, less "no object"."""
        logits, boxes = (tuple(value.shape) for value in outputs[:2])
        count = logits[-1] - self._family.softmax
        if len(logits) != 3 or boxes != (*logits[:2], 4) or count < 1:
            raise InputError(
                f"{self._name}: expected logits (N, queries, classes) and boxes (N, queries, 4) in "
                f"{graph.path}, got {logits} and {boxes}"
            )
        return int(count)

    def decode(self, outputs: Sequence[Tensor], index: Tensor | None, input_size: tuple[int, int]) -> Decoded:
        """Decode; log-odds come from the logits."""
        logits, boxes = (value.float() if index is None else value[:, index].float() for value in outputs[:2])
        if self._family.normalised:
            boxes = corners(boxes) * boxes.new_tensor([input_size[1], input_size[0]]).repeat(2)
        if self._family.softmax:
            return Decoded(logits.softmax(-1)[..., :-1], softmax_log_odds(logits)[..., :-1], boxes)
        return Decoded(logits.sigmoid(), logits, boxes)

    def _queries(self, graph: OnnxGraph) -> tuple[str, str]:
        """Names of the values that hold all logits and all boxes."""
        names = {"rfdetr": ("labels", "dets"), "detr-deployed": ("scores", "boxes")}
        if self._name != "rtdetr":
            logits, boxes = names.get(self._name, ("logits", "pred_boxes"))
            if not {logits, boxes} <= set(graph.outputs):
                raise InputError(
                    f"{self._name}: expected the outputs {logits} and {boxes} in {graph.path}, got "
                    f"{', '.join(graph.outputs)}"
                )
            return self._chosen(graph, logits, boxes) if self._name == "detr-deployed" else (logits, boxes)
        last = graph.producers.get(graph.outputs[0])
        parts = list(last.input) if last is not None and last.op_type == "Concat" else []
        if len(parts) == 3:
            return self._chosen(graph, parts[1], parts[0])
        if len(parts) != 2:
            raise self._unknown(graph)
        return self._above(graph, parts[1], "Sigmoid", _SAME).input[0], parts[0]

    def _chosen(self, graph: OnnxGraph, scores: str, boxes: str) -> tuple[str, str]:
        """Logits and boxes of all queries, of which the best were chosen."""
        best = self._above(graph, scores, "TopK", _SAME)
        sigmoid = self._above(graph, best.input[0], "Sigmoid", _SAME)
        return sigmoid.input[0], self._above(graph, boxes, "GatherElements", _SAME).input[0]

    def _above(self, graph: OnnxGraph, value: str, wanted: str, through: Collection[str]) -> Any:
        """The operator that makes a value, others that move nothing left out."""
        node = graph.producers.get(value)
        while node is not None and node.op_type in through:
            node = graph.producers.get(node.input[0])
        if node is None or node.op_type != wanted:
            raise self._unknown(graph)
        return node

    def _unknown(self, graph: OnnxGraph) -> InputError:
        return InputError(
            f"{self._name}: found no queries in the graph of {graph.path}; is this the model that decode= "
            "names? Else wrap it as python:module:function"
        )


class OneByOne(nn.Module):
    """A network that takes one image at a time, for batches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Outputs of each image, put together."""
        found = [self.network(image[None]) for image in batch]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _described(graph: OnnxGraph) -> str:
    """What Ultralytics says of a model, without the data that it was trained on."""
    return str(graph.facts.get("description", "")).lower().partition(" trained on ")[0]


def recognise(graph: OnnxGraph) -> str | None:
    """The decoder of a query-based export, None for another one.

    Raises:
        InputError: it is one of several.
    """
    names = set(graph.outputs)
    if graph.facts.get("head") == "RTDETRDecoder" or "rtdetr" in _described(graph):
        return "rtdetr"
    if {"dets", "labels"} <= names:
        return "rfdetr"
    if {"labels", "boxes", "scores"} <= names and graph.takes_sizes:
        return "detr-deployed"
    if {"logits", "pred_boxes"} <= names:
        kind = _beside(graph, "config.json").get("model_type")
        if kind in SOFTMAX:
            return "detr-softmax"
        if kind in (*SIGMOID, *DRAWN):
            return "detr-sigmoid"
        raise InputError(
            f"onnx: cannot tell how the logits of {graph.path} are to be read; give decode=detr-softmax "
            "(DETR, Table Transformer, YOLOS) or decode=detr-sigmoid (RT-DETR, D-FINE and later), or put the "
            "model's config.json beside the file"
        )
    return None


def make_decoder(name: str, graph: OnnxGraph, spec: Spec) -> QueryDecoder:
    """The decoder `name` (`FAMILIES`); class names beside the file become facts of the graph.

    Raises:
        ConfigError: unknown pixels, or none where they cannot be told.
    """
    config = _beside(graph, "config.json") if name in ("detr-sigmoid", "detr-softmax") else {}
    if isinstance(config.get("id2label"), dict):
        named = sorted((int(label), str(text)) for label, text in config["id2label"].items())
        graph.facts.setdefault("names", repr(distinct(text for _, text in named)))
    kind = config.get("model_type")
    fixed = name == "detr-softmax" or (kind in SIGMOID and not config.get("two_stage", False))
    text = spec.options.get("pixels")
    stored = _beside(graph, "preprocessor_config.json") if config else {}
    if text is None and stored:
        normal = bool(stored.get("do_normalize", True))
        mean, deviation = stored.get("image_mean", _IMAGENET[0]), stored.get("image_std", _IMAGENET[1])
        return QueryDecoder(
            name, mean=mean if normal else _UNIT[0], deviation=deviation if normal else _UNIT[1], fixed=fixed
        )
    text = FAMILIES[name].pixels if text is None else text
    if text is None:
        raise ConfigError(
            f"onnx: cannot tell which numbers {graph.path} takes; give pixels=unit (0 to 1: RT-DETR, D-FINE) "
            "or pixels=imagenet (normalised: Conditional and Deformable DETR, RF-DETR, LW-DETR), or put the "
            "model's config.json and preprocessor_config.json beside the file"
        )
    require(text in _PIXELS, f"onnx: expected pixels=unit or pixels=imagenet, got {text!r}")
    mean, deviation = _PIXELS[text]
    return QueryDecoder(name, mean=mean, deviation=deviation, fixed=fixed)


def _beside(graph: OnnxGraph, name: str) -> dict[str, Any]:
    """A JSON object in the file `name` beside the model; empty where there is none."""
    path = graph.path.parent / name
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"onnx: expected JSON in {path}, beside the model ({error})") from error
    return found if isinstance(found, dict) else {}
