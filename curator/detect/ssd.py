"""The SSD family as a `Detector`: torchvision's `SSD` with any backbone (Liu et al., ECCV 2016).

In: stored images RGB [0, 1]. Out: detections with their anchor's index, candidates with gradients, losses.
A candidate is a default box (anchor); its score for class c is softmax(logits)[c], background left out.
torchvision normalises, then resizes; here an image is resized first and normalised inside `candidates`, so
that masked inputs live in RGB [0, 1]; both steps are linear, so the result is equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from curator.detect.base import Candidates, FeatureMap
from curator.detect.checking import check_asked
from curator.detect.geometry import Affine, cell_affines
from curator.detect.postprocess import softmax_log_odds, suppress
from curator.detect.ssd_loss import multibox_loss
from curator.detect.torchvision_network import TorchvisionNetwork
from curator.errors import InputError
from store.records import Detections, Pin


class SsdDetector(TorchvisionNetwork):
    """A torchvision `SSD` behind the `Detector` and `TrainableDetector` protocols."""

    network: SSD
    plain_pin = True

    def __init__(
        self, network: SSD, classes: Sequence[str], *, description: Mapping[str, Any], spec: str
    ) -> None:
        super().__init__(network, classes, description=description, spec=spec)
        width, height = network.transform.fixed_size
        self.input_size: tuple[int, int] = (int(height), int(width))
        sizes, affines = self._measure()
        self.levels = tuple(f"level{number}" for number in range(len(sizes)))
        self._affines = [affines.get(size) or self._uniform(size) for size in sizes]
        self._anchors = self._make_anchors(sizes)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        super().to(device)
        self._anchors = self._anchors.to(self.device)
        return self

    # ------------------------------------------------------------ inference

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W): SSD stretches every image to one size."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        h, w = self.input_size
        return Pin(image_size=(height, width), input_size=(h, w), scale=(w / width, h / height))

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1], bilinear as `GeneralizedRCNNTransform` does it."""
        image = image.to(self.device)
        if tuple(image.shape[-2:]) == pin.input_size:
            return image
        return F.interpolate(image[None], size=pin.input_size, mode="bilinear", align_corners=False)[0]

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS; see `Detector.predict`."""
        if not images:
            return []
        pins = [self.pin(image) for image in images]
        batch = torch.stack([self.prepare(image, pin) for image, pin in zip(images, pins, strict=True)])
        logits, deltas = self._heads(self._features(batch))
        scores = logits.softmax(-1)[..., 1:]
        boxes = self._decode(deltas, self._anchors)
        return [
            (
                suppress(
                    scores[i],
                    boxes[i],
                    pin,
                    score_threshold=score_threshold,
                    iou_threshold=self.network.nms_thresh,
                    top_k=self.network.topk_candidates,
                    limit=self.network.detections_per_img,
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
        maps = self._features(u)
        named = {
            name: FeatureMap(maps[self._level(name)], *_columns(self._affines[self._level(name)]))
            for name in levels
        }
        if index is not None and index.numel() == 0:
            none = u.new_zeros((len(u), 0, len(self.classes)), dtype=torch.float32)
            return Candidates(none, none, none.new_zeros((len(u), 0, 4)), named)
        logits, deltas = self._heads(maps)
        anchors = self._anchors
        if index is not None:
            index = index.to(logits.device)
            logits, deltas, anchors = logits[:, index], deltas[:, index], anchors[index]
        boxes = self._decode(deltas, anchors)
        scale = boxes.new_tensor(pin.scale).repeat(2)
        offset = boxes.new_tensor(pin.offset).repeat(2)
        return Candidates(
            logits.softmax(-1)[..., 1:], softmax_log_odds(logits)[..., 1:], (boxes - offset) / scale, named
        )

    # ------------------------------------------------------------ training

    def loss(self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Multibox losses in train mode; images without objects count (see `ssd_loss`).

        Raises:
            InputError: a box without area, or a label outside the classes.
        """
        prepared, boxes, labels = [], [], []
        for number, (image, (box, label)) in enumerate(zip(images, targets, strict=True)):
            self._check_target(number, box, label)
            pin = self.pin(image)
            prepared.append(self.prepare(image, pin))
            scale = torch.tensor(pin.scale, dtype=torch.float32, device=self.device).repeat(2)
            boxes.append(box.to(self.device, torch.float32) * scale)
            labels.append(label.to(self.device) + 1)
        self.network.train()
        try:
            logits, deltas = self._heads(self._features(torch.stack(prepared)))
        finally:
            self.network.eval()
        return multibox_loss(self.network, logits, deltas, self._anchors, boxes, labels)

    # ------------------------------------------------------------ the network's parts

    def _features(self, u: Tensor) -> list[Tensor]:
        return list(self.network.backbone(self._normalised(u)).values())

    def _heads(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Feature maps -> logits (B, A, 1 + K) and box deltas (B, A, 4), in fp32 even under autocast."""
        with torch.autocast(self.device.type, enabled=False):
            out = self.network.head([values.float() for values in maps])
        return out["cls_logits"], out["bbox_regression"]

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (B, q, 4) of anchors (q, 4) -> boxes (B, q, 4), clipped to the input."""
        count = deltas.shape[1]
        anchors = anchors.expand(len(deltas), count, 4).reshape(-1, 4)
        boxes: Tensor = self.network.box_coder.decode_single(deltas.reshape(-1, 4), anchors)
        boxes = boxes.view(-1, count, 4)
        h, w = self.input_size
        return boxes.clamp(min=0).minimum(boxes.new_tensor([w, h, w, h]))

    def _level(self, name: str) -> int:
        return self.levels.index(name)

    def _measure(self) -> tuple[list[tuple[int, int]], dict[tuple[int, int], Affine]]:
        sizes: list[tuple[int, int]] = []

        def run(sample: Tensor) -> None:
            sizes.extend((int(m.shape[-2]), int(m.shape[-1])) for m in self._features(sample))

        return sizes, cell_affines(self.network.backbone, run, torch.zeros(1, 3, *self.input_size))

    def _uniform(self, size: tuple[int, int]) -> Affine:
        step_x, step_y = self.input_size[1] / size[1], self.input_size[0] / size[0]
        return ((step_x, step_x / 2), (step_y, step_y / 2))

    def _make_anchors(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        blank = ImageList(torch.zeros(1, 3, *self.input_size), [self.input_size])
        maps = [torch.zeros(1, 1, *size) for size in sizes]
        anchors: Tensor = self.network.anchor_generator(blank, maps)[0]
        return anchors

    def _check_target(self, number: int, boxes: Tensor, labels: Tensor) -> None:
        if boxes.shape != (len(labels), 4):
            raise InputError(
                f"loss: image {number}: expected boxes ({len(labels)}, 4), got {tuple(boxes.shape)}"
            )
        if bool((boxes[:, 2:] <= boxes[:, :2]).any()):
            raise InputError(f"loss: image {number} has a box without area; drop it before training")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise InputError(
                f"loss: image {number}: expected labels 0 to {len(self.classes) - 1}, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )


def _columns(affine: Affine) -> tuple[tuple[float, float], tuple[float, float]]:
    """((step x, first x), (step y, first y)) -> scale (x, y) and offset (x, y)."""
    array = np.asarray(affine)
    return (float(array[0, 0]), float(array[1, 0])), (float(array[0, 1]), float(array[1, 1]))
