"""What torchvision's RetinaNet, FCOS and Faster R-CNN share: their frame and feature pyramid.

In: stored images RGB [0, 1]. Out: inputs of the detector's size, feature levels.

torchvision normalises, resizes to a least and a greatest side (or to one fixed size) and pads every image of
a batch to the largest, so that batch mates change the result. Here an image is padded to its own next
multiple of 32 and nothing else: its result is that of torchvision on this image alone. Padding has the mean
colour, which normalises to torchvision's 0. Masked inputs live in RGB [0, 1]: resizing and normalising are
linear, so their order does not matter beyond rounding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from curator.detect.base import FeatureMap
from curator.detect.geometry import Affine, cell_affines
from curator.detect.torchvision_network import TorchvisionNetwork
from curator.errors import InputError
from store.records import Pin


class PyramidDetector(TorchvisionNetwork):
    """The half of the `Detector` protocol that does not depend on the heads."""

    pooled: ClassVar[frozenset[str]] = frozenset()  # maps that no score is read from

    def __init__(
        self, network: Any, classes: Sequence[str], *, description: Mapping[str, Any], spec: str
    ) -> None:
        super().__init__(network, classes, description=description, spec=spec)
        self._anchors: dict[tuple[int, int], Tensor] = {}
        self._affines = self._measure()
        self.levels = tuple(self._affines)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        super().to(device)
        self._anchors.clear()
        return self

    # ------------------------------------------------------------ the input frame

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W): where it lies in its padded input; no proposals yet."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        h, w = self._resized(height, width)
        step = self.network.transform.size_divisible
        return Pin(
            image_size=(height, width),
            input_size=(math.ceil(h / step) * step, math.ceil(w / step) * step),
            scale=(w / width, h / height),
        )

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1]: resized, then padded right and below."""
        image = image.to(self.device)
        size = self._resized(*pin.image_size)
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        if size == pin.input_size:
            return image
        padded = self._mean.expand(3, *pin.input_size).clone()
        padded[:, : size[0], : size[1]] = image
        return padded

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        transform = self.network.transform
        if transform.fixed_size is not None:
            return int(transform.fixed_size[1]), int(transform.fixed_size[0])
        scale = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))

    def _batches(self, images: Sequence[Tensor]) -> list[tuple[list[int], list[Pin], Tensor]]:
        """Images of one input size go together: (numbers, pins, inputs (B, 3, h, w))."""
        pins = [self.pin(image) for image in images]
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, pin in enumerate(pins):
            by_size[pin.input_size].append(number)
        return [
            (
                numbers,
                [pins[i] for i in numbers],
                torch.stack([self.prepare(images[i], pins[i]) for i in numbers]),
            )
            for numbers in by_size.values()
        ]

    def clone(self) -> Self:
        """An independent copy with equal weights and trainable parameters."""
        twin = super().clone()
        twin._anchors = {}
        return twin

    # ------------------------------------------------------------ features and anchors

    def _features(self, u: Tensor) -> dict[str, Tensor]:
        """u (B, 3, h, w) RGB [0, 1] -> maps by torchvision's names, fine to coarse."""
        maps: dict[str, Tensor] = self.network.backbone(self._normalised(u))
        return maps

    def _named(self, maps: Mapping[str, Tensor], levels: Sequence[str]) -> dict[str, FeatureMap]:
        found = list(maps.values())
        return {
            name: FeatureMap(found[self.levels.index(name)], *columns(self._affines[name])) for name in levels
        }

    def _measure(self) -> dict[str, Affine]:
        """Affine of each level, from one run on a small input (or the fixed one)."""
        size = self._resized(256, 256) if self.network.transform.fixed_size is not None else (256, 256)
        maps: dict[str, Tensor] = {}
        affines = cell_affines(
            self.network.backbone,
            lambda sample: maps.update(self._features(sample)),
            torch.zeros(1, 3, *size),
        )
        read = [values for name, values in maps.items() if name not in self.pooled]
        found: dict[str, Affine] = {}
        for number, values in enumerate(read):
            rows, columns_ = int(values.shape[-2]), int(values.shape[-1])
            x, y = size[1] / columns_, size[0] / rows
            found[f"level{number}"] = affines.get((rows, columns_)) or ((x, x / 2), (y, y / 2))
        return found

    def _grid(self, generator: nn.Module, size: tuple[int, int], maps: Sequence[Tensor]) -> Tensor:
        """Anchors (A, 4) of an input size; kept for the few sizes that a data set has."""
        if size not in self._anchors:
            if len(self._anchors) >= 8:
                self._anchors.clear()
            with torch.inference_mode(False):  # they are used with gradients too
                blank = ImageList(torch.empty(1, 3, *size, device=self.device), [size])
                self._anchors[size] = generator(blank, list(maps))[0]
        return self._anchors[size]

    # ------------------------------------------------------------ training

    def _training_batch(
        self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[int, int]], list[dict[str, Tensor]]]:
        """Inputs (B, 3, h, w) padded to one size, their sizes, and torchvision's targets (1-based labels).

        Raises:
            InputError: a box without area, or a label outside the classes.
        """
        pins = [self.pin(image) for image in images]
        height, width = (max(pin.input_size[axis] for pin in pins) for axis in (0, 1))
        batch = self._mean.expand(len(pins), 3, height, width).clone()
        wanted = []
        for i, (image, pin, (boxes, labels)) in enumerate(zip(images, pins, targets, strict=True)):
            check_target(i, boxes, labels, len(self.classes))
            h, w = pin.input_size
            batch[i, :, :h, :w] = self.prepare(image, pin)
            scale = torch.tensor(pin.scale, dtype=torch.float32, device=self.device).repeat(2)
            wanted.append(
                {"boxes": boxes.to(self.device, torch.float32) * scale, "labels": labels.to(self.device) + 1}
            )
        return batch, [self._resized(*pin.image_size) for pin in pins], wanted


def check_target(number: int, boxes: Tensor, labels: Tensor, classes: int) -> None:
    """Refuse a training target that no loss is defined for.

    Raises:
        InputError: shapes that do not agree, a box without area, or a label outside 0..classes - 1.
    """
    if boxes.shape != (len(labels), 4):
        raise InputError(f"loss: image {number}: expected boxes ({len(labels)}, 4), got {tuple(boxes.shape)}")
    if bool((boxes[:, 2:] <= boxes[:, :2]).any()):
        raise InputError(f"loss: image {number} has a box without area; drop it before training")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"loss: image {number}: expected labels 0 to {classes - 1}, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )


def clip_to_picture(boxes: Tensor, pin: Pin) -> Tensor:
    """Clip boxes (..., 4) of the input frame to the part of it that the image covers."""
    (height, width), (x, y), (ox, oy) = pin.image_size, pin.scale, pin.offset
    low = boxes.new_tensor([ox, oy, ox, oy])
    high = boxes.new_tensor([ox + width * x, oy + height * y, ox + width * x, oy + height * y])
    return boxes.maximum(low).minimum(high)


def to_image(boxes: Tensor, pin: Pin) -> Tensor:
    """Map boxes (..., 4) from the input frame to the stored image, differentiably."""
    scale, offset = (boxes.new_tensor(pair).repeat(2) for pair in (pin.scale, pin.offset))
    return (boxes - offset) / scale


def columns(affine: Affine) -> tuple[tuple[float, float], tuple[float, float]]:
    """((step x, first x), (step y, first y)) -> scale (x, y) and offset (x, y)."""
    array = np.asarray(affine)
    return (float(array[0, 0]), float(array[1, 0])), (float(array[0, 1]), float(array[1, 1]))
