"""The embedder that a text names, and several at once: `detector:+safetensors:FILE?layout=mobilenet_v1`.

The first keeps its views' names; those of the others get their embedder's name in front (`mobilenet.object`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector, FeatureMap
from curator.registry import EMBEDDERS, Spec
from curator.represent.embedders.base import Embedder, TextEmbedder
from store.keys import content_key
from store.records import Floats, Pin


def load_embedder(text: str, detector: Detector) -> Embedder:
    """Build the embedder or the embedders that `text` names.

    Raises:
        RegistryError: no spec, or an unknown scheme. InputError: what the factories refuse.
    """
    known = "|".join(re.escape(name) for name in EMBEDDERS.names())
    specs = [Spec.parse(part) for part in re.split(rf"\+(?=(?:{known}):)", text)]
    found: list[Embedder] = [EMBEDDERS.load(spec.scheme)(spec, detector) for spec in specs]
    return found[0] if len(found) == 1 else JoinedEmbedder(found)


def text_embedder(embedder: Embedder) -> TextEmbedder | None:
    """The embedder, or the first of several, that compares with text; None where none does."""
    for one in embedder.parts if isinstance(embedder, JoinedEmbedder) else [embedder]:
        if isinstance(one, TextEmbedder):
            return _Prefixed(embedder, one) if isinstance(embedder, JoinedEmbedder) else one
    return None


class JoinedEmbedder:
    """Several embedders as one; "region" is the first one's."""

    def __init__(self, parts: Sequence[Embedder]) -> None:
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in parts)
        self.levels = tuple(dict.fromkeys(level for part in parts for level in part.levels))
        names: list[str] = []
        for part in parts:
            same = sum(name.partition("#")[0] == part.name for name in names)
            names.append(f"{part.name}#{same + 1}" if same else part.name)
        self.prefixes = ("", *(f"{name}." for name in names[1:]))

    @cached_property
    def views(self) -> Mapping[str, int]:
        """Box view -> dimension."""
        return self._joined([part.views for part in self.parts])

    @cached_property
    def image_views(self) -> Mapping[str, int]:
        """View of the whole image -> dimension."""
        return self._joined([part.image_views for part in self.parts])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the parts', in their order."""
        return content_key("joined", [part.fingerprint for part in self.parts], self.prefixes)

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
        result: list[dict[str, Floats]] = [{} for _ in pins]
        for part, prefix in zip(self.parts, self.prefixes, strict=True):
            own = part.embed(u, pins, boxes, masks=None if prefix else masks, features=features)
            for views, more in zip(result, own, strict=True):
                views.update({f"{prefix}{view}": values for view, values in more.items()})
        return result

    def _joined(self, parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
        return {
            f"{prefix}{view}": size
            for prefix, views in zip(self.prefixes, parts, strict=True)
            for view, size in views.items()
        }


class _Prefixed(JoinedEmbedder):
    """Several embedders of which one compares with text, under the names that its views have among them."""

    def __init__(self, joined: JoinedEmbedder, text: TextEmbedder) -> None:
        super().__init__(joined.parts)
        prefix = self.prefixes[self.parts.index(text)]
        self._text = text
        self.text_view, self.text_image_view = f"{prefix}{text.text_view}", f"{prefix}{text.text_image_view}"

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """See `TextEmbedder.embed_text`."""
        return self._text.embed_text(texts)
