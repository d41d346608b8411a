"""Vectors of boxes from a network of their own, beside or instead of the detector's.

In: a backbone that looks at whole images, prepared images with their pins, boxes. Out: the views object (mean
over the box), context (the ring between the box and the box enlarged twice) and image. The picture is cut out
of the detector's input and brought to the backbone's side; one look serves all boxes of an image.

A view is the levels' means, each of length 1, joined.

One look sees a box with its surroundings, since deep cells look far. `crops=SIDE` looks at every box alone,
which costs a look each and tells classes apart better (P@5 of the same class, ground truth boxes of voc100,
MobileNet V1: .42 from one look, .50 from crops of 128 px); context and image come from the one look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from curator.config import require
from curator.detect.base import FeatureMap
from curator.registry import Spec
from curator.represent.embedders.base import REGION
from curator.represent.embedders.pooling import (
    Places,
    array,
    image_frames,
    mask_boxes,
    mask_mean,
    place_means,
)
from store.keys import content_key
from store.records import Floats, Pin

_CROPS = 64  # looked at together
VERSION = 1  # of the vectors; it enters the fingerprint


@dataclass(frozen=True, slots=True)
class Look:
    """What a backbone saw in a batch.

    Attributes:
        maps: level -> map, fine to coarse.
        image: (B, D) vector of the whole image where the network has one; else the maps' means serve.
    """

    maps: Mapping[str, FeatureMap]
    image: Tensor | None = None


class Backbone(Protocol):
    """A network that looks at whole images.

    Attributes:
        name: short name, for prefixes. fingerprint: of architecture, weights and pixels.
        step: sides of its input are multiples of it. square: it takes squares only.
    """

    name: str
    step: int
    square: bool

    @property
    def fingerprint(self) -> str:
        """See above."""

    def to(self, device: torch.device) -> object:
        """Move to a device."""

    def look(self, x: Tensor) -> Look:
        """Images x (B, 3, h, w) RGB [0, 1], sides multiples of `step`."""


class BackboneEmbedder:
    """An `Embedder` over a backbone.

    Args:
        side: longer side in px to which pictures are brought, their aspect kept (but for square backbones).
        crops: side in px of the crops from which "object" is made; 0 makes it from the one look.
    """

    levels: tuple[str, ...] = ()

    def __init__(self, backbone: Backbone, *, side: int, crops: int = 0) -> None:
        self.backbone = backbone
        self.side = max(backbone.step, round(side / backbone.step) * backbone.step)
        self.crops = -(-crops // backbone.step) * backbone.step
        self.name = backbone.name
        self._device = torch.device("cpu")

    @property
    def views(self) -> Mapping[str, int]:
        """Box view -> dimension."""
        return {view: size for view, size in self._sizes.items() if view not in self._of_images()}

    @property
    def image_views(self) -> Mapping[str, int]:
        """View of the whole image -> dimension."""
        return {view: size for view, size in self._sizes.items() if view in self._of_images()}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the backbone and of what is taken from it."""
        return content_key("backbone", VERSION, self.backbone.fingerprint, self.side, self.crops)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """View -> dimension, from one look at a grey image."""
        size = (self.side, self.side)
        pin = Pin(image_size=size, input_size=size, scale=(1.0, 1.0))
        u = torch.full((1, 3, *size), 0.5, device=self._device)
        found = self.embed(u, [pin], [np.array([[0, 0, *size]], np.float32)])[0]
        return {view: values.shape[1] for view, values in found.items()}

    @torch.inference_mode()
    def embed(
        self,
        u: Tensor,
        pins: Sequence[Pin],
        boxes: Sequence[NDArray[np.float32]],
        *,
        masks: Sequence[NDArray[np.float32]] | None = None,
        features: Mapping[str, FeatureMap] | None = None,
    ) -> list[dict[str, Floats]]:
        """See `Embedder.embed`; pictures that come to one size are looked at together."""
        if u.device != self._device:
            self._device = u.device
            self.backbone.to(u.device)
        by_size: dict[tuple[int, int], list[int]] = {}
        for i, pin in enumerate(pins):
            by_size.setdefault(self._target(pin), []).append(i)
        result: list[dict[str, Floats]] = [{} for _ in pins]
        for size, members in by_size.items():
            x = torch.cat([cut(u[i], pins[i], size) for i in members])
            own = [_pin(pins[i], size) for i in members]
            looked = self.backbone.look(x)
            views = self._views(looked, own, [boxes[i] for i in members], x)
            for k, i in enumerate(members):
                result[i] = views[k]
                if masks is not None:
                    density = torch.from_numpy(np.ascontiguousarray(masks[i], dtype=np.float32)).to(x)
                    result[i][REGION] = self._region(looked, k, density, size, _grid_part(pins[i], size))
        for i, pin in enumerate(pins):
            self._look_at_boxes(u[i], pin, boxes[i], None if masks is None else masks[i], result[i])
        return result

    def _region(
        self,
        looked: Look,
        k: int,
        density: Tensor,
        size: tuple[int, int],
        part: tuple[float, float, float, float],
    ) -> Floats:
        """Means of picture k weighted by densities (R, a, b) -> (R, D), laid out like "object"."""
        means = [
            unit(mask_mean(level, level.values[k : k + 1].float(), density, size, part))
            for level in looked.maps.values()
        ]
        return array(torch.cat(means, -1))

    def _look_at_boxes(
        self,
        u: Tensor,
        pin: Pin,
        boxes: NDArray[np.float32],
        masks: NDArray[np.float32] | None,
        views: dict[str, Floats],
    ) -> None:
        """Where crops are asked for, "object" from a look at each box, "region" at each density's box."""
        if not self.crops:
            return

        def seen(x: Tensor) -> Tensor:
            maps = self.backbone.look(x).maps.values()
            return torch.cat([unit(level.values.float().mean((2, 3))) for level in maps], -1)

        width = views["context"].shape[1]
        views["object"] = by_crops(u, pin, pin.to_input(boxes), self.crops, seen, width)
        if masks is not None:
            density = torch.from_numpy(np.ascontiguousarray(masks, dtype=np.float32)).to(u)
            views[REGION] = by_crops(u, pin, array(mask_boxes(density, u.shape)), self.crops, seen, width)

    def _views(
        self, looked: Look, pins: Sequence[Pin], boxes: Sequence[NDArray[np.float32]], x: Tensor
    ) -> list[dict[str, Floats]]:
        """All views of pictures of one size."""
        places = Places.of(pins, boxes, x)
        means = torch.cat(
            [unit(place_means(level, level.values.float(), places)) for level in looked.maps.values()], -1
        )  # (B, 2N + 1, D)
        count = places.inner.shape[1]
        described = array(means)
        whole = described[:, -1:] if looked.image is None else array(unit(looked.image)[:, None])
        return [
            {"object": described[k, :own], "context": described[k, count : count + own], "image": whole[k]}
            for k, own in enumerate(places.counts)
        ]

    def _of_images(self) -> tuple[str, ...]:
        return ("image",)

    def _target(self, pin: Pin) -> tuple[int, int]:
        """(h, w) to which a picture is brought."""
        if self.backbone.square:
            return self.side, self.side
        step, most = self.backbone.step, max(pin.image_size)
        height, width = (max(step, round(self.side * own / most / step) * step) for own in pin.image_size)
        return height, width


