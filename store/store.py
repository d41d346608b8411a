"""The Store: the one facade over SQL, blobs and vector files.

In: records (`store.records`). Out: records. Only the driver process writes (DESIGN.md, rule 5).

The contract, for every backend:
  ownership    returned records are immutable and detached from the database.
  transactions `with store.transaction():` is the only place that commits or rolls back; a write outside
               of one opens its own. They nest: the outermost commits.
  idempotence  every `put_*` is keyed by content: putting an equal key again changes nothing and returns
               the stored id.
  access       pixels and annotations are asked for with the `reader`'s name; a stage that must not see
               them gets `AccessError` (holdout: "verify" alone; annotations of an unselected pool image:
               "oracle" alone; see `annotations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from store import catalogue, labels, leaks, runs, schema
from store.access import check_pixels
from store.appearance import Appearance
from store.blobs import BlobStore
from store.images import read_pixels
from store.lookalikes import Lookalikes
from store.records import (
    AddedImage,
    AnnotationSet,
    Category,
    ImageRecord,
    ItemStatus,
    Leak,
    Membership,
    NewImage,
    Reader,
    Role,
    RunRecord,
)
from store.session import CHUNK, Database
from store.stored_boxes import StoredBoxes
from store.stored_findings import StoredFindings
from store.stored_products import StoredProducts
from store.stored_removals import StoredRemovals
from store.summary import counts
from store.vectors.spaces import Spaces
from store.workspace import (
    create_folder,
    open_database,
    remove_folder,
    require_empty,
    with_database_errors,
    write_facts,
)


class Store(StoredFindings, StoredBoxes, StoredProducts, StoredRemovals):
    """A workspace: a folder with `curator.db` (or a PostgreSQL URL), `blobs/` and `vectors/`."""

    path: Path

    def __init__(self, path: Path, database: Database) -> None:
        """Use `Store.create` or `Store.open`."""
        self.path = path
        self._database = database
        self._blobs = BlobStore(str(path / "blobs"))
        self._spaces = Spaces(database, path / "vectors", self._blobs)
        self._lookalikes = Lookalikes(database)
        self._run_id: int | None = None

    # ------------------------------------------------------------ life cycle

    @classmethod
    def create(cls, path: Path | str, *, url: str | None = None) -> Store:
        """Make a new workspace and migrate its database to the newest schema.

        Args:
            url: SQLAlchemy URL of a PostgreSQL database; None puts SQLite at `path/curator.db`. The URL is
                remembered in `path/workspace.json` (a password should come from PGPASSWORD).
        Raises:
            WorkspaceError: when `path` is a workspace already, or a non-empty folder that is none.
        """
        path = Path(path).absolute()
        location = create_folder(path, url)
        database = Database(location)
        try:
            with_database_errors(lambda: require_empty(database, path), location)
            schema.upgrade(database, path)
        except BaseException:
            database.close()
            remove_folder(path)
            raise
        write_facts(path, url)
        return cls(path, database)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a workspace. Truncates uncommitted tails of vector files, and marks the runs of this host
        whose process has ended without a word as interrupted.

        Raises:
            WorkspaceError: no workspace there (names `curator -w PATH init`).
            SchemaError: older (names `curator -w PATH db upgrade`) or newer schema (names the upgrade of
                curator).
        """
        path = Path(path).absolute()
        database = open_database(path)
        try:
            with_database_errors(lambda: schema.require_head(database, path), database.url)
            store = cls(path, database)
            if database.read_only is None:
                store._spaces.cut_tails()
                runs.mark_interrupted(database)
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit when the block ends, roll back when it raises; an inner one is a savepoint of the outer."""
        with self._database.writing():
            yield

    # ------------------------------------------------------------ runs and resuming

    def begin_run(
        self,
        stage: str,
        *,
        config: Mapping[str, Any],
        seed: int | None = None,
        models: Sequence[str] = (),
        parents: Sequence[int] = (),
        config_key: str = "",
        scope: str = "",
        aside: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Record the start of a stage; returns the run id. Code version, host and process are filled in here.

        Args:
            config_key, scope, aside, facts: as in `RunRecord`. Rows that the run stores carry its
                `config_key`; it is the stage's current run from now on, unless it is `aside` or fails.
        """
        self._run_id = runs.begin_run(
            self._database,
            stage,
            config=config,
            seed=seed,
            models=models,
            parents=parents,
            config_key=config_key,
            scope=scope,
            aside=aside,
            facts=facts or {},
        )
        return self._run_id

    def describe_run(self, run_id: int, facts: Mapping[str, Any]) -> None:
        """Set a run's facts, where they were not known when it began."""
        runs.describe_run(self._database, run_id, facts)

    def finish_run(
        self,
        run_id: int,
        *,
        status: Literal["done", "partial", "failed", "interrupted"],
        counts: Mapping[str, int],
    ) -> None:
        runs.finish_run(self._database, run_id, status=status, counts=counts)

    def current_run(self, stage: str, scope: str | None = None) -> RunRecord | None:
        """The newest run of a stage that was begun to be current and did not fail (done, partial, interrupted
        or still going on); of one scope, where one is named."""
        return runs.current_run(self._database, stage, scope)

    def runs(self, *, stage: str | None = None) -> list[RunRecord]:
        """Newest first."""
        return runs.runs(self._database, stage)

    def done_keys(self, stage: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` whose item is recorded as done for the stage (failed ones are tried again)."""
        return runs.done_keys(self._database, stage, keys)

    def record_items(self, run_id: int, items: Sequence[ItemStatus]) -> None:
        """Upsert item states by (stage of the run, key), under the run's configuration."""
        runs.record_items(self._database, run_id, items)

    def claim_items(self, run_id: int, keys: Sequence[str]) -> set[str]:
        """`done_keys` of a run's stage; counts them as the run's, where an older version of the schema did
        not know whose they are."""
        return runs.claim_items(self._database, run_id, keys)

    def failed_items(self, run_id: int) -> list[ItemStatus]:
        return runs.failed_items(self._database, run_id)

    # ------------------------------------------------------------ images, annotations, access

    def add_images(self, run_id: int, images: Sequence[NewImage]) -> list[AddedImage]:
        """Upsert images by sha256, memberships by (image, dataset, role), annotations as a new version when
        their content changed. New categories are created. One result per input, in order."""
        return catalogue.add_images(
            self._database, self._lookalikes, run_id, images, self.near_threshold
        )

    def ids_by_sha256(self, hashes: Sequence[str]) -> dict[str, int]:
        """sha256 -> image id of the files that the workspace knows."""
        return catalogue.ids_by_sha256(self._database, hashes)

    def hashes_of(self, ids: Sequence[int]) -> list[str]:
        """The sha256 of images, by id; ids that the workspace does not hold are passed over."""
        return catalogue.hashes_of(self._database, ids)

    def catalogue_state(self) -> str:
        """Digest of all memberships: it changes when an image comes, goes, or takes another role or group."""
        return catalogue.state(self._database)

    def put_categories(self, names: Sequence[str]) -> None:
        """Create the categories that are missing, in this order: exports number classes by it."""
        catalogue.put_categories(self._database, names)

    def categories(self) -> list[Category]:
        return labels.categories(self._database)

    def images(
        self,
        *,
        reader: Reader,
        role: Role | None = None,
        ids: Sequence[int] | None = None,
        dataset: str | None = None,
    ) -> list[ImageRecord]:
        """Images by id order. `role="holdout"` (or ids of holdout-only images) needs reader "verify"."""
        return catalogue.images(self._database, reader=reader, role=role, ids=ids, dataset=dataset)

    def iter_images(
        self, *, reader: Reader, roles: Sequence[Role], rows: int = CHUNK
    ) -> Iterator[list[ImageRecord]]:
        """Images of any of the roles, each once, by id order, in pages of `rows`; access as `images`."""
        return catalogue.iter_images(self._database, reader=reader, roles=roles, rows=rows)

    def image_ids(self, *, role: Role, dataset: str | None = None) -> list[int]:
        """Ids are no secret: any stage may list them."""
        return catalogue.image_ids(self._database, role, dataset)

    def image_count(self, *, role: Role) -> int:
        return catalogue.image_count(self._database, role)

    def memberships(self, image_ids: Sequence[int] | None = None) -> list[Membership]:
        return catalogue.memberships(self._database, image_ids)

    def counts(self) -> Mapping[str, int]:
        """Rows by noun, for `curator status`: images per role, annotations, detections, failures, ..."""
        return counts(self._database)

    def pixels(self, image: ImageRecord, *, reader: Reader) -> NDArray[np.uint8]:
        """Decode (H, W, 3) uint8 RGB with EXIF orientation applied; access is checked.

        Raises:
            AccessError: holdout pixels for another reader than "verify".
            CorruptionError: the file's sha256 is no longer the recorded one.
            ImageError: missing file or undecodable bytes.
        """
        with self._database.reading() as connection:
            check_pixels(connection, [image.id], reader)
        return read_pixels(image.uri, image.sha256)

    def annotations(self, image_ids: Sequence[int], *, reader: Reader) -> dict[int, AnnotationSet]:
        """Newest annotation version per image (absent for unlabelled images).

        Raises:
            AccessError: an image whose roles are only "pool" and that is in no stored selection (reader
                "oracle" excepted), or "holdout" for another reader than "verify".
        """
        return labels.annotation_sets(self._database, image_ids, reader)

    def tags(self, image_ids: Sequence[int], *, reader: Reader) -> dict[int, dict[str, str]]:
        """Tags under the same access rule as annotations."""
        return labels.tags(self._database, image_ids, reader)

    def leaks(
        self, image_ids: Sequence[int], *, roles: Sequence[Role] = ("mine", "holdout")
    ) -> dict[int, Leak]:
        """Those of `image_ids` that must not be added, with the reason: one of `roles` itself, nearly equal
        to such an image, or of a holdout image's group (`Leak`). The only window other stages have on the
        holdout."""
        return leaks.leaks(self._database, self._lookalikes, image_ids, roles)

    def picture_leaks(
        self, pictures: Sequence[Appearance], *, roles: Sequence[Role] = ("mine", "holdout")
    ) -> list[tuple[Leak, ...]]:
        """The same for pictures that are no images, such as samples: per picture all that it looks like."""
        return leaks.picture_leaks(self._database, self._lookalikes, pictures, roles)

    def same_picture(self, image_id: int, picture: Appearance) -> bool:
        """Is a picture the image, written anew or resized, neither cut nor mirrored? Whatever the workspace's
        `near_threshold`: this is asked of files that bear the image's name."""
        return leaks.same_picture(self._lookalikes, image_id, picture)

    def near_duplicates(self, image_ids: Sequence[int], among: Sequence[int]) -> dict[int, int]:
        """image id -> the first image id of `among` (never itself) that is equal or nearly equal to it."""
        return catalogue.near_duplicates(self._lookalikes, image_ids, among, self.near_threshold)

    @property
    def near_threshold(self) -> float:
        """How unlike two pictures may be that count as one (`store.likeness`, docs/decisions/0008)."""
        return leaks.near_threshold(self._database)

    def describe_images(self, advance: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Store what images are compared by, for those of an older workspace; returns (described, images
        whose file is gone or changed: they are compared by a hash)."""
        return self._lookalikes.fill(advance)
