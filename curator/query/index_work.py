"""The part of `index` that a worker does: boxes of images, embedded.

In: `IndexItem`s. Out: `Indexed`: owners, keys and vectors per view. An item's boxes are its outcomes', the
detector's best candidates however low they score, windows that stand out from their surroundings, and grid
cells at two scales. Windows and cells are stored alike as source "cell".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.errors import StageError
from curator.registry import EMBEDDERS, Spec
from curator.represent.proposals import distinct, salient
from store.keys import content_key
from store.records import BoxTuple, Detections, Floats, Pin, VectorOwner

if TYPE_CHECKING:
    from curator.detect.checking import Answer

STAGE = "index"
STAGE_VERSION = 2  # 2: the detector's answers are checked; no context ring of negative means
SCORE_THRESHOLD = 1e-4  # what a detector nearly sees is where its misses are
OVERLAP = 0.6  # candidates that overlap more describe the same thing


@dataclass(frozen=True, slots=True, kw_only=True)
class Blamed:
    """What an outcome's explanation blames: the heaviest culprit region.

    Attributes:
        box: stored-image pixels. key: content key of the region.
        density: (a, b) over the input frame; None until the outcome is worked on.
    """

    attribution_id: int
    box: BoxTuple
    key: str
    density: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedOutcome:
    """An outcome's box, and what is blamed for it where it was explained."""

    id: int
    key: str
    box: BoxTuple
    score: float
    label: int
    blamed: Blamed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexItem:
    """One image to index."""

    image_id: int
    uri: str
    sha256: str
    outcomes: tuple[IndexedOutcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """Vectors of one image: row i of every box view belongs to owners[i] and keys[i]."""

    owners: tuple[VectorOwner, ...]
    keys: tuple[str, ...]
    views: Mapping[str, Floats]
    image_key: str
    regions: tuple[tuple[VectorOwner, str], ...]


class IndexWork:
    """Embeds the boxes of images; holds plain data only, so that it can start on another machine."""

    def __init__(
        self,
        *,
        detector: str,
        fingerprint: str,
        embedder: str,
        candidates: int,
        cells: int,
        windows: int,
        batch_size: int,
    ) -> None:
        self.detector, self.fingerprint, self.embedder = detector, fingerprint, embedder
        self.candidates, self.cells, self.windows, self.batch_size = candidates, cells, windows, batch_size

    def image_key(self, item: IndexItem) -> str:
        """Key of the image's own vectors, which no diagnosis changes."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            item.sha256,
            self.fingerprint,
            self.embedder,
            self.candidates,
            self.cells,
            self.windows,
        )

    def key(self, item: IndexItem) -> str:
        """Key of the image's own vectors, of its outcomes' and of what is blamed for them."""
        return content_key(
            self.image_key(item), [(o.key, o.blamed.key if o.blamed else "") for o in item.outcomes]
        )

    def setup(self, device: str) -> Any:
        """Load detector and embedder."""
        from curator.detect.load import load_detector

        detector = load_detector(self.detector, device)
        spec = Spec.parse(self.embedder)
        return detector, EMBEDDERS.load(spec.scheme)(spec, detector)

    def process(self, state: Any, batch: Sequence[IndexItem]) -> list[Any]:
        """Embed a batch; an unreadable image becomes an exception in its place."""
        import torch

        from curator.detect.checking import predict_each
        from curator.tensors import image_tensor

        detector, embedder = state
        results: list[Any] = _read(batch)
        good = [i for i, pixels in enumerate(results) if not isinstance(pixels, Exception)]
        images = {i: image_tensor(results[i]) for i in good}
        answers = predict_each(detector, list(images.values()), score_threshold=SCORE_THRESHOLD)
        by_size: dict[tuple[int, int], list[tuple[int, Answer]]] = {}
        for i, answer in zip(good, answers, strict=True):
            if isinstance(answer, Exception):
                results[i] = answer
            else:
                by_size.setdefault(answer.pin.input_size, []).append((i, answer))
        for members in by_size.values():
            pins = [answer.pin for _, answer in members]
            u = torch.stack([detector.prepare(images[i], answer.pin) for i, answer in members])
            windows = salient_windows(u, pins, self.windows)
            owners = [
                self._owners(batch[i], answer.detections, answer.pin.image_size, own)
                for (i, answer), own in zip(members, windows, strict=True)
            ]
            boxes = [np.array([owner.box for owner in own], np.float32) for own in owners]
            densities = [_densities(batch[i]) for i, _ in members]
            embedded = embedder.embed(u, pins, boxes, densities)
            for (i, _), own, views in zip(members, owners, embedded, strict=True):
                results[i] = _not_finite(own, views) or self._indexed(batch[i], own, views)
        return results

    def _owners(
        self, item: IndexItem, detections: Detections, size: tuple[int, int], windows: Floats
    ) -> tuple[VectorOwner, ...]:
        outcomes = [
            VectorOwner(
                image_id=item.image_id,
                box=o.box,
                source="outcome",
                outcome_id=o.id,
                score=o.score,
                label=o.label,
            )
            for o in item.outcomes
        ]
        candidates = [
            VectorOwner(
                image_id=item.image_id,
                box=_tuple(detections.boxes[i]),
                source="candidate",
                score=float(detections.scores[i]),
                label=int(detections.labels[i]),
            )
            for i in distinct(detections.boxes, self.candidates, OVERLAP)
        ]
        cells = [
            VectorOwner(image_id=item.image_id, box=box, source="cell")
            for box in (*grid(size, self.cells), *map(_tuple, windows))
        ]
        return (*outcomes, *candidates, *cells)

    def _indexed(
        self, item: IndexItem, owners: tuple[VectorOwner, ...], views: Mapping[str, Floats]
    ) -> Indexed:
        image_key = self.image_key(item)
        keys = [content_key(image_key, outcome.key) for outcome in item.outcomes]
        keys += [image_key] * (len(owners) - len(keys))
        regions = tuple(
            (
                VectorOwner(
                    image_id=item.image_id,
                    box=o.blamed.box,
                    source="region",
                    outcome_id=o.id,
                    attribution_id=o.blamed.attribution_id,
                    score=o.score,
                    label=o.label,
                ),
                content_key(image_key, o.key, "region", o.blamed.key),
            )
            for o in item.outcomes
            if o.blamed is not None
        )
        return Indexed(owners=owners, keys=tuple(keys), views=views, image_key=image_key, regions=regions)


def grid(size: tuple[int, int], cells: int) -> list[BoxTuple]:
    """Grid cells of an image (height, width): `cells` per side, and half as many, twice as large."""
    height, width = size
    return [
        (width * i / n, height * j / n, width * (i + 1) / n, height * (j + 1) / n)
        for n in dict.fromkeys((cells, max(1, cells // 2)))
        for j in range(n)
        for i in range(n)
    ]


def salient_windows(u: Any, pins: Sequence[Pin], most: int) -> list[Floats]:
    """Salient windows of prepared images (B, 3, h, w), per image (N, 4) in stored-image pixels."""
    from curator.represent.embedders.detector import contrast_maps, image_frames, pixel_maps

    level = pixel_maps(u)
    found = salient(
        contrast_maps(level), level.scale[0], (u.shape[-2], u.shape[-1]), image_frames(pins), most
    )
    return [pin.to_image(boxes) for pin, boxes in zip(pins, found, strict=True)]


def _not_finite(owners: Sequence[VectorOwner], views: Mapping[str, Floats]) -> StageError | None:
    """What to say of an image with vectors of which some are no numbers; None where all is well."""
    for view, vectors in views.items():
        rows = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
        if rows:
            owner = owners[rows[0]] if view not in ("image", "region") else None
            where = f", first of the {owner.source} box {owner.box}" if owner is not None else ""
            return StageError(
                f"index: expected finite vectors, got nan or infinity in {len(rows)} of {len(vectors)} "
                f"of the view {view}{where}"
            )
    return None


def _densities(item: IndexItem) -> NDArray[np.float32]:
    maps = [o.blamed.density for o in item.outcomes if o.blamed is not None]
    if any(density is None for density in maps):
        raise ValueError(f"index: expected a density of what is blamed on {item.uri}, got none")
    return np.stack([d for d in maps if d is not None]) if maps else np.zeros((0, 1, 1), np.float32)


def _read(batch: Sequence[IndexItem]) -> list[Any]:
    from store.images import read_pixels

    def one(item: IndexItem) -> Any:
        try:
            return read_pixels(item.uri, item.sha256)
        except Exception as error:
            return error

    with ThreadPoolExecutor(max_workers=4) as threads:
        return list(threads.map(one, batch))


def _tuple(box: NDArray[Any]) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in box)
    return x1, y1, x2, y2