def by_crops(
    u: Tensor,
    pin: Pin,
    boxes: NDArray[np.float32],
    side: int,
    see: Callable[[Tensor], Tensor],
    width: int,
) -> Floats:
    """Look at boxes one by one; what of a box lies beyond the image is left out.

    Args:
        u: (3, h, w) of the pin. boxes: (N, 4) in the input frame. side: of the square crops, px.
        see: crops (n, 3, side, side) RGB [0, 1] -> (n, width).
    Returns:
        (N, width).
    """
    if not len(boxes):
        return np.zeros((0, width), np.float32)
    picture, (x, y) = _picture(u, pin)
    most = np.array([picture.shape[-1], picture.shape[-2]] * 2, np.float32)
    inside = torch.from_numpy(np.clip(boxes - np.array([x, y, x, y], np.float32), 0, most)).to(u)
    parts = [
        see(roi_align(picture, [some], side, aligned=True).clamp(0, 1))
        for some in torch.split(inside, _CROPS)
    ]
    return array(torch.cat(parts))


def whole(spec: Spec, option: str, default: int, *, least: int = 1) -> int:
    """An option that is a whole number.

    Raises:
        ConfigError: it is none, or less than `least`.
    """
    text = spec.options.get(option, str(default))
    require(
        text.isdecimal() and int(text) >= least,
        f"embedder {spec.text!r}: {option}: expected a whole number from {least}, got {text!r}",
    )
    return int(text)


def unit(values: Tensor) -> Tensor:
    return F.normalize(values.float(), dim=-1)


def _pin(pin: Pin, size: tuple[int, int]) -> Pin:
    """How the stored image lies in its picture of (h, w): it fills it."""
    height, width = pin.image_size
    return Pin(image_size=pin.image_size, input_size=size, scale=(size[1] / width, size[0] / height))


def cut(u: Tensor, pin: Pin, size: tuple[int, int]) -> Tensor:
    """The picture within an input (3, h, w), without its padding, at another size -> (1, 3, *size)."""
    picture, _ = _picture(u, pin)
    if tuple(picture.shape[-2:]) == size:
        return picture
    resized = F.interpolate(picture, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0, 1)


def _picture(u: Tensor, pin: Pin) -> tuple[Tensor, tuple[int, int]]:
    """The picture within an input (3, h, w) -> (1, 3, h', w'), and its first column and row."""
    x1, y1, x2, y2 = (round(float(value)) for value in image_frames([pin])[0])
    x1, y1 = max(0, x1), max(0, y1)
    return u[None, :, y1 : max(y1 + 1, y2), x1 : max(x1 + 1, x2)], (x1, y1)


def _grid_part(pin: Pin, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where the input frame, over which a density's grid lies, is in the picture of (h, w)."""
    h, w = pin.input_size
    x1, y1, x2, y2 = (float(v) for v in pin.to_image(np.array([0.0, 0.0, w, h])))
    across, down = size[1] / pin.image_size[1], size[0] / pin.image_size[0]
    return x1 * across, y1 * down, x2 * across, y2 * down
