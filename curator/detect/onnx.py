"""Exported detectors: `onnx:PATH?decode=yolox|nanodet` through onnx2pytorch, so that gradients flow.

In: an ONNX file with a fixed input size. Out: a `Detector`. A candidate is one grid cell's prediction, by
level, row, column. The whole network runs in fp32, under autocast too.

Options:
    decode     yolox or nanodet, required
    classes    PATH of a text file with a name per line, or names comma-separated; COCO's 80 by default
    nms_iou    NMS threshold (the decoder's own)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curator.config import require
from curator.detect.base import Candidates, FeatureMap
from curator.detect.coco_classes import COCO_CLASSES
from curator.detect.decoding import Decoder
from curator.detect.nanodet import NanodetDecoder
from curator.detect.onnx_graph import OnnxGraph, check_batches, run
from curator.detect.postprocess import suppress
from curator.detect.yolox import YoloxDecoder
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from store.keys import content_key
from store.records import Detections, Pin

_DECODERS: dict[str, Callable[[], Decoder]] = {"yolox": YoloxDecoder, "nanodet": NanodetDecoder}
TOP_K = 400  # candidates per class that enter NMS
TOTAL = 3000  # candidates of all classes that enter NMS
DETECTIONS = 300  # detections per image


class OnnxDetector:
    """A converted ONNX network behind the `Detector` protocol."""

    plain_pin = True

    def __init__(
        self,
        network: nn.Module,
        decoder: Decoder,
        classes: Sequence[str],
        *,
        input_size: tuple[int, int],
        own_outputs: int,
        nms_iou: float,
        fingerprint: str,
        spec: str,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.decoder = decoder
        self.classes = tuple(classes)
        self.fingerprint = fingerprint
        self.spec = spec
        self.levels = tuple(f"level{number}" for number in range(len(decoder.strides)))
        self.mean_color = decoder.mean_color
        self.input_size = input_size
        self.device = torch.device("cpu")
        self._own_outputs = own_outputs
        self._nms_iou = nms_iou

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def modules(self) -> nn.Module:
        """The converted network."""
        return self.network

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W)."""
        return self.decoder.pin((int(image.shape[-2]), int(image.shape[-1])), self.input_size)

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1]: resized, then padded right and below."""
        size = (round(pin.image_size[0] * pin.scale[1]), round(pin.image_size[1] * pin.scale[0]))
        image = image.to(self.device)
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        h, w = pin.input_size
        return F.pad(image, (0, w - size[1], 0, h - size[0]), value=self.decoder.padding)

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS; see `Detector.predict`."""
        if not images:
            return []
        pins = [self.pin(image) for image in images]
        batch = torch.stack([self.prepare(image, pin) for image, pin in zip(images, pins, strict=True)])
        outputs = run(self.network, self.decoder.normalise(batch))
        decoded = self.decoder.decode(outputs[: self._own_outputs], None, self.input_size)
        scores = decoded.scores
        if self.decoder.single_label:
            scores = torch.where(scores == scores.amax(-1, keepdim=True), scores, 0.0)
        return [
            (
                suppress(
                    scores[i],
                    _clip(decoded.boxes[i], pin),
                    pin,
                    score_threshold=score_threshold,
                    iou_threshold=self._nms_iou,
                    top_k=TOP_K,
                    limit=DETECTIONS,
                    total=TOTAL,
                ),
                pin,
            )
            for i, pin in enumerate(pins)
        ]

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Candidates of masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`."""
        if index is None and len(u) != 1:
            raise InputError(f"candidates: expected one input or an index, got {len(u)} inputs and none")
        for name in levels:
            if name not in self.levels:
                raise InputError(f"levels: expected some of {', '.join(self.levels)}, got {name!r}")
        outputs = run(self.network, self.decoder.normalise(u))
        if index is not None:
            index = index.to(u.device)
        decoded = self.decoder.decode(outputs[: self._own_outputs], index, self.input_size)
        scale, offset = (decoded.boxes.new_tensor(pair).repeat(2) for pair in (pin.scale, pin.offset))
        return Candidates(
            decoded.scores,
            decoded.log_odds,
            (_clip(decoded.boxes, pin) - offset) / scale,
            {name: self._feature(outputs, self.levels.index(name)) for name in levels},
        )

    def _feature(self, outputs: Sequence[Tensor], level: int) -> FeatureMap:
        """A cell lies where the boxes that it predicts are centred by default."""
        stride = float(self.decoder.strides[level])
        return FeatureMap(outputs[self._own_outputs + level], (stride, stride), (stride / 2, stride / 2))


def build(spec: Spec) -> OnnxDetector:
    """Load, convert and check an ONNX detector.

    Raises:
        ConfigError, InputError: unknown decoder, a file or classes that do not fit.
    """
    spec.only(("decode", "classes", "nms_iou"))
    name = spec.options.get("decode")
    require(
        name in _DECODERS,
        f"onnx: expected decode={' or decode='.join(_DECODERS)}, as in "
        f"onnx:model.onnx?decode=yolox, got {name!r}",
    )
    decoder = _DECODERS[str(name)]()
    path = Path(spec.name)
    graph = OnnxGraph(path)
    own_outputs = len(graph.outputs)
    network = graph.to_torch(decoder.level_values(graph))
    check_batches(network, graph.input_size, spec.name)
    with torch.inference_mode():
        count = decoder.classes(graph, run(network, torch.zeros(1, 3, *graph.input_size))[:own_outputs])
    classes = _classes(spec.options.get("classes"))
    require(
        len(classes) == count,
        f"onnx: {spec.name} has {count} classes, got {len(classes)} names; give "
        f"classes=PATH or classes=a,b,...",
    )
    try:
        nms_iou = float(spec.options.get("nms_iou", decoder.nms_iou))
    except ValueError as error:
        raise ConfigError(f"nms_iou: expected a number, got {spec.options['nms_iou']!r}") from error
    fingerprint = content_key("onnx", name, hashlib.sha256(path.read_bytes()).hexdigest(), classes, nms_iou)
    return OnnxDetector(
        network,
        decoder,
        classes,
        input_size=graph.input_size,
        own_outputs=own_outputs,
        nms_iou=nms_iou,
        fingerprint=fingerprint,
        spec=spec.text,
    )


def _classes(text: str | None) -> tuple[str, ...]:
    if text is None:
        return COCO_CLASSES
    path = Path(text)
    if path.is_file():
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _clip(boxes: Tensor, pin: Pin) -> Tensor:
    """Clip boxes (..., 4) of the input frame to the part of it that the image covers."""
    (height, width), (x, y), (ox, oy) = pin.image_size, pin.scale, pin.offset
    low = boxes.new_tensor([ox, oy, ox, oy])
    high = boxes.new_tensor([ox + width * x, oy + height * y, ox + width * x, oy + height * y])
    return boxes.maximum(low).minimum(high)
