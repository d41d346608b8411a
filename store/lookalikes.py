"""Which images of the workspace look like which: found by their hashes, judged by their thumbnails.

In: image ids. Out: pairs of ids. The hashes of all images stay in memory (`store.known_images`); thumbnails
are read for candidates alone. An image that came before thumbnails were stored gets one from its file when it
is first compared; where the file is gone, its 64-bit hash decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from store.appearance import LUMA, Planes, appearance, planes
from store.blas import one_blas_thread
from store.comparisons import Comparisons
from store.duplicates import pairs_within
from store.errors import CorruptionError, ImageError
from store.hash_table import Rows
from store.images import read_pixels
from store.known_images import KnownImages
from store.likeness import ALIGNED, LIE_SHARE, SAME, block_range, in_place, unlikeness
from store.models import AppearanceRow, Image
from store.session import Database, chunks, upsert

HASH_DISTANCE = 4
"""Bits up to which two images count as one where there is no thumbnail to compare."""
_KEPT = 8192  # thumbnails in memory: 85 MB
_TOGETHER = 256  # candidates of an image judged at a time
_BLOCK = 64  # images compared at a time
_FILLED = 64  # images described in one transaction


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A stored thumbnail, and the (LUMA * LUMA,) range of luma around each block."""

    data: bytes
    luma: NDArray[np.uint8]
    around: NDArray[np.uint8]

    @classmethod
    def of(cls, data: bytes) -> Thumbnail:
        """Prepare a thumbnail for comparing."""
        luma = np.frombuffer(data, dtype=np.uint8, count=LUMA * LUMA)
        around = block_range(luma.reshape(LUMA, LUMA).astype(np.float64))
        return cls(data, luma, around.astype(np.uint8).ravel())

    def mirrored(self) -> Thumbnail:
        """The same of the mirror image; `data` stays."""
        luma, around = (
            np.ascontiguousarray(plane.reshape(LUMA, LUMA)[:, ::-1]).ravel()
            for plane in (self.luma, self.around)
        )
        return Thumbnail(self.data, luma, around)


