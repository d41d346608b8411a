"""What every part of the page works with: the workspace, what is current in it, its pictures.

In: an open Store. Out: plain values and bytes. Images and labels are read as "report" does: never the
holdout's, never labels of the pool.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curator.diagnose.current import Current
from curator.diagnose.run_current import find_current
from curator.review.pictures import PictureCache, Pixels, crop, whole
from store.errors import NotFoundError
from store.records import BoxTuple, ImageRecord, Reader

if TYPE_CHECKING:
    from store.store import Store

READER: Reader = "report"
DECODED = 8  # whole images kept in memory
CHANGED_BY = ("diagnose", "explain", "remove")


class Desk:
    """The workspace as the page sees it.

    Attributes:
        author: who is recorded with every change.
        stamp: part of every picture's address, so that a browser never shows another workspace's.
    """

    def __init__(self, store: Store, *, author: str, stamp: str) -> None:
        self.store = store
        self.author = author
        self.stamp = stamp
        self.cache = PictureCache()
        self._writing = threading.Lock()
        self._decoding = threading.Lock()
        self._decoded: OrderedDict[int, Pixels] = OrderedDict()
        self._current: tuple[object, Current | None] = (None, None)
        self._ends: list[Callable[[], None]] = []

    def on_close(self, act: Callable[[], None]) -> None:
        """Call `act` when the page is closed."""
        self._ends.append(act)

    def close(self) -> None:
        for act in self._ends:
            act()
        self.cache.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One change at a time."""
        with self._writing:
            yield

    def current(self) -> Current | None:
        """What is diagnosed and explained now; read anew only where a run changed it."""
        runs = [self.store.current_run(stage) for stage in CHANGED_BY]
        state = [None if run is None else (run.id, run.status, dict(run.counts)) for run in runs]
        if self._current[0] != state:
            self._current = (state, find_current(self.store))
        return self._current[1]

    def image(self, image_id: int) -> ImageRecord:
        """An image that the page may show.

        Raises:
            NotFoundError: there is none. AccessError: it is held out.
        """
        found = self.store.images(reader=READER, ids=[image_id])
        if not found:
            raise NotFoundError(f"no image {image_id} in this workspace")
        return found[0]

    def pixels(self, image: ImageRecord) -> Pixels:
        """Decoded once for the crops of one image that are asked for together."""
        with self._decoding:
            if image.id in self._decoded:
                self._decoded.move_to_end(image.id)
                return self._decoded[image.id]
        pixels = self.store.pixels(image, reader=READER)
        with self._decoding:
            self._decoded[image.id] = pixels
            while len(self._decoded) > DECODED:
                self._decoded.popitem(last=False)
        return pixels

    def crop(self, image_id: int, box: BoxTuple, kind: str, side: int) -> bytes:
        """A framed crop of an image."""
        image = self.image(image_id)
        key = ("crop", image.sha256, [round(v, 2) for v in box], kind, side)
        return self.cache.get(key, lambda: crop(self.pixels(image), box, kind=kind, side=side))

    def picture(self, image_id: int, most: int) -> bytes:
        """A whole image."""
        image = self.image(image_id)
        return self.cache.get(("image", image.sha256, most), lambda: whole(self.pixels(image), most))

    def made(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """Any other picture."""
        return self.cache.get(key, make)


def name_of(uri: str) -> str:
    """A file's name for people."""
    return uri.replace("\\", "/").rpartition("/")[2]
