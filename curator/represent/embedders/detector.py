"""Vectors of boxes from a detector's own features: `detector:?levels=NAME,NAME&dimension=N&views=...`.

In: prepared images u (B, 3, h, w), their pins, boxes in stored-image pixels. Out: per image and view float32
vectors. The detector looks at the image once, and the same look gives the candidates
(`curator.detect.one_pass`).

Views, one vector per box each (per image for "image"):
    object   inside the box
    context  the ring between the box and the box enlarged twice
    image    the whole image
    sides    on request: the strips left and right of the box, their mean and their absolute difference, which
             is large where something stands beside the object, whichever side it stands on

Each holds, for the finest levels of the detector, the mean of every channel and (finest level) its standard
deviation, since textures and grounds differ in spread more than in mean; then statistics of the pixels
themselves (`pixels`); "object" adds the box's size and shape. A level wider than its share is reduced by a
fixed orthonormal projection.

What may be compared: a failure's box, a success's box and an unexplained pool box are pooled by the same
rule, so their vectors compare in every view. An attribution exists for explained outcomes only: `masks` weigh
the cells by its density instead of the box. Such a vector is laid out like "object" and compares with pool
boxes that *are* what the region is (the post, the look-alike), not with boxes that hold the failing object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector, FeatureMap
from curator.detect.one_pass import pin_of
from curator.errors import ConfigError
from curator.registry import Spec
from curator.represent.embedders.base import REGION
from curator.represent.embedders.pixels import (
    PIXELS,
    STATISTICS,
    pixel_maps,
    pixel_statistics,
)
from curator.represent.embedders.pooling import (
    Places,
    array,
    box_mean,
    clipped,
    geometry,
    mask_boxes,
    mask_mean,
    place_means,
)
from curator.tensors import generator
from store.keys import content_key
from store.records import Floats, Pin

VERSION = 3  # of the vectors; it enters the fingerprint
VIEWS = ("object", "context", "sides", "image")
_USUAL = "object,context,image"
_GEOMETRY = 3
_Pool = Callable[[FeatureMap, Tensor], Tensor]  # (level, values (B, C, h, w)) -> (..., C)


class DetectorEmbedder:
    """Vectors from the detector's feature levels.

    Args:
        spec: `detector:?levels=NAME,NAME&dimension=N&views=NAME,NAME`; default: the three finest levels, at
            most 224 numbers per view, the views object, context and image.
        detector: the detector; it must offer feature levels.

    Raises:
        ConfigError: a black-box detector, unknown levels or views, or a dimension outside 32 to 256.
    """

    name = "detector"

    def __init__(self, spec: Spec, detector: Detector) -> None:
        spec.only(("levels", "dimension", "views"))
        if spec.name:
            raise ConfigError(
                f"embedder {spec.text!r}: expected detector: and options, as in detector:?dimension=128, got "
                f"{spec.name!r}"
            )
        if not detector.levels:
            raise ConfigError(
                f"embedder {spec.text!r}: the detector {detector.spec or 'given'} has no feature levels (a "
                f"black box); embed with another network, such as torchvision:resnet50?weights=FILE, "
                f"timm:NAME, transformers:FOLDER or safetensors:FILE?layout=mobilenet_v1"
            )
        levels = _names(spec, "levels") or detector.levels[:3]
        unknown = [level for level in levels if level not in detector.levels]
        if unknown:
            raise ConfigError(
                f"embedder {spec.text!r}: expected feature levels of the detector "
                f"({', '.join(detector.levels)}), got {', '.join(unknown)}"
            )
        dimension = spec.options.get("dimension", "224")
        if not dimension.isdecimal() or not 32 <= int(dimension) <= 256:
            raise ConfigError(f"embedder {spec.text!r}: expected a dimension of 32 to 256, got {dimension!r}")
        views = _names(spec, "views") or tuple(_USUAL.split(","))
        if "object" not in views or not set(views) <= set(VIEWS):
            raise ConfigError(
                f"embedder {spec.text!r}: expected views of {', '.join(VIEWS)}, object among them, got "
                f"{', '.join(views)}"
            )
        self.levels = tuple(level for level in detector.levels if level in levels)  # fine to coarse
        self._detector, self._dimension = detector, int(dimension)
        self._chosen = tuple(view for view in VIEWS if view in views)
        self._projections: dict[tuple[str, int], Tensor | None] = {}

    @property
    def views(self) -> Mapping[str, int]:
        """Box view -> dimension."""
        return {view: size for view, size in self._sizes.items() if view != "image"}

    @property
    def image_views(self) -> Mapping[str, int]:
        """ "image" -> dimension, where it was asked for."""
        return {view: size for view, size in self._sizes.items() if view == "image"}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the detector and of what is taken from it."""
        return content_key(
            "detector", VERSION, self._detector.fingerprint, self.levels, self._dimension, self._chosen
        )

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """View -> dimension, from one look at a grey image."""
        blank = torch.full((3, 64, 64), 0.5)
        pin = pin_of(self._detector, blank)
        u = self._detector.prepare(blank, pin)[None]
        found = self.embed(u, [pin], [np.array([[8, 8, 56, 56]], np.float32)])[0]
        return {view: found[view].shape[1] for view in self._chosen}

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
        """See `Embedder.embed`."""
        given = features or {}
        if any(level not in given for level in self.levels):
            nothing = torch.zeros(0, dtype=torch.int64, device=u.device)
            looked = self._detector.candidates(u, pins[0], index=nothing, levels=self.levels).features
            given = {**given, **looked}
        pixels = given[PIXELS] if PIXELS in given else pixel_maps(u)
        places = Places.of(pins, boxes, u)

        def pool(level: FeatureMap, values: Tensor) -> Tensor:
            return place_means(level, values, places)

        count = places.inner.shape[1]
        described = self._layout(given, pixels, pool)  # (B, 2N + 1, D)
        inner, ring, whole = described[:, :count], described[:, count:-1], described[:, -1:]
        vectors = {
            "object": array(torch.cat([inner, geometry(places.inner, u.shape)], dim=-1)),
            "context": array(ring),
            "image": array(whole),
        }
        if "sides" in self._chosen:
            vectors["sides"] = array(self._sides(given, pixels, places))
        result = []
        for i, own in enumerate(places.counts):
            views = {view: vectors[view][i, : 1 if view == "image" else own] for view in self._chosen}
            if masks is not None:
                density = torch.from_numpy(np.ascontiguousarray(masks[i], dtype=np.float32)).to(u)
                views[REGION] = array(self._region(given, pixels, density, i, u.shape))
            result.append(views)
        return result

    def _sides(self, features: Mapping[str, FeatureMap], pixels: FeatureMap, places: Places) -> Tensor:
        """Mean and absolute difference of what lies in the two strips of every box -> (B, N, D)."""
        fine = self.levels[:2]
        width = (self._dimension // 2 - STATISTICS) // len(fine)
        described = []
        for strip in _strips(places.inner):
            strip = clipped(strip, places.frame)
            parts = [pixel_statistics(box_mean(pixels, pixels.values, strip))]
            parts += [
                self._reduced(f"{name}/sides", box_mean(features[name], features[name].values, strip), width)
                for name in fine
            ]
            described.append(torch.cat(parts, dim=-1))
        return torch.cat([(described[0] + described[1]) / 2, (described[0] - described[1]).abs()], dim=-1)

    def _region(
        self,
        features: Mapping[str, FeatureMap],
        pixels: FeatureMap,
        density: Tensor,
        i: int,
        shape: torch.Size,
    ) -> Tensor:
        """Statistics of image i weighted by densities (R, h, w) -> (R, D), laid out like "object"."""

        def pool(level: FeatureMap, values: Tensor) -> Tensor:
            return mask_mean(level, values[i : i + 1], density, (shape[-2], shape[-1]))

        described = self._layout(features, pixels, pool)
        return torch.cat([described, geometry(mask_boxes(density, shape), shape)], dim=-1)

    def _layout(self, features: Mapping[str, FeatureMap], pixels: FeatureMap, pool: _Pool) -> Tensor:
        """What is said of every place: pixel statistics, means of the levels, spread of the finest."""
        parts = [pixel_statistics(pool(pixels, pixels.values))]
        share = (self._dimension - STATISTICS - _GEOMETRY) // (len(self.levels) + 1)
        for number, name in enumerate(self.levels):
            level = features[name]
            if number:
                parts.append(self._reduced(f"{name}/mean", pool(level, level.values), share))
                continue
            both = pool(level, torch.cat([level.values, level.values.square()], dim=1))
            mean, square = both.chunk(2, dim=-1)
            spread = (square - mean.square()).clamp_min(0).sqrt()
            parts += [
                self._reduced(f"{name}/mean", mean, share),
                self._reduced(f"{name}/spread", spread, share),
            ]
        return torch.cat(parts, dim=-1)

    def _reduced(self, name: str, values: Tensor, width: int) -> Tensor:
        key = (name, values.shape[-1])
        if key not in self._projections:
            self._projections[key] = None
            if values.shape[-1] > width:
                normal = torch.randn(values.shape[-1], width, generator=generator("embed", *key, width))
                self._projections[key] = torch.linalg.qr(normal).Q.to(values)
        matrix = self._projections[key]
        return values if matrix is None else values @ matrix


def _names(spec: Spec, option: str) -> tuple[str, ...]:
    return tuple(filter(None, spec.options.get(option, "").split(",")))


def _strips(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Strips left and right of boxes (..., 4), 0.4 of the longer side wide, a tenth shorter at both ends."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = 0.4 * torch.maximum(x2 - x1, y2 - y1)
    top, bottom = y1 + 0.1 * (y2 - y1), y2 - 0.1 * (y2 - y1)
    return torch.stack([x1 - width, top, x1, bottom], dim=-1), torch.stack(
        [x2, top, x2 + width, bottom], dim=-1
    )