class Lookalikes:
    """Compares images of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compared = Comparisons(database)
        self._gone: set[int] = set()
        self._known = KnownImages()
        self._thumbnails: dict[int, Thumbnail] = {}
        self._may_be_undone = False  # was something read in the transaction that is open?
        database.on_end.append(self._ended)
        database.on_undo.append(self._undone)

    def _ended(self, committed: bool) -> None:
        if committed:
            self._may_be_undone = False

    def _undone(self) -> None:
        if self._may_be_undone:
            self.forget()

    def forget(self) -> None:
        """Know nothing: what is asked next is read."""
        self._known.forget()
        self._thumbnails = {}
        self._may_be_undone = False

    def _refresh(self) -> None:
        with self._database.reading() as connection:
            self._known.refresh(connection)
        self._may_be_undone |= self._database.connection is not None

    # ------------------------------------------------------------ questions

    def pairs(
        self,
        ids: Sequence[int],
        among: Sequence[int] | None,
        *,
        threshold: float,
        first: bool = False,
        fill: bool = True,
    ) -> Iterator[tuple[int, int]]:
        """Yield (id, other) of images that look alike, never an image with itself, in the order given.

        Args:
            among: what to compare with; None: every image of the workspace.
            threshold: largest `likeness.unlikeness` of one picture.
            first: one pair an id at most. fill: describe images that have no thumbnail yet.
        """
        known = self._known
        self._refresh()
        left = known.rows(ids)
        right = None if among is None else known.rows(among)
        if fill:
            self._fill(np.arange(len(known)) if right is None else np.union1d(left, right))
        try:
            for start in range(0, len(left), _BLOCK):
                block = left[start : start + _BLOCK]
                self._compared.load(known.ids[block].tolist())
                with one_blas_thread():  # products of 64 x 64
                    found = list(self._of_block(block, right, threshold, first))
                for one, other in found:
                    yield int(known.ids[one]), int(known.ids[other])
        finally:
            self._compared.close()

    def like(
        self, described: Sequence[tuple[bytes, bytes]], among: Sequence[int], *, threshold: float
    ) -> Iterator[tuple[int, int]]:
        """Yield (place in `described`, id of `among`) of pictures that are no images of the workspace.

        Args:
            described: (hashes, thumbnail) each, as `store.appearance` makes them.
        """
        known = self._known
        self._refresh()
        right = known.rows(among)
        self._fill(right)
        right = right[known.described[right]]
        if not described or not len(right):
            return
        hashes = np.stack([np.frombuffer(h, dtype="<u8").astype(np.uint64) for h, _ in described])
        for i, j, mirrored in known.part(right).near(hashes):
            for place in np.unique(i):
                own = Thumbnail.of(described[place][1])
                of = i == place
                for row in self._alike(own, right[j[of]], mirrored[of], threshold, first=False):
                    yield int(place), int(known.ids[row])

    def in_place(self, image_id: int, thumbnail: bytes) -> float:
        """How unlike an image and a picture are, as they lie; infinite where the image has no thumbnail."""
        self._refresh()
        rows = self._known.rows([image_id])
        self._fill(rows)
        if not len(rows) or not self._known.described[rows[0]]:
            return float("inf")
        own = self._thumbnail([int(rows[0])])[0]
        return in_place(planes(own.data), planes(thumbnail))

    def fill(self, advance: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Describe every image that has no thumbnail yet; returns (described, without a readable file)."""
        known = self._known
        self._refresh()
        before = int(known.described.sum())
        self._fill(np.arange(len(known)), advance)
        done = int(known.described.sum())
        return done - before, len(known) - done

    # ------------------------------------------------------------ comparing

    def _of_block(
        self, left: Rows, right: Rows | None, threshold: float, first: bool
    ) -> Iterator[tuple[int, int]]:
        """Row pairs of a few images with many (None: all), by the order of both."""
        known = self._known
        found: list[list[int]] = [[] for _ in left]
        for one, other in self._by_phash(left, right, HASH_DISTANCE if threshold > 0 else 0):
            found[one].append(other)
        seen_left = np.flatnonzero(known.described[left])
        table = known.table if right is None else known.part(right)
        for i, j, mirrored in table.near(known.table.rows(left[seen_left])):
            rows = j if right is None else right[j]
            own_rows = left[seen_left[i]]
            real = known.described[rows] & (rows != own_rows)
            i, j, mirrored, rows = i[real], j[real], mirrored[real], rows[real]
            bounds = np.searchsorted(i, np.arange(len(seen_left) + 1))
            for place in np.unique(i).tolist():
                of = slice(bounds[place], bounds[place + 1])
                row = int(left[seen_left[place]])
                own = self._thumbnail([row])[0]
                image = int(known.ids[row])
                alike = set(self._alike(own, rows[of], mirrored[of], threshold, first=first, image=image))
                pairs = zip(j[of].tolist(), rows[of].tolist(), strict=True)
                found[seen_left[place]] += [p for p, other in pairs if other in alike]
        for one, others in enumerate(found):
            ordered = sorted(set(others))
            for other in ordered[:1] if first else ordered:
                yield int(left[one]), other if right is None else int(right[other])

    def _by_phash(self, left: Rows, right: Rows | None, distance: int) -> Iterator[tuple[int, int]]:
        """Places of pairs of which one is not described, by the one hash that all have."""
        known = self._known
        described = known.described if right is None else known.described[right]
        for seen, others in ((False, np.arange(len(described))), (True, np.flatnonzero(~described))):
            own = np.flatnonzero(known.described[left] == seen)
            if len(own) and len(others):
                rows = others if right is None else right[others]
                for i, j in pairs_within(known.phashes[left[own]], known.phashes[rows], distance):
                    different = left[own[i]] != rows[j]
                    yield from zip(own[i[different]].tolist(), others[j[different]].tolist(), strict=True)

    def _alike(
        self,
        own: Thumbnail,
        rows: Rows,
        mirrored: NDArray[np.bool_],
        threshold: float,
        *,
        first: bool,
        image: int | None = None,
    ) -> Iterator[int]:
        """Those of `rows` whose picture is that of `own`, or its mirror image, where so marked.

        Args:
            image: whose thumbnail `own` is: what was compared before is not compared again.
        """
        turned = own.mirrored() if mirrored.any() else own
        for start in range(0, len(rows), _TOGETHER):
            part, flags = rows[start : start + _TOGETHER], mirrored[start : start + _TOGETHER]
            for flag, seen in ((False, own), (True, turned)):
                chosen = part[flags == flag]
                for row, value in self._values(own, seen, chosen, flag, threshold, image):
                    if value <= threshold:
                        yield row
                        if first:
                            return

    def _values(
        self, own: Thumbnail, seen: Thumbnail, rows: Rows, flag: bool, threshold: float, image: int | None
    ) -> Iterator[tuple[int, float]]:
        """(row, unlikeness) of those that are not surely different, in their order."""
        ids = self._known.ids[rows].tolist()
        known = [None if image is None else self._compared.known(image, other, flag) for other in ids]
        open_ = np.array([value is None for value in known], bool)
        thumbnails = dict(zip(rows[open_].tolist(), self._thumbnail(rows[open_].tolist()), strict=True))
        if thumbnails:
            open_[open_] = ~_surely_different(seen, list(thumbnails.values()), threshold)
        exact: Planes | None = None
        for row, other, value, undecided in zip(rows.tolist(), ids, known, open_.tolist(), strict=True):
            if value is not None:
                yield row, value
            elif undecided:
                exact = exact or planes(own.data)
                theirs = planes(thumbnails[row].data)
                if image is None:
                    yield row, unlikeness(exact.mirrored() if flag else exact, theirs)
                    continue
                # Always the same one is mirrored: a pair has one number, to the last bit.
                low, high = (exact, theirs) if image < other else (theirs, exact)
                found = unlikeness(low.mirrored() if flag else low, high)
                self._compared.put(image, other, flag, found)
                yield row, found

    # ------------------------------------------------------------ what is known

    def _thumbnail(self, rows: Sequence[int]) -> list[Thumbnail]:
        ids = [int(self._known.ids[row]) for row in rows]
        missing = [i for i in dict.fromkeys(ids) if i not in self._thumbnails]
        if missing:
            if len(self._thumbnails) + len(missing) > _KEPT:
                kept = {i: self._thumbnails[i] for i in ids if i in self._thumbnails}
                self._thumbnails = kept
            with self._database.reading() as connection:
                for image, data in connection.execute(
                    select(AppearanceRow.image_id, AppearanceRow.thumbnail).where(
                        AppearanceRow.image_id.in_(missing)
                    )
                ):
                    self._thumbnails[image] = Thumbnail.of(data)
        return [self._thumbnails[i] for i in ids]

    def _fill(self, rows: Rows, advance: Callable[[int], None] | None = None) -> None:
        """Describe images from their files, a few a transaction; a workspace that cannot be written keeps
        comparing them by their hashes."""
        if self._database.read_only is not None:
            return
        known = self._known
        wanted = [int(known.ids[row]) for row in rows[~known.described[rows]]]
        wanted = [i for i in wanted if i not in self._gone]
        for part in chunks(wanted, _FILLED):
            with self._database.reading() as connection:
                files = connection.execute(
                    select(Image.id, Image.uri, Image.sha256, Image.run_id).where(Image.id.in_(part))
                ).all()
            made: list[dict[str, Any]] = []
            for image, uri, sha256, run_id in files:
                try:
                    seen = appearance(read_pixels(uri, sha256))
                except (ImageError, CorruptionError):
                    self._gone.add(image)
                    continue
                made.append(
                    {
                        "image_id": image,
                        "hashes": seen.hashes,
                        "thumbnail": seen.thumbnail,
                        "run_id": run_id,
                    }
                )
            if made:
                with self._database.writing() as connection:
                    upsert(connection, AppearanceRow, made, unique=("image_id",), update=())
            for row in made:
                known.describe(row["image_id"], row["hashes"])
            if advance is not None:
                advance(len(part))


def _surely_different(
    own: Thumbnail, others: Sequence[Thumbnail], threshold: float
) -> NDArray[np.bool_]:
    """(N,) whole pictures of equal brightness that differ beyond the tolerance in some block of luma: frames
    of one camera. `unlikeness` would say the same; for all at once it costs a hundredth."""
    luma = np.stack([other.luma for other in others])
    difference = np.maximum(luma, own.luma) - np.minimum(luma, own.luma)
    lying = np.count_nonzero(difference <= SAME, axis=1) >= LIE_SHARE * difference.shape[1]
    # whole levels: a difference is beyond the bound when it is beyond the bound rounded down
    bound = np.minimum(threshold * (ALIGNED.floor + ALIGNED.share * np.arange(256)), 255).astype(np.uint8)
    beyond = difference.max(1) > bound[255]
    unsure = np.flatnonzero(lying & ~beyond)
    if len(unsure):
        around = np.maximum(own.around, np.stack([others[k].around for k in unsure.tolist()]))
        beyond[unsure] = (difference[unsure] > bound[around]).any(1)
    return np.asarray(lying & beyond)
