"""Exported detectors: `onnx:PATH` through onnx2pytorch, so that gradients flow.

In: an ONNX file. Out: a `Detector`. A candidate is one grid cell's prediction, by level, row, column (with
anchors: by level, anchor, row, column), or a query. The whole network runs in fp32, under autocast too.

Options:
    decode     how its outputs are read: yolo, yolov5, yolo-end2end, yolox, nanodet, yolox-decoded, or one of
               queries (onnx_queries.FAMILIES); by default what the file's metadata, the names and shapes of
               its outputs and the way they are computed say (`recognise`)
    pixels     unit or imagenet, of those with queries (onnx_queries.py)
    classes    PATH of a text file with a name per line, or names comma-separated; by default those in the
               file's metadata, or COCO's 80
    nms_iou    NMS threshold (the decoder's own)
    size       input size (640, or 384x640: height x width) where the file leaves it open
    run        torch, or onnxruntime where a file cannot be converted: a black box then, without gradients
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from curator.config import require
from curator.detect.base import Candidates, FeatureMap
from curator.detect.black_box import BlackBox
from curator.detect.checking import check_asked
from curator.detect.coco_classes import COCO_CLASSES
from curator.detect.decoding import Decoder, computed, source
from curator.detect.letterbox import LAYOUT, choose, place
from curator.detect.nanodet import NanodetDecoder, joined_heads
from curator.detect.onnx_graph import OnnxGraph, check_batches, run
from curator.detect.onnx_queries import FAMILIES, OneByOne, QueryDecoder, make_decoder
from curator.detect.onnx_queries import recognise as recognise_queries
from curator.detect.onnx_session import Session
from curator.detect.pyramid import clip_to_picture, to_image
from curator.detect.yolo import (
    ANCHORS,
    STRIDES,
    YoloDecoder,
    YoloEndToEndDecoder,
    Yolov5Decoder,
    cell_count,
)
from curator.detect.yolox import YoloxDecodedDecoder, YoloxDecoder, decoded_join
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from store.keys import content_key
from store.records import Detections, Pin

DECODERS: dict[str, Callable[[], Decoder]] = {
    "yolo": YoloDecoder,
    "yolov5": Yolov5Decoder,
    "yolo-end2end": YoloEndToEndDecoder,
    "yolox": YoloxDecoder,
    "nanodet": NanodetDecoder,
    "yolox-decoded": YoloxDecodedDecoder,
}
_ENGINES = ("torch", "onnxruntime")


class OnnxDetector:
    """A converted ONNX network behind the `Detector` protocol."""

    plain_pin = True
    read_as = ""

    def __init__(
        self,
        network: nn.Module,
        decoder: Decoder,
        classes: Sequence[str],
        *,
        input_size: tuple[int, int],
        levels: Sequence[int],
        nms_iou: float,
        fingerprint: str,
        spec: str,
        beside: Sequence[Path] = (),
    ) -> None:
        """Take what `build` has made.

        Args:
            beside: files with weights that the spec does not name.
        """
        self._beside = {path: _state(path) for path in beside}
        self.network = network.eval().requires_grad_(False)
        self.decoder = decoder
        self.classes = tuple(classes)
        self.fingerprint = fingerprint
        self.spec = spec
        self.levels = tuple(f"level{number}" for number in range(len(levels)))
        self.mean_color = decoder.mean_color
        self.fixed_candidates = decoder.fixed
        self.input_size = input_size
        self.device = torch.device("cpu")
        self._levels = tuple(levels)
        self._nms_iou = nms_iou

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def changed(self) -> bool:
        """Whether weights that lie beside the file are others than when this was built."""
        return any(_state(path) != state for path, state in self._beside.items())

    def modules(self) -> nn.Module:
        """The converted network."""
        return self.network

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W)."""
        return self.decoder.pin((int(image.shape[-2]), int(image.shape[-1])), self.input_size)

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1]: resized, then padded."""
        return place(image.to(self.device), pin, self.decoder.padding, antialias=self.decoder.antialias)

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS; see `Detector.predict`."""
        if not images:
            return []
        pins = [self.pin(image) for image in images]
        batch = torch.stack([self.prepare(image, pin) for image, pin in zip(images, pins, strict=True)])
        outputs = run(self.network, self.decoder.normalise(batch))
        decoded = self.decoder.decode(self._own(outputs), None, self.input_size)
        return [
            (
                choose(
                    decoded.scores[i],
                    decoded.boxes[i],
                    pin,
                    score_threshold=score_threshold,
                    nms_iou=self._nms_iou,
                    top_k=self.decoder.top_k,
                    single_label=self.decoder.single_label,
                    clips_last=self.decoder.clips_last,
                ),
                pin,
            )
            for i, pin in enumerate(pins)
        ]

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Candidates of masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`."""
        check_asked(u, index, levels, self.levels)
        outputs = run(self.network, self.decoder.normalise(u))
        if index is not None:
            index = index.to(u.device)
        decoded = self.decoder.decode(self._own(outputs), index, self.input_size)
        return Candidates(
            decoded.scores,
            decoded.log_odds,
            to_image(clip_to_picture(decoded.boxes, pin), pin),
            {name: self._feature(outputs, self.levels.index(name)) for name in levels},
        )

    def _own(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """What the decoder reads: the model's outputs and its own extra values."""
        return [value for place, value in enumerate(outputs) if place not in self._levels]

    def _feature(self, outputs: Sequence[Tensor], level: int) -> FeatureMap:
        """A cell lies where the boxes that it predicts are centred by default."""
        stride = float(self.decoder.strides[level])
        offset = stride * float(getattr(self.decoder, "centre", 0.5))
        return FeatureMap(outputs[self._levels[level]], (stride, stride), (offset, offset))


def build(spec: Spec) -> OnnxDetector | BlackBox:
    """Load, convert and check an ONNX detector; with `run=onnxruntime` a black box.

    Raises:
        ConfigError, InputError: unknown decoder, a file or classes that do not fit.
    """
    spec.only(("decode", "classes", "nms_iou", "size", "pixels", "run"))
    engine = spec.options.get("run", "torch")
    require(engine in _ENGINES, f"onnx: expected run=torch or run=onnxruntime, got {engine!r}")
    name = spec.options.get("decode", "auto")
    require(
        name in (*DECODERS, *FAMILIES, "auto"),
        f"onnx: expected decode=auto or one of {', '.join([*DECODERS, *FAMILIES])}, as in "
        f"onnx:model.onnx?decode=yolox, got {name!r}",
    )
    path = Path(spec.name)
    graph = OnnxGraph(path, _size(spec.options.get("size")))
    name = recognise(graph) if name == "auto" else name
    require(
        name in FAMILIES or "pixels" not in spec.options,
        f"onnx: pixels= is known of {', '.join(FAMILIES)} alone, got it for {name}",
    )
    decoder = make_decoder(name, graph, spec) if name in FAMILIES else DECODERS[name]()
    levels = decoder.level_values(graph)
    own = len(graph.outputs)
    extra = decoder.extra_values(graph)
    if engine == "onnxruntime":
        levels = []
        network: nn.Module = Session(graph.model, extra, graph.path)
    else:
        network = _in_torch(graph, [*levels, *extra], name)
    with torch.inference_mode():
        count = decoder.classes(graph, run(network, torch.zeros(1, 3, *graph.input_size))[:own])
    classes = _classes(spec.options.get("classes"), graph.facts.get("names"), count)
    require(
        len(classes) == count,
        f"onnx: {spec.name} has {count} classes, got {len(classes)} names; give "
        f"classes=PATH or classes=a,b,...",
    )
    try:
        nms_iou = float(spec.options.get("nms_iou", decoder.nms_iou))
    except ValueError as error:
        raise ConfigError(f"nms_iou: expected a number, got {spec.options['nms_iou']!r}") from error
    parts = ("onnx", name, _sha256(graph.path), classes, nms_iou)
    more: list[object] = [_sha256(file) for file in graph.files[1:]]
    more += [graph.input_size] if "size" in spec.options else []
    more += [decoder.frame] if isinstance(decoder, QueryDecoder) else []
    more += [LAYOUT] if isinstance(decoder, YoloDecoder) else []
    detector = OnnxDetector(
        network,
        decoder,
        classes,
        input_size=graph.input_size,
        levels=range(own, own + len(levels)),
        nms_iou=nms_iou,
        fingerprint=content_key(*parts, *more),
        spec=spec.text,
        beside=graph.files[1:],
    )
    made = BlackBox.of(detector, spec=spec.text) if engine == "onnxruntime" else detector
    made.read_as = f"{name} of {graph.input_size[1]} x {graph.input_size[0]} pixels"
    return made


def _state(path: Path) -> tuple[int, int] | None:
    status = path.stat() if path.is_file() else None
    return None if status is None else (status.st_size, status.st_mtime_ns)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def recognise(graph: OnnxGraph) -> str:
    """The decoder that fits a file, by its metadata, the shapes of its outputs and how they are computed.

    Raises:
        InputError: it is no detector, or none fits.
    """
    task = graph.facts.get("task", "detect")
    if task != "detect":
        raise InputError(f"onnx: expected a detector, got a model for the task {task!r} in {graph.path}")
    queries = recognise_queries(graph)
    if queries is not None:
        return queries
    shapes = [graph.shape(name) for name in graph.outputs]
    if joined_heads(graph):
        return "nanodet"
    if len(shapes) == 1 and len(shapes[0]) == 3:
        _, rows, columns = shapes[0]
        counts = {cell_count(strides, graph.input_size): strides for strides in STRIDES}
        if columns in counts and rows > 4:
            return "yolo"
        if columns == 6 and (graph.facts.get("end2end") == "True" or rows not in counts):
            return "yolo-end2end"
        if columns > 5 and rows in counts:
            if _raw(graph, len(counts[rows])):
                return "yolox"
            if decoded_join(graph, len(counts[rows])) is not None:
                return "yolox-decoded"
        heads = {*counts, *(ANCHORS * count for count in counts)}
        if columns > 5 and rows in heads and computed(graph, graph.outputs[0]):
            return "yolov5"
    levels = len(NanodetDecoder.strides)
    if len(shapes) == 2 * levels and all(len(shape) == 3 for shape in shapes):
        return "nanodet"
    raise InputError(
        f"onnx: cannot tell how the outputs {shapes} of {graph.path} are to be read; give decode= one of "
        f"{', '.join([*DECODERS, *FAMILIES])}, or wrap the model as python:module:function"
    )


def _in_torch(graph: OnnxGraph, inner: Sequence[str], name: str) -> nn.Module:
    """The network, checked; one of queries that was exported for a single image runs image by image.

    Raises:
        InputError: it cannot be converted (`onnx_graph.converted`), or see `check_batches`.
    """
    try:
        network = graph.to_torch(inner)
        try:
            check_batches(network, graph.input_size, str(graph.path))
        except InputError:
            if name not in FAMILIES:
                raise
            network = OneByOne(network)
            check_batches(network, graph.input_size, str(graph.path))
    except InputError as error:
        raise InputError(f"{error}; or give run=onnxruntime, to use it by its predictions alone") from error
    return network


def _raw(graph: OnnxGraph, levels: int) -> bool:
    """True where the output is the levels side by side and their boxes are what convolutions give: nothing is
    decoded in the network."""
    node = source(graph, graph.outputs[0])
    if node is None or node.op_type != "Concat" or len(node.input) != levels:
        return False
    heads = [source(graph, value) for value in node.input]
    boxes = [source(graph, head.input[0]) for head in heads if head is not None and head.op_type == "Concat"]
    return len(boxes) == levels and all(box is not None and box.op_type == "Conv" for box in boxes)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(f"onnx: expected size=640 or size=384x640 (height x width), got {text!r}")
    return int(parts[0]), int(parts[-1])


def _names(text: str) -> tuple[str, ...]:
    """Names in a file's metadata: {0: 'person', 1: 'car'} or a list."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ()
    if isinstance(found, dict):
        found = [found[number] for number in sorted(found)]
    return tuple(str(name) for name in found) if isinstance(found, list | tuple) else ()


def _classes(text: str | None, known: str | None, count: int) -> tuple[str, ...]:
    if text is None:
        names = _names(known) if known else ()
        return names if len(names) == count else COCO_CLASSES
    path = Path(text)
    if path.is_file():
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(name.strip() for name in text.split(",") if name.strip())
