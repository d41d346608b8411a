"""Pictures for the page: whole images, crops round a box, heat maps. Always encoded anew: what a file holds
besides pixels never reaches the browser.

In: pixels as (H, W, 3) RGB. Out: JPEG or PNG bytes, kept in a folder of bounded size while the server runs.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from store.keys import content_key
from store.records import BoxTuple

Pixels = NDArray[np.uint8]
COLOURS = {
    "FN": "#e5484d",
    "FP": "#f5a524",
    "TP": "#30a46c",
    "hit": "#3e9bff",
    "suspect": "#c06cf0",
    "sample": "#3e9bff",
}
"""Of a frame, by what it stands for; `static/app.css` has the same."""
CONTEXT = 0.6  # of a box's larger side, shown on every side of it
SMALLEST = 48  # pixels that a crop shows at least


class PictureCache:
    """Encoded pictures in a temporary folder; the one that was asked for longest ago goes first.

    Args:
        most: bytes that the folder may hold.
    """

    def __init__(self, most: int = 256_000_000) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="curator-review-"))
        self._most = most
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The picture of a key, made where it is not kept."""
        name = content_key(*key)
        with self._lock:
            if name in self._sizes:
                self._sizes.move_to_end(name)
                return (self._folder / name).read_bytes()
        data = make()
        with self._lock:
            if name not in self._sizes and len(data) <= self._most:
                (self._folder / name).write_bytes(data)
                self._sizes[name] = len(data)
                self.bytes += len(data)
                while self.bytes > self._most:
                    oldest, size = self._sizes.popitem(last=False)
                    self.bytes -= size
                    (self._folder / oldest).unlink(missing_ok=True)
        return data

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def window(box: BoxTuple, width: int, height: int) -> tuple[int, int, int, int]:
    """The square that a crop shows: the box with what is around it, moved into the image, cut to it."""
    x1, y1, x2, y2 = box
    side = max(max(x2 - x1, y2 - y1) * (1 + 2 * CONTEXT), SMALLEST)
    left = min(max((x1 + x2 - side) / 2, 0), max(width - side, 0))
    top = min(max((y1 + y2 - side) / 2, 0), max(height - side, 0))
    right, bottom = min(left + side, width), min(top + side, height)
    left, top = int(left), int(top)
    return left, top, max(round(right), left + 1), max(round(bottom), top + 1)


def crop(pixels: Pixels, box: BoxTuple, *, kind: str = "", side: int = 192) -> bytes:
    """A JPEG of at most `side` pixels round a box, which is framed in the colour of its kind."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = window(box, width, height)
    part = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    scale = side / max(part.size)
    size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    kept = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    part = part.resize(size, kept)
    if kind in COLOURS:
        x1, y1, x2, y2 = ((v - o) * scale for v, o in zip(box, (left, top, left, top), strict=True))
        draw = ImageDraw.Draw(part, "RGBA")
        for out, width, colour in ((3, 4, "#00000070"), (2, 2, COLOURS[kind])):
            left_top = (max(x1 - out, 0), max(y1 - out, 0))
            right_bottom = (min(x2 + out, part.width) - 1, min(y2 + out, part.height) - 1)
            if right_bottom > left_top and right_bottom[1] > left_top[1]:
                draw.rectangle((*left_top, *right_bottom), outline=colour, width=width)
    return encoded(part, quality=85)


def whole(pixels: Pixels, most: int) -> bytes:
    """An image of at most `most` pixels a side, as JPEG."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > most:
        picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return encoded(picture, quality=92)


def encoded(picture: Image.Image, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def png(pixels: Pixels) -> bytes:
    """(H, W, 4) RGBA as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
