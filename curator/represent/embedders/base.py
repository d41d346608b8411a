"""The embedder seam: boxes of images become vectors that can be compared.

Frames: `u` is the detector's input, boxes lie in stored-image pixels, the pins lead from one to the other.
A factory of the registry takes (spec, detector); `load.load_embedder` builds from a spec's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import FeatureMap
from store.records import Floats, Pin

REGION = "region"
"""The view of what a density singles out, laid out like the first box view."""


@runtime_checkable
class Embedder(Protocol):
    """Turns boxes of images into vectors.

    Attributes:
        name: a short name, which prefixes the views where several embedders work together.
        levels: feature levels of the detector that it wants; () where it looks with a network of its own.
        views: box view -> dimension; the first is what "region" is laid out like.
        image_views: view of the whole image -> dimension.
        fingerprint: hash of architecture, weights and options; equal ones give comparable vectors.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def levels(self) -> tuple[str, ...]:
        """See above."""

    @property
    def views(self) -> Mapping[str, int]:
        """See above."""

    @property
    def image_views(self) -> Mapping[str, int]:
        """See above."""

    @property
    def fingerprint(self) -> str:
        """See above."""

    def embed(
        self,
        u: Tensor,
        pins: Sequence[Pin],
        boxes: Sequence[NDArray[np.float32]],
        *,
        masks: Sequence[NDArray[np.float32]] | None = None,
        features: Mapping[str, FeatureMap] | None = None,
    ) -> list[dict[str, Floats]]:
        """Embed boxes of a batch.

        Args:
            u: (B, 3, h, w) RGB [0, 1], in the input frame of all `pins`.
            boxes: per image (N, 4) stored-image pixels.
            masks: per image (R, a, b) non-negative densities on a grid over the input frame, or None.
            features: the detector's maps of `levels` for this batch, from its one forward pass
                (`curator.detect.one_pass`); None lets the embedder ask for them. Other maps are ignored, but
                for `pixels.PIXELS`, pixel maps of `u` that were computed already.
        Returns:
            per image float32 {view: (N, D)}, {image view: (1, D)}, and {"region": (R, D)} with `masks`.
        """


@runtime_checkable
class TextEmbedder(Embedder, Protocol):
    """An embedder whose boxes and images compare with text, by cosine.

    Attributes:
        text_view: the box view, text_image_view: the image view that `embed_text` compares with.
    """

    @property
    def text_view(self) -> str:
        """See above."""

    @property
    def text_image_view(self) -> str:
        """See above."""

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Texts -> (T, D) float32 of length 1."""
