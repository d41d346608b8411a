"""Which images of an addition equal or nearly equal others, counted by image and by pair.

In: images as they are stored, and what the Store says of each. Out: counts and lines in an `EqualTally`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curator.data.formats.base import LabelledImage
from store.keys import content_key
from store.records import AddedImage, NewImage, Role

if TYPE_CHECKING:
    from store.store import Store

NAMED = 200
"""Pairs of equal images that a summary names; it counts them all."""


@dataclass(slots=True)
class EqualTally:
    """The part of a summary that tells of equal images.

    Attributes:
        duplicate_count: images (files) of this data set that are equal or nearly equal to at least one
            other, in it or elsewhere, leaks apart. duplicate_pairs: the pairs that they make.
        duplicates: a line for each of the first pairs.
        leak_count: images of this data set equal or nearly equal to one in a role that must stay apart.
        leak_pairs, leaks: as of duplicates.
        near_count: those of all these pairs that are nearly equal.
    """

    duplicate_count: int = 0
    duplicate_pairs: int = 0
    duplicates: list[str] = field(default_factory=list)
    leak_count: int = 0
    leak_pairs: int = 0
    leaks: list[str] = field(default_factory=list)
    near_count: int = 0


class Seen:
    """Files, equal images and pairs of one addition, in a private SQLite file: memory stays flat."""

    def __enter__(self) -> Seen:
        self.database = sqlite3.connect("")
        self.database.execute("CREATE TABLE seen (sha256 TEXT PRIMARY KEY, name TEXT, labels TEXT)")
        self.database.execute("CREATE TABLE counted (key TEXT PRIMARY KEY)")
        return self

    def __exit__(self, *exc: object) -> None:
        self.database.close()

    def first(self, sha256: str, image: LabelledImage) -> tuple[str, bool] | None:
        """(name, are its labels different) of an earlier file with the same bytes; None for the first one."""
        labels = content_key(image.annotations)
        row = self.database.execute("SELECT name, labels FROM seen WHERE sha256 = ?", (sha256,)).fetchone()
        if row is None:
            self.database.execute("INSERT INTO seen VALUES (?, ?, ?)", (sha256, image.name, labels))
            return None
        return row[0], row[1] != labels

    def new(self, *words: object) -> bool:
        """Is this the first time that it is counted?"""
        key = content_key(words)
        return self.database.execute("INSERT OR IGNORE INTO counted VALUES (?)", (key,)).rowcount > 0

    def twin(self, name: str, sha256: str, first: str, tally: EqualTally) -> None:
        """Count a file with the bytes of an earlier one."""
        tally.duplicate_count += 1 + self.new("duplicate", sha256)
        tally.duplicate_pairs += 1
        if len(tally.duplicates) < NAMED:
            tally.duplicates.append(f"{name} (same file as {first})")


def is_leak(one: Role, other: Role) -> bool:
    """True when equal images in these two roles would spoil what is proven on holdout or mined images."""
    roles = {one, other}
    return ("holdout" in roles and len(roles) == 2) or roles == {"pool", "mine"}


def name_equals(
    store: Store,
    new: Sequence[NewImage],
    names: Sequence[str],
    added: Sequence[AddedImage],
    seen: Seen,
    tally: EqualTally,
) -> None:
    """Count and name the equal images of a batch. A pair of one data set is reported by one of both, or by
    both, as they were stored: both are counted, and the pair once.

    Args:
        names: of the files, as people know them.
    """
    others = sorted({other for result in added for other, _ in result.same_as})
    if not others:
        return
    members = store.memberships(others)
    sources = {(m.image_id, m.role): f"{m.dataset}/{m.source or m.image_id}" for m in members}
    here = {(m.image_id, m.role, m.dataset) for m in members}
    hashes = dict(zip(others, store.hashes_of(others), strict=True))
    for record, name, result in zip(new, names, added, strict=True):
        for other, role in result.same_as:
            if other == result.image_id and role == record.role:
                continue
            kind = "leak" if is_leak(record.role, role) else "duplicate"
            own, its = record.sha256, hashes[other]
            images = int(seen.new(kind, own))
            if own != its and (other, record.role, record.dataset) in here:
                images += seen.new(kind, its)
            pair = sorted([own, its]) if role == record.role else [own, its]
            first = seen.new("pair", pair, role)
            near = other != result.image_id
            text = (
                f"{name} ({record.role}) {'nearly equals' if near else 'equals'} "
                f"{sources.get((other, role), other)} ({role})"
            )
            tally.near_count += near and first
            if kind == "leak":
                tally.leak_count += images
                tally.leak_pairs += first
            else:
                tally.duplicate_count += images
                tally.duplicate_pairs += first
            named = tally.leaks if kind == "leak" else tally.duplicates
            if first and len(named) < NAMED:
                named.append(text)
