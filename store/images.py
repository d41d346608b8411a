"""Images on disk or in blobs: decode, apply the EXIF orientation, keep to size limits, hash.

In: a URI (a path, `file://`, or anything fsspec opens) or bytes. Out: RGB uint8 pixels in the stored
frame (EXIF orientation applied), or an `ImageProbe` with hashes and sizes. Each file is read once.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from store.appearance import Appearance, appearance
from store.errors import CorruptionError, ImageError
from store.image_cache import cached, keep
from store.remote import fetch, is_remote

PIXEL_LIMIT = 100_000_000
"""Largest image accepted by default: 100 megapixels (300 MB once decoded)."""

FETCHERS = 16
"""Threads that read from a bucket at a time."""
_ORIENTATION_TAG = 0x0112
_HIGH_DEPTH = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProbe:
    """What an importer needs to know of a file.

    Attributes:
        sha256: of the file's bytes, hex. phash: 64-bit perceptual hash of the upright image, 16 hex digits.
        appearance: what it is compared by; None where the workspace holds it already.
        width, height: pixels after the EXIF orientation is applied.
        raw_width, raw_height: pixels as encoded. orientation: EXIF value 1 to 8.
    """

    sha256: str
    phash: str
    appearance: Appearance | None
    width: int
    height: int
    raw_width: int
    raw_height: int
    orientation: int


def read_bytes(uri: str, *, sha256: str | None = None) -> bytes:
    """Read a whole file.

    Raises:
        ImageError: missing or unreadable file; of an object, after the tries of `store.remote`.
        CorruptionError: the bytes' hash is not `sha256`.
    """
    if is_remote(uri):
        return _fetched(uri, sha256)
    try:
        data = Path(uri.removeprefix("file://")).read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{uri}: expected a readable image file ({_reason(error)})") from error
    if sha256 is not None and (actual := hashlib.sha256(data).hexdigest()) != sha256:
        raise CorruptionError(
            f"{uri}: the file changed since it was added (sha256 {actual[:12]}, recorded {sha256[:12]}); "
            "restore it or add it again"
        )
    return data


def readers(uris: Iterable[str], local: int) -> int:
    """Threads to read with: `local`, or more where files come over a network and threads wait for answers."""
    return max(local, FETCHERS) if any(is_remote(uri) for uri in uris) else local


def _fetched(uri: str, sha256: str | None) -> bytes:
    """An object's bytes, from the local cache where they are there and the hash is known."""
    if sha256 is None:
        return fetch(uri)
    data = cached(sha256)
    if data is None:
        data = fetch(uri, sha256=sha256)
        keep(sha256, data)
    return data


def read_pixels(uri: str, sha256: str | None = None, *, limit: int = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB with its EXIF orientation applied.

    Args:
        sha256: expected hash of the file's bytes; None skips the check.
        limit: largest number of pixels accepted.
    Raises:
        ImageError: missing file, undecodable bytes, or an image outside the size limits.
        CorruptionError: the file's hash is not `sha256`.
    """
    return read_bytes_as_pixels(read_bytes(uri, sha256=sha256), where=uri, limit=limit)


def read_bytes_as_pixels(data: bytes, *, where: str = "image", limit: int = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """Decode encoded image bytes to (H, W, 3) uint8 RGB; see `read_pixels`."""
    return np.asarray(_decode(data, where, limit)[0], dtype=np.uint8).copy()


def probe(path: Path | str, *, limit: int = PIXEL_LIMIT) -> ImageProbe:
    """Decode a file once and return its hashes and sizes.

    Raises:
        ImageError: missing file, undecodable bytes, or an image outside the size limits.
    """
    return probe_bytes(read_bytes(str(path)), where=str(path), limit=limit)


def probe_bytes(data: bytes, *, where: str = "image", limit: int = PIXEL_LIMIT) -> ImageProbe:
    """As `probe`, of a file's bytes."""
    upright, raw_size, orientation = _decode(data, where, limit)
    return ImageProbe(
        sha256=hashlib.sha256(data).hexdigest(),
        phash=perceptual_hash(upright),
        appearance=appearance(upright),
        width=upright.width,
        height=upright.height,
        raw_width=raw_size[0],
        raw_height=raw_size[1],
        orientation=orientation,
    )


def perceptual_hash(image: Image.Image | NDArray[np.uint8]) -> str:
    """64-bit DCT hash (imagehash.phash) of an RGB image as 16 hex digits."""
    import imagehash

    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    # A box-filtered thumbnail first: phash itself only looks at 32 x 32, and Lanczos from full size is slow.
    if min(picture.size) > 256:
        picture = picture.reduce(min(picture.size) // 128)
    return str(imagehash.phash(picture))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) uint8 RGB as PNG, losslessly.

    Raises:
        ImageError: another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"expected pixels (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@cache
def load_plugins() -> None:
    """Let Pillow read HEIC and JPEG XL too, where a plug-in for it is installed."""
    for package in ("pillow_heif", "pi_heif"):
        if find_spec(package) is not None:
            import_module(package).register_heif_opener()
            break
    if find_spec("pillow_jxl") is not None:
        import_module("pillow_jxl")


def _decode(data: bytes, where: str, limit: int) -> tuple[Image.Image, tuple[int, int], int]:
    """Return (upright RGB image, raw (width, height), EXIF orientation)."""
    if data[4:8] in (b"ftyp", b"JXL ") or data[:2] == b"\xff\x0a":  # HEIC, AVIF or JPEG XL
        load_plugins()
    try:
        with warnings.catch_warnings():
            # PIL warns of and refuses large images by a global limit; ours is checked on the header below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width < 1 or height < 1 or width * height > limit:
                    raise ImageError(f"{where}: expected 1 to {limit} pixels, got {width} x {height}")
                image.load()
                orientation = image.getexif().get(_ORIENTATION_TAG, 1)
                upright = _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{where}: expected an image, got {len(data)} bytes of no known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{where}: expected 1 to {limit} pixels ({_reason(error)})") from error
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, MemoryError) as error:
        raise ImageError(f"{where}: the image cannot be decoded ({_reason(error)})") from error
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return upright, (width, height), orientation


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _HIGH_DEPTH:  # PIL clips 16-bit greys to white; scale them instead
        grey = np.asarray(image).astype(np.float64)
        grey = grey if image.mode == "I" and grey.max(initial=0) <= 255 else grey / 257.0
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")  # alpha is dropped: colours stay as detectors' loaders see them
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
