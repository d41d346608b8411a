"""The part of `index` that a worker does: boxes of images, embedded and made compact.

In: `IndexItem`s. Out: `Indexed`: what the image offers, the boxes of its outcomes and what explanations
blame. An image offers the detector's best candidates however low they score, and windows that stand out from
their surroundings: where a detector that sees nothing offers no candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.errors import CuratorError, StageError
from curator.represent.proposals import salient
from store.keys import content_key
from store.records import CLASSES, BoxTuple, Floats, ImageBoxes, Pin

if TYPE_CHECKING:
    from curator.detect.one_pass import OnePass

STAGE = "index"
UNNAMED = 24  # components of a view that keys do not name: all had as many when the first keys were made
STAGE_VERSION = 3  # 3: at most 32 candidates and 20 windows, principal components as int8
OVERLAP = 0.6  # candidates that overlap more describe the same thing
REGION = "region"


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
    """One image: what it offers, and its outcomes' boxes (None: it has no outcome)."""

    offered: ImageBoxes
    outcomes: ImageBoxes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawVectors:
    """An image's vectors before they are projected: view -> (N, D); `image_views` are those with N = 1."""

    views: Mapping[str, Floats]
    image_views: tuple[str, ...]


class EmbedWork:
    """Embeds what images offer; holds plain data only, so that it can start on another machine.

    Its results are `RawVectors`, from which projections are fitted; `IndexWork` goes on from there.

    Args:
        weights: fingerprint of an embedder that looks with a network of its own.
    """

    def __init__(
        self,
        *,
        detector: str,
        fingerprint: str,
        embedder: str,
        candidates: int,
        windows: int,
        batch_size: int,
        weights: str = "",
    ) -> None:
        self.detector, self.fingerprint, self.embedder = detector, fingerprint, embedder
        self.weights = weights
        self.candidates, self.windows, self.batch_size = candidates, windows, batch_size

    def image_key(self, item: IndexItem) -> str:
        """Key of what the image offers, which no diagnosis changes."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            item.sha256,
            self.fingerprint,
            self.embedder,
            self.weights,
            self.candidates,
            self.windows,
        )

    def key(self, item: IndexItem) -> str:
        """See `image_key`."""
        return self.image_key(item)

    def setup(self, device: str) -> Any:
        """Load detector and embedder.

        Raises:
            InputError: the detector is another than the one whose detections are stored.
        """
        from curator.detect.load import load_same
        from curator.represent.embedders.load import load_embedder

        detector = load_same(self.detector, self.fingerprint, device)
        return detector, load_embedder(self.embedder, detector)

    def process(self, state: Any, batch: Sequence[IndexItem]) -> list[Any]:
        """Embed a batch; an unreadable image becomes an exception in its place."""
        results = []
        for item, pixels in zip(batch, _read(batch), strict=True):
            if isinstance(pixels, Exception):
                results.append(pixels)
                continue
            try:
                results.append(self._image(state, item, pixels))
            except (CuratorError, ValueError) as error:
                results.append(error)
        return results

    def _image(self, state: Any, item: IndexItem, pixels: NDArray[np.uint8]) -> Any:
        return RawVectors(
            views=self._embedded(state, item, pixels)[-1], image_views=tuple(state[1].image_views)
        )

    def _embedded(
        self, state: Any, item: IndexItem, pixels: NDArray[np.uint8]
    ) -> tuple[OnePass, Floats, tuple[Any, Any], dict[str, Floats]]:
        """One forward pass -> it, the boxes (outcomes', candidates', windows'), the candidates' classes and
        scores, and the raw vectors of every view."""
        import torch

        from curator.detect.one_pass import candidate_boxes, one_pass
        from curator.represent.embedders.pixels import PIXELS, pixel_maps
        from curator.tensors import image_tensor

        detector, embedder = state
        with torch.inference_mode():
            one = one_pass(detector, image_tensor(pixels), embedder.levels)
            boxes, labels, scores = candidate_boxes(one, most=self.candidates, overlap=OVERLAP)
            u = one.u[None]
            maps = pixel_maps(u)
            windows = _windows(u, maps, one.pin, self.windows)
            own = np.array([o.box for o in item.outcomes], np.float32).reshape(-1, 4)
            every = np.concatenate([own, boxes, windows]).astype(np.float32)
            masks = _densities(item)
            raw = embedder.embed(
                u,
                [one.pin],
                [every],
                masks=[masks] if len(masks) else None,
                features={**one.features, PIXELS: maps},
            )[0]
        for view, vectors in raw.items():
            if not np.isfinite(vectors).all():
                bad = int((~np.isfinite(vectors).all(1)).sum())
                raise StageError(
                    f"index: expected finite vectors, got nan or infinity in {bad} of {len(vectors)} of the "
                    f"view {view}"
                )
        return one, every, (labels, scores), raw


class IndexWork(EmbedWork):
    """Embeds images and makes their vectors compact.

    Args:
        arrays: of the projections, view by view (`Projection.arrays`).
        components: that a view is projected to.
    """

    def __init__(
        self,
        *,
        arrays: Mapping[str, NDArray[Any]],
        detector: str,
        fingerprint: str,
        embedder: str,
        candidates: int,
        windows: int,
        batch_size: int,
        weights: str = "",
        components: int,
    ) -> None:
        super().__init__(
            detector=detector,
            fingerprint=fingerprint,
            embedder=embedder,
            candidates=candidates,
            windows=windows,
            batch_size=batch_size,
            weights=weights,
        )
        self.arrays, self.components = dict(arrays), components

    def image_key(self, item: IndexItem) -> str:
        """Key of what the image offers, which no diagnosis changes; other numbers of components make
        other vectors, in a space of their own."""
        key = super().image_key(item)
        return key if self.components == UNNAMED else content_key(key, self.components)

    def outcomes_key(self, item: IndexItem) -> str:
        """Key of its outcomes' boxes and of what is blamed for them."""
        return content_key(
            self.image_key(item), [(o.key, o.blamed.key if o.blamed else "") for o in item.outcomes]
        )

    def key(self, item: IndexItem) -> str:
        """Key of all that is stored of an image."""
        return self.outcomes_key(item)

    def _image(self, state: Any, item: IndexItem, pixels: NDArray[np.uint8]) -> Any:
        from curator.represent.projection import Projection

        one, boxes, (labels, scores), raw = self._embedded(state, item, pixels)
        embedder = state[1]
        compact = {
            view: Projection.stored(self.arrays, view)(vectors)
            for view, vectors in raw.items()
            if view != REGION
        }
        image_views = {view: compact[view][0] for view in embedder.image_views}
        n = len(item.outcomes)
        size = one.pin.image_size
        offered = ImageBoxes(
            image_id=item.image_id,
            key=self.image_key(item),
            size=size,
            boxes=boxes[n:],
            labels=labels,
            scores=scores,
            views={view: compact[view][n:] for view in embedder.views},
            image_views=image_views,
        )
        if not n:
            return Indexed(offered=offered, outcomes=None)
        blamed = [o for o in item.outcomes if o.blamed is not None]
        views = {view: compact[view][:n] for view in embedder.views}
        if blamed:
            views = self._with_regions(views, raw[REGION], next(iter(embedder.views)))
        nobody = np.full(n, -1, np.int64)
        ids = np.array([o.id for o in item.outcomes], np.int64)
        regions = np.array([o.blamed.box for o in blamed if o.blamed], np.float32).reshape(-1, 4)
        attributions = np.array([o.blamed.attribution_id for o in blamed if o.blamed], np.int64)
        outcomes = ImageBoxes(
            image_id=item.image_id,
            key=self.outcomes_key(item),
            size=size,
            boxes=np.concatenate([boxes[:n], regions]),
            labels=np.zeros((0, CLASSES), np.int64),
            scores=np.zeros((0, CLASSES), np.float32),
            views=views,
            image_views=image_views,
            outcome_ids=np.concatenate([ids, np.array([o.id for o in blamed], np.int64)]),
            attribution_ids=np.concatenate([nobody, attributions]),
        )
        return Indexed(offered=offered, outcomes=outcomes)

    def _with_regions(
        self, views: Mapping[str, NDArray[np.int8]], regions: Floats, first: str
    ) -> dict[str, NDArray[np.int8]]:
        """Rows of culprit regions below those of outcomes: the first view is theirs too, others are 0."""
        from curator.represent.projection import Projection

        found = {}
        for view, values in views.items():
            below = np.zeros((len(regions), values.shape[1]), np.int8)
            if view == first:
                below = Projection.stored(self.arrays, view)(regions)
            found[view] = np.concatenate([values, below])
        return found


def _windows(u: Any, level: Any, pin: Pin, most: int) -> Floats:
    """Salient windows of a prepared image (1, 3, h, w) with its pixel maps: (N, 4) in stored-image pixels."""
    from curator.represent.embedders.pixels import contrast_maps
    from curator.represent.embedders.pooling import image_frames

    size = (u.shape[-2], u.shape[-1])
    (found,) = salient(contrast_maps(level), level.scale[0], size, image_frames([pin]), most)
    return pin.to_image(found)


def _densities(item: IndexItem) -> NDArray[np.float32]:
    maps = [o.blamed.density for o in item.outcomes if o.blamed is not None]
    if any(density is None for density in maps):
        raise ValueError(f"index: expected a density of what is blamed on {item.uri}, got none")
    return np.stack([d for d in maps if d is not None]) if maps else np.zeros((0, 1, 1), np.float32)


def _read(batch: Sequence[IndexItem]) -> list[Any]:
    from store.images import read_pixels, readers

    def one(item: IndexItem) -> Any:
        try:
            return read_pixels(item.uri, item.sha256)
        except Exception as error:
            return error

    with ThreadPoolExecutor(max_workers=readers((item.uri for item in batch), 4)) as threads:
        return list(threads.map(one, batch))
