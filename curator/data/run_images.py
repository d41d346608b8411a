"""The images of an export: in which order, with which labels, and the bytes of their files.

In: the training set in the Store, additions. Out: `PlannedImage`s without pixels; then, one by one, what is
written. A version that is exported again goes the second half of this way alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from curator.data.formats.base import OutputImage
from curator.data.record import PlannedImage
from curator.data.run_additions import Addition, Additions, file_stem, plain
from store.images import encode_png, read_bytes, read_bytes_as_pixels
from store.records import AnnotationSet, ImageRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from store.store import Store

CHUNK = 64
BARE = "training image without labels: label it, or it would teach that nothing is there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How added images are encoded: "jpeg" with its quality, or "png"."""

    kind: str
    quality: int | None

    @property
    def suffix(self) -> str:
        return ".jpg" if self.kind == "jpeg" else ".png"


def training(store: Store, additions: Additions) -> Iterator[tuple[ImageRecord, AnnotationSet | None]]:
    """Training images with their labels, without those that leak."""
    ids = training_ids(store, additions)
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        labels = store.annotations(chunk, reader="export")
        for image in store.images(reader="export", ids=chunk):
            yield image, labels.get(image.id)


def training_ids(store: Store, additions: Additions) -> list[int]:
    return [i for i in store.image_ids(role="train") if i not in additions.without.originals]


def planned(
    store: Store,
    additions: Additions,
    encoding: Encoding,
    left_out: list[tuple[str, str]],
    advance: Callable[[], object] = lambda: None,
) -> Iterator[tuple[PlannedImage, ImageRecord | None]]:
    """Training images, then additions, each with the workspace's image (None for a sample).

    Args:
        left_out: receives training images without labels. advance: is called for every image.
    """
    for image, labels in training(store, additions):
        advance()
        source = image.uri.rsplit("/", 1)[-1]
        if labels is None:
            left_out.append((source, BARE))
            continue
        suffix = Path(source).suffix.lower()
        yield (
            PlannedImage(
                source=image.sha256,
                name=file_stem(source, image.sha256),
                suffix=suffix if len(suffix) > 1 else ".jpg",
                width=image.width,
                height=image.height,
                annotations=plain(labels),
                lineage={"role": "train", "source": source},
                pre_annotated=labels.status == "pre-annotation",
            ),
            image,
        )
    for item in additions.items:
        advance()
        yield _added(item, encoding), item.image


def _added(item: Addition, encoding: Encoding) -> PlannedImage:
    of = item.image or item.sample
    assert of is not None  # an addition has one of both
    return PlannedImage(
        source=of.sha256 if isinstance(of, ImageRecord) else of.blob,
        name=item.name,
        suffix=encoding.suffix,
        width=of.width,
        height=of.height,
        annotations=item.annotations,
        lineage=item.lineage,
        pre_annotated=item.pre_annotated,
    )


def output(store: Store, image: PlannedImage, of: ImageRecord | None, encoding: Encoding) -> OutputImage:
    """An image as it is written: a training image's own bytes, an addition encoded.

    Args:
        of: the workspace's image; None for a sample.
    Raises:
        ImageError: its file is gone. CorruptionError: it is another one by now, or a blob is damaged.
        NotFoundError: no such blob.
    """
    if of is None:
        data = _encode(read_bytes_as_pixels(store.blob(image.source), where=image.name), encoding)
    elif image.role == "train":
        data = read_bytes(of.uri, sha256=image.source)
    else:
        data = _encode(store.pixels(of, reader="export"), encoding)
    return OutputImage(
        name=image.name,
        data=data,
        suffix=image.suffix,
        width=image.width,
        height=image.height,
        annotations=image.annotations,
        lineage=image.lineage,
        pre_annotated=image.pre_annotated,
    )


def _encode(pixels: NDArray[np.uint8], encoding: Encoding) -> bytes:
    if encoding.kind == "png":
        return encode_png(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=encoding.quality, subsampling=0)
    return buffer.getvalue()
