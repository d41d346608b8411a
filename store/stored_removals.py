"""The part of the Store for removing things, and the files that nothing names then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from store import garbage, removal, removal_plan, removal_products
from store.blobs import BlobStore
from store.errors import NotFoundError, WorkspaceError
from store.garbage import Quiet
from store.lookalikes import Lookalikes
from store.models import Image, OutcomeRow, SampleRow, SpaceRow
from store.records import MembershipFilter, RemovalPlan
from store.runs import largest_ids, other_runs
from store.session import Database, chunks
from store.vectors.removed import dead_share
from store.vectors.spaces import Spaces

MOSTLY = 0.5
"""Part of a space's rows that belongs to removed images, from which on its files are written anew."""


class StoredRemovals:
    """Removes images, selections, samples, verifications, vector spaces and models, and collects garbage.

    Every `remove_*` is one transaction, or where it says so several, each of which leaves a consistent
    workspace; all return the rows that went, by table. Files of the user are never touched; those of the
    workspace go in `collect_*`.
    """

    path: Path
    _database: Database
    _blobs: BlobStore
    _spaces: Spaces
    _lookalikes: Lookalikes

    def removal_facts(self) -> dict[str, Any]:
        """Facts of the run (stage "remove") under which things are removed, begun before anything goes: the
        ids that were given out so far, which never come back."""
        with self._database.reading() as connection:
            return {"last": largest_ids(connection, (Image, OutcomeRow, SampleRow, SpaceRow))}

    def require_alone(self) -> None:
        """Refuse while a run of another process of this machine goes on.

        Raises:
            WorkspaceError: names it.
        """
        for number, stage, _, _, here in other_runs(self._database):
            if here:
                raise WorkspaceError(f"run {number} ({stage}) is going on; wait until it is done")

    # ------------------------------------------------------------ images

    def images_of(self, which: MembershipFilter) -> list[int]:
        """Images that have such a membership, by id."""
        with self._database.reading() as connection:
            return removal.members(connection, which)

    def known_images(self, ids: Sequence[int]) -> list[int]:
        """Those of some ids that are images, by id."""
        with self._database.reading() as connection:
            return removal_plan.known_images(connection, ids)

    def image_places(self) -> Iterator[tuple[int, str]]:
        """(id, URI) of all images, by id; to find them by the names of their files."""
        with self._database.reading() as connection:
            yield from removal_plan.image_places(connection)

    def plan_images(self, ids: Sequence[int], which: MembershipFilter) -> RemovalPlan:
        """What `remove_images` would do."""
        with self._database.reading() as connection:
            return removal_plan.plan_images(connection, ids, which)

    def remove_images(self, ids: Sequence[int], which: MembershipFilter) -> Counter[str]:
        """Remove memberships of images, and with the last one the image and all that is derived of it alone;
        in transactions of 20,000 images."""
        gone: Counter[str] = Counter()
        for part in chunks(ids, removal.BATCH):
            with self._database.writing() as connection:
                gone += removal.remove_images(connection, self._spaces, part, which)
            self._lookalikes.forget()
        return gone

    # ------------------------------------------------------------ products

    def removable(self) -> Mapping[str, list[str]]:
        """Names of what can be removed, by kind: "dataset", "selection", "feedback", "samples",
        "verification", "index"."""
        with self._database.reading() as connection:
            return removal_plan.known_names(connection)

    def known_samples(self, ids: Sequence[int]) -> list[int]:
        """Those of some ids that are samples, by id."""
        with self._database.reading() as connection:
            return removal_plan.known_samples(connection, ids)

    def plan_selection(self, name: str) -> RemovalPlan:
        """What `remove_selection` would do."""
        with self._database.reading() as connection:
            return removal_plan.plan_selection(connection, name)

    def remove_selection(self, name: str) -> Counter[str]:
        """Remove a selection, its hits and what was said of them: its images' labels are hidden again."""
        with self._database.writing() as connection:
            return +removal.delete_parts(connection, removal_products.selection_parts(name))

    def plan_samples(self, ids: Sequence[int] | None = None, *, name: str | None = None) -> RemovalPlan:
        """What `remove_samples` would do."""
        with self._database.reading() as connection:
            return removal_plan.plan_samples(connection, ids, name)

    def remove_samples(self, ids: Sequence[int] | None = None, *, name: str | None = None) -> Counter[str]:
        """Remove the samples of a batch, whatever painted them, or some by id."""
        with self._database.writing() as connection:
            return +removal.delete_parts(connection, removal_products.samples_of(ids, name))

    def plan_verification(self, name: str) -> RemovalPlan:
        """What `remove_verification` would do."""
        with self._database.reading() as connection:
            return removal_plan.plan_verification(connection, name)

    def remove_verification(self, name: str) -> Counter[str]:
        """Remove the trials of a verification, and its gallery."""
        with self._database.writing() as connection:
            return removal_products.remove_verification(connection, name)

    def plan_spaces(self, names: Sequence[str]) -> RemovalPlan:
        """What `remove_spaces` would do."""
        with self._database.reading() as connection:
            return removal_plan.plan_spaces(connection, self._space_ids(names))

    def remove_spaces(self, names: Sequence[str]) -> Counter[str]:
        """Remove vector spaces with their files: `curator index` embeds anew."""
        with self._database.writing() as connection:
            parts = removal_products.space_parts(self._space_ids(names))
            gone = +removal.delete_parts(connection, parts)
        self._cut()
        return gone

    def _space_ids(self, names: Sequence[str]) -> list[int]:
        return [space.id for space in self._spaces.space_rows() if space.name in names]

    # ------------------------------------------------------------ models

    def models_called(self, said: str) -> list[tuple[int, str, str]]:
        """(id, spec, fingerprint) of the models of a spec or of a fingerprint, and of equal weights.

        Raises:
            NotFoundError: there are none; names those that are there.
        """
        with self._database.reading() as connection:
            found = removal_products.models_called(connection, said)
            known = removal_products.models_called(connection, "") if not found else []
        if not found:
            there = ", ".join(f"{spec} ({fingerprint[:12]})" for _, spec, fingerprint in known)
            raise NotFoundError(f"no model {said!r}; there are: {there or 'none'}")
        return found

    def plan_model(self, said: str) -> RemovalPlan:
        """What `remove_model` would do."""
        ids, fingerprints = self._models(said)
        with self._database.reading() as connection:
            return removal_plan.plan_model(connection, ids, fingerprints)

    def remove_model(self, said: str) -> Counter[str]:
        """Remove a model's detections, outcomes, explanations and vectors, in several transactions; what was
        made for its failures stays."""
        gone = removal_products.remove_model(self._database, *self._models(said))
        self._cut()
        return gone

    def _models(self, said: str) -> tuple[list[int], set[str]]:
        found = self.models_called(said)
        return [number for number, _, _ in found], {fingerprint for _, _, fingerprint in found}

    def _cut(self) -> None:
        if self._database.connection is None:  # else the next opening does it
            self._spaces.cut_tails()

    # ------------------------------------------------------------ garbage

    def require_quiet(self, grace: float) -> Quiet:
        """What may be collected: nothing younger than `grace` seconds, or than the oldest unfinished run.

        Raises:
            WorkspaceError: another process of this machine is at work, or writes.
        """
        return garbage.require_quiet(self._database, time.time(), grace)

    def loose_blobs(self, quiet: Quiet) -> tuple[int, int]:
        """(files, bytes) of blobs that nothing names."""
        with self._database.reading() as connection:
            named = garbage.named_blobs(connection, self._blobs)
        sizes = [size for _, size in garbage.loose_blobs(self.path / "blobs", named, quiet.before)]
        return len(sizes), sum(sizes)

    def collect_blobs(self, quiet: Quiet) -> tuple[int, int]:
        """Remove blobs that nothing names; returns (files, bytes)."""
        with self._database.reading() as connection:
            named = garbage.named_blobs(connection, self._blobs)
        freed = [
            garbage.drop_blob(path, named, quiet.before)
            for path, _ in garbage.loose_blobs(self.path / "blobs", named, quiet.before)
        ]
        return sum(size > 0 for size in freed), sum(freed)

    def dead_vectors(self) -> dict[str, int]:
        """Name of a space that is mostly rows of removed images -> bytes that compaction frees, about."""
        found = {}
        for space in self._spaces.space_rows():
            if (share := dead_share(space)) > MOSTLY:
                found[space.name] = self._spaces.dead_bytes(space, share)
        return found

    def compact_vectors(self) -> dict[str, int]:
        """Write these spaces anew, each in a transaction; returns what `dead_vectors` said of them."""
        found = self.dead_vectors()
        for space in self._spaces.space_rows():
            if space.name in found:
                self._spaces.compact(space.id)
        self._cut()
        return found

    def begun_items(self, stage: str, beginnings: Sequence[str]) -> set[str]:
        """Those of some beginnings of keys that an item of a stage has."""
        with self._database.reading() as connection:
            return {own for own in beginnings if removal_plan.has_item(connection, stage, own)}

    def space_folders(self) -> list[Path]:
        """The folders of all vector spaces."""
        return [self._spaces.folder(space.name) for space in self._spaces.space_rows()]

    def free_database_bytes(self) -> int:
        """Bytes of the database's file that hold nothing (SQLite)."""
        return garbage.free_bytes(self._database)

    def vacuum(self) -> None:
        """Give them back to the disk."""
        self._database.require_writable()
        garbage.vacuum(self._database)
