"""Which images of the workspace look like which: found by their hashes, judged by their thumbnails.

In: image ids. Out: pairs of ids. The hashes of all images stay in memory, 105 bytes an image; thumbnails are
read for candidates alone. An image that came before thumbnails were stored gets one from its file when it is
first compared; where the file is gone, its 64-bit hash decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from store.appearance import HASHES, LUMA, Planes, appearance, planes
from store.comparisons import Comparisons
from store.duplicates import candidates, pairs_within, parse_hashes
from store.errors import CorruptionError, ImageError
from store.images import read_pixels
from store.likeness import ALIGNED, LIE_SHARE, SAME, block_range, unlikeness
from store.models import AppearanceRow, Image
from store.session import Database, chunks, upsert

HASH_DISTANCE = 4
"""Bits up to which two images count as one where there is no thumbnail to compare."""
_KEPT = 8192  # thumbnails in memory: 85 MB
_TOGETHER = 256  # candidates of an image judged at a time
_PAIRS = 500_000
_FILLED = 64  # images described in one transaction

Rows = NDArray[np.int64]


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
        self.forget()
        database.on_end.append(lambda committed: None if committed else self.forget())

    def forget(self) -> None:
        """Know nothing: what is asked next is read."""
        self._ids: Rows = np.zeros(0, dtype=np.int64)
        self._phashes = np.zeros(0, dtype=np.uint64)
        self._hashes = np.zeros((0, HASHES), dtype=np.uint64)
        self._described = np.zeros(0, dtype=bool)
        self._thumbnails: dict[int, Thumbnail] = {}

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
        with self._database.reading() as connection:
            self._refresh(connection)
            left = self._rows(ids)
            right = np.arange(len(self._ids)) if among is None else self._rows(among)
        if fill:
            self._fill(np.union1d(left, right))
        step = max(1, _PAIRS // max(1, len(right)))
        try:
            for start in range(0, len(left), step):
                block = left[start : start + step]
                self._compared.load(self._ids[block].tolist())
                for one, other in list(self._of_block(block, right, threshold, first)):
                    yield int(self._ids[one]), int(self._ids[other])
        finally:
            self._compared.close()

    def like(
        self, described: Sequence[tuple[bytes, bytes]], among: Sequence[int], *, threshold: float
    ) -> Iterator[tuple[int, int]]:
        """Yield (place in `described`, id of `among`) of pictures that are no images of the workspace.

        Args:
            described: (hashes, thumbnail) each, as `store.appearance` makes them.
        """
        with self._database.reading() as connection:
            self._refresh(connection)
            right = self._rows(among)
        self._fill(right)
        right = right[self._described[right]]
        if not described:
            return
        hashes = np.stack([np.frombuffer(h, dtype="<u8").astype(np.uint64) for h, _ in described])
        for i, j, mirrored in candidates(hashes, self._hashes[right]):
            for place in np.unique(i):
                own = Thumbnail.of(described[place][1])
                of = i == place
                for row in self._alike(own, right[j[of]], mirrored[of], threshold, first=False):
                    yield int(place), int(self._ids[row])

    def fill(self, advance: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Describe every image that has no thumbnail yet; returns (described, without a readable file)."""
        with self._database.reading() as connection:
            self._refresh(connection)
        before = int(self._described.sum())
        self._fill(np.arange(len(self._ids)), advance)
        done = int(self._described.sum())
        return done - before, len(self._ids) - done

    # ------------------------------------------------------------ comparing

    def _of_block(
        self, left: Rows, right: Rows, threshold: float, first: bool
    ) -> Iterator[tuple[int, int]]:
        """Row pairs of a few images with many, by the order of both."""
        seen_left, seen_right = (np.flatnonzero(self._described[rows]) for rows in (left, right))
        found: list[list[int]] = [[] for _ in left]
        distance = HASH_DISTANCE if threshold > 0 else 0
        for i, j in pairs_within(self._phashes[left], self._phashes[right], distance):
            unsure = ~(self._described[left[i]] & self._described[right[j]])
            for one, other in zip(i[unsure].tolist(), j[unsure].tolist(), strict=True):
                found[one].append(other)
        for i, j, mirrored in candidates(self._hashes[left[seen_left]], self._hashes[right[seen_right]]):
            bounds = np.searchsorted(i, np.arange(len(seen_left) + 1))
            for place in np.unique(i).tolist():
                of = slice(bounds[place], bounds[place + 1])
                row = int(left[seen_left[place]])
                places, flags = seen_right[j[of]], mirrored[of]
                other_one = right[places] != row
                places, flags = places[other_one], flags[other_one]
                own = self._thumbnail([row])[0]
                image = int(self._ids[row])
                alike = set(self._alike(own, right[places], flags, threshold, first=first, image=image))
                found[seen_left[place]] += [p for p in places.tolist() if int(right[p]) in alike]
        for one, others in enumerate(found):
            ordered = [other for other in sorted(set(others)) if right[other] != left[one]]
            for other in ordered[:1] if first else ordered:
                yield int(left[one]), int(right[other])

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
        ids = self._ids[rows].tolist()
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

    def _rows(self, ids: Sequence[int]) -> Rows:
        wanted = np.array(list(dict.fromkeys(ids)), dtype=np.int64)
        rows = np.searchsorted(self._ids, wanted)
        known = rows < len(self._ids)
        known[known] = self._ids[rows[known]] == wanted[known]
        return np.asarray(rows[known], dtype=np.int64)

    def _refresh(self, connection: Connection) -> None:
        """Read what was added since; everything, where that does not add up."""
        count, newest = connection.execute(select(func.count(), func.max(Image.id))).one()
        last = int(self._ids[-1]) if len(self._ids) else -1
        if (count, -1 if newest is None else newest) == (len(self._ids), last):
            return
        if count > len(self._ids):
            self._read(connection, last)
        if count != len(self._ids) or (count and int(self._ids[-1]) != newest):
            self.forget()  # images were removed, or another writer's smaller id came later
            self._read(connection, -1)

    def _read(self, connection: Connection, after: int) -> None:
        rows = connection.execute(
            select(Image.id, Image.phash, AppearanceRow.hashes)
            .outerjoin(AppearanceRow, AppearanceRow.image_id == Image.id)
            .where(Image.id > after)
            .order_by(Image.id)
        ).all()
        nothing = bytes(8 * HASHES)
        hashes = np.frombuffer(b"".join(row[2] or nothing for row in rows), dtype="<u8")
        self._ids = np.concatenate([self._ids, np.array([row[0] for row in rows], dtype=np.int64)])
        self._phashes = np.concatenate([self._phashes, parse_hashes([row[1] for row in rows])])
        self._hashes = np.concatenate([self._hashes, hashes.astype(np.uint64).reshape(-1, HASHES)])
        self._described = np.concatenate(
            [self._described, np.array([row[2] is not None for row in rows], dtype=bool)]
        )

    def _thumbnail(self, rows: Sequence[int]) -> list[Thumbnail]:
        ids = [int(self._ids[row]) for row in rows]
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
        wanted = [int(self._ids[row]) for row in rows[~self._described[rows]]]
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
                place = int(np.searchsorted(self._ids, row["image_id"]))
                self._hashes[place] = np.frombuffer(row["hashes"], dtype="<u8")
                self._described[place] = True
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
