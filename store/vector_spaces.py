"""Vectors in SQL: which file row belongs to what, and what of the files is committed.

In: vectors with their owners. Out: ids, `VectorBlock`s and search results. One space per (embedder, view).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, exists, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from store.errors import AccessError, NotFoundError
from store.models import Member, VectorRow, VectorSpace
from store.records import Floats, Ints, Role, VectorBlock, VectorOwner
from store.session import Database, chunks, table
from store.vectors import FaissCache, Metric, VectorFile, build_index, search_index

WRITERS = 0x6375726174  # PostgreSQL's advisory lock: ids are given out by one transaction at a time
SOURCES = ("image", "outcome", "candidate", "cell", "region")


class VectorSpaces:
    """The vectors of a workspace.

    Args:
        folder: where the vector files lie.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._touched: dict[int, VectorFile] = {}
        self._indexes: dict[tuple[int, Metric], tuple[bytes, Any]] = {}
        database.before_commit.append(self._sync)
        database.on_end.append(self._finish)

    # ------------------------------------------------------------ writing

    def put(
        self,
        run_id: int,
        embedder: str,
        view: str,
        owners: Sequence[VectorOwner],
        vectors: Floats,
        item_keys: Sequence[str],
    ) -> Ints:
        """Append the vectors of items that are not stored yet; returns the ids of all.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, or an empty item key.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors) == len(owners) == len(item_keys):
            raise ValueError(
                f"vectors: expected (N, D) with N owners and N item keys, "
                f"got {vectors.shape}, {len(owners)} and {len(item_keys)}"
            )
        if not np.isfinite(vectors).all() or not all(item_keys):
            raise ValueError(
                f"vectors: expected finite values and item keys, got others ({embedder}, {view})"
            )
        if not len(vectors):
            return np.zeros(0, np.int64)
        places = list(_with_ordinals(item_keys))
        with self._database.writing() as connection:
            _one_writer(connection)
            space = self._space(connection, run_id, embedder, view, vectors.shape[1])
            ids = self._stored(connection, space.id, item_keys)
            new = [i for i, place in enumerate(places) if place not in ids]
            if new:
                file = self._file(space)
                first = int(connection.scalar(select(func.coalesce(func.max(VectorRow.id), 0))) or 0) + 1
                self._touched[space.id] = file
                file.write(space.committed, vectors[new])
                rows = [
                    _row(run_id, space.id, first + n, space.committed + n, places[i], owners[i])
                    for n, i in enumerate(new)
                ]
                connection.execute(insert(table(VectorRow)), rows)
                committed = space.committed + len(new)
                connection.execute(
                    update(VectorSpace).where(VectorSpace.id == space.id).values(committed=committed)
                )
                ids.update((places[i], first + n) for n, i in enumerate(new))
        return np.array([ids[place] for place in places], dtype=np.int64)

    def _space(self, connection: Connection, run_id: int, embedder: str, view: str, dimension: int) -> Any:
        found = _find_space(connection, embedder, view)
        if found is None:
            row = {
                "embedder": embedder,
                "view": view,
                "dimension": dimension,
                "committed": 0,
                "run_id": run_id,
            }
            connection.execute(insert(table(VectorSpace)), row)
            found = _find_space(connection, embedder, view)
        if found.dimension != dimension:
            raise ValueError(
                f"vectors: expected {found.dimension} values as in the stored ones, got {dimension} "
                f"({embedder}, {view})"
            )
        return found

    def _stored(
        self, connection: Connection, space_id: int, item_keys: Sequence[str]
    ) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        for part in chunks(list(dict.fromkeys(item_keys))):
            query = select(VectorRow.item_key, VectorRow.ordinal, VectorRow.id).where(
                VectorRow.space_id == space_id, VectorRow.item_key.in_(part)
            )
            found.update(((row[0], row[1]), row[2]) for row in connection.execute(query))
        return found

    def _file(self, space: Any) -> VectorFile:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{space.embedder[:60]}.{space.view[:30]}")
        return VectorFile(self._folder / f"{space.id:04d}-{name}.f32", space.dimension)

    def _sync(self) -> None:
        for file in self._touched.values():
            if file.path.exists():
                file.sync()

    def _finish(self, committed: bool) -> None:
        touched, self._touched = self._touched, {}
        if not committed and touched:
            self._cut(touched)

    def cut_tails(self) -> None:
        """Cut off what a killed process wrote and never counted; leave a living writer's alone."""
        with self._database.reading() as connection:
            spaces = connection.execute(select(table(VectorSpace))).all()
        suspects = [space for space in spaces if self._file(space).tail(space.committed)]
        if suspects:
            self._cut({space.id: self._file(space) for space in suspects})

    def _cut(self, files: Mapping[int, VectorFile]) -> None:
        """Cut files of spaces (by id) to what is counted, unless somebody is writing: the tail may be theirs,
        and whoever writes next writes over it."""
        try:
            with self._database.writing(wait=False) as connection:
                # The writers' lock is ours: what is not counted now never will be.
                if _one_writer(connection, wait=False):
                    query = select(VectorSpace.id, VectorSpace.committed).where(VectorSpace.id.in_(files))
                    counts = {row[0]: row[1] for row in connection.execute(query)}
                    for space_id, file in files.items():
                        if space_id in counts:
                            file.truncate(counts[space_id])
                        else:
                            file.path.unlink(missing_ok=True)
        except OperationalError:
            return

    # ------------------------------------------------------------ reading

    def views(self, embedder: str) -> list[str]:
        """Views that hold vectors of an embedder, by name."""
        query = select(VectorSpace.view).where(VectorSpace.embedder == embedder, VectorSpace.committed > 0)
        with self._database.reading() as connection:
            return list(connection.scalars(query.order_by(VectorSpace.view)))

    def read(
        self,
        embedder: str,
        view: str,
        *,
        role: Role | None,
        source: Sequence[str] | None,
        outcome_ids: Sequence[int] | None,
        attribution_ids: Sequence[int] | None,
        image_ids: Sequence[int] | None,
    ) -> VectorBlock:
        """Vectors by image, source (`SOURCES`), outcome and ordinal, whoever came first to store them; none
        where nothing fits.

        Raises:
            AccessError: for role "holdout".
        """
        with self._database.reading() as connection:
            space = _find_space(connection, embedder, view)
            if space is None:
                return VectorBlock(ids=np.zeros(0, np.int64), vectors=np.zeros((0, 0), np.float32), owners=())
            query = _visible(select(table(VectorRow)), space.id, role)
            if source is not None:
                query = query.where(VectorRow.source.in_(list(source)))
            rows = list(_filtered(connection, query, outcome_ids, image_ids))
        if attribution_ids is not None:
            wanted = set(attribution_ids)
            rows = [row for row in rows if row.attribution_id in wanted]
        rows.sort(key=_place)
        positions = np.array([row.position for row in rows], dtype=np.int64)
        return VectorBlock(
            ids=np.array([row.id for row in rows], dtype=np.int64),
            vectors=self._file(space).read(positions, space.committed),
            owners=tuple(_owner(row) for row in rows),
        )

    def search(
        self, embedder: str, view: str, query: Floats, *, k: int, role: Role, metric: Metric
    ) -> tuple[Floats, Ints]:
        """Nearest vectors of the role's images; see `Store.search`.

        Raises:
            NotFoundError: no such embedder and view. ValueError: shapes that do not fit, or k < 1.
        """
        with self._database.reading() as connection:
            space = _find_space(connection, embedder, view)
            if space is None:
                raise NotFoundError(f"no vectors of {embedder!r}, view {view!r}; run `curator index` first")
            allowed = _ids(connection, _visible(select(VectorRow.id), space.id, role))
            rows = select(VectorRow.id, VectorRow.position).where(VectorRow.space_id == space.id)
            placed = np.array(
                [tuple(row) for row in connection.execute(rows.order_by(VectorRow.id))], dtype=np.int64
            ).reshape(-1, 2)
        queries = np.ascontiguousarray(np.atleast_2d(query), dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != space.dimension or k < 1:
            raise ValueError(
                f"search: expected (Q, {space.dimension}) and k >= 1, got {queries.shape} and {k}"
            )
        index = self._index(space, placed[:, 0], placed[:, 1], metric)
        return search_index(index, queries, k, allowed)

    def _index(self, space: Any, ids: Ints, positions: Ints, metric: Metric) -> Any:
        state = ids.tobytes()
        kept = self._indexes.get((space.id, metric))
        if kept is not None and kept[0] == state:
            return kept[1]
        file = self._file(space)
        cache = FaissCache(file.path.with_suffix(f".{metric}.faiss"), metric)
        settled = self._database.connection is None  # ids of an open transaction may yet mean other vectors
        index = cache.load(ids) if settled else None
        if index is None:
            index = build_index(file.read(positions, space.committed), ids, metric)
            if settled:
                cache.save(index, ids)
        if settled:
            self._indexes[space.id, metric] = (state, index)
        return index


def _with_ordinals(item_keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    seen: dict[str, int] = {}
    for key in item_keys:
        yield key, seen.setdefault(key, 0)
        seen[key] += 1


def _row(
    run_id: int, space_id: int, vector_id: int, position: int, place: tuple[str, int], owner: VectorOwner
) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, owner.box)
    return {
        "id": vector_id,
        "space_id": space_id,
        "position": position,
        "item_key": place[0],
        "ordinal": place[1],
        "image_id": owner.image_id,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "source": owner.source,
        "outcome_id": owner.outcome_id,
        "attribution_id": owner.attribution_id,
        "score": float(owner.score),
        "label": int(owner.label),
        "run_id": run_id,
    }


def _place(row: Any) -> tuple[int, ...]:
    return (row.image_id, SOURCES.index(row.source), row.outcome_id or 0, row.ordinal, row.id)


def _owner(row: Any) -> VectorOwner:
    return VectorOwner(
        image_id=row.image_id,
        box=(row.x1, row.y1, row.x2, row.y2),
        source=row.source,
        outcome_id=row.outcome_id,
        attribution_id=row.attribution_id,
        score=row.score,
        label=row.label,
    )


def _one_writer(connection: Connection, *, wait: bool = True) -> bool:
    """Let this transaction alone give out vector ids and rows of files until it ends; True when it may.

    SQLite has the whole database locked already.
    """
    if connection.dialect.name != "postgresql":
        return True
    name = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    found = connection.scalar(text(f"SELECT {name}(:lock)"), {"lock": WRITERS})
    return wait or bool(found)


def _find_space(connection: Connection, embedder: str, view: str) -> Any:
    query = select(table(VectorSpace)).where(VectorSpace.embedder == embedder, VectorSpace.view == view)
    return connection.execute(query).one_or_none()


def _visible(query: Select[Any], space_id: int, role: Role | None) -> Select[Any]:
    """Restrict to a space, and to images of the role, or to all but those of the holdout."""
    if role == "holdout":
        raise AccessError(
            "vectors of the holdout are closed; Store.leaks() names the images that are too near it"
        )
    member = select(Member.id).where(Member.image_id == VectorRow.image_id)
    member = member.where(Member.role == role) if role is not None else member.where(Member.role != "holdout")
    return query.where(VectorRow.space_id == space_id, exists(member))


def _filtered(
    connection: Connection,
    query: Select[Any],
    outcome_ids: Sequence[int] | None,
    image_ids: Sequence[int] | None,
) -> Iterator[Any]:
    if outcome_ids is not None:
        images = None if image_ids is None else set(image_ids)
        for part in chunks(sorted(set(outcome_ids))):
            for row in connection.execute(query.where(VectorRow.outcome_id.in_(part))):
                if images is None or row.image_id in images:
                    yield row
    elif image_ids is not None:
        for part in chunks(sorted(set(image_ids))):
            yield from connection.execute(query.where(VectorRow.image_id.in_(part)))
    else:
        yield from connection.execute(query)


def _ids(connection: Connection, query: Select[Any]) -> NDArray[np.int64]:
    return np.fromiter(connection.scalars(query), dtype=np.int64)
