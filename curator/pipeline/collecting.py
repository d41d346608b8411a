"""`curator gc`: remove the workspace's files that nothing names any more.

In: a workspace. Out: what went, in bytes. All of it can be computed again, or belongs to what was removed:

    blobs      of removed samples, versions, ...: `store.garbage` says which, and which are too young
    vectors    spaces whose rows are mostly those of removed images are written anew without them
    faiss      files of FAISS that their folder's header does not name
    training   WORKSPACE/training/KEY of trainings that no run and no item names
    frames     WORKSPACE/frames/VIDEO of videos of which no image is left
    database   pages of SQLite's file that hold nothing, where `vacuum` asks for them
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.config import StageConfig
from curator.jobs.stage import StageResult, recorded_run
from curator.represent.index.files import read_header
from store.garbage import Quiet, folder_bytes, newest

if TYPE_CHECKING:
    from store.store import Store

STAGE = "gc"
_KEY = re.compile(r"[0-9a-f]{16}")
_FRAME = re.compile(r"/frames/([0-9a-f]{16})/")


@dataclass(frozen=True, kw_only=True)
class CollectConfig(StageConfig):
    """`curator gc`.

    Attributes:
        dry_run: only say what would go. grace: minutes for which every file is left alone.
        vacuum: give the database's free pages back to the disk.
    """

    dry_run: bool = False
    grace: float = 60.0
    vacuum: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "grace")


def collect(store: Store, config: CollectConfig) -> StageResult:
    """Remove what is left over, or with `config.dry_run` count it.

    Returns:
        done: files. The summary holds "parts" (kind -> "files", "bytes"), "bytes" (of all), "dry_run",
        "waiting" (unfinished runs of other machines: nothing younger than the oldest was touched) and
        "database" (bytes of free pages that are left).
    Raises:
        WorkspaceError: another process of this machine is at work, or writes.
    """
    quiet = store.require_quiet(60 * config.grace)
    if config.dry_run:
        return _result(store, config, quiet, 0, _parts(store, config, quiet))
    with recorded_run(store, STAGE, config) as (run_id, counts):
        parts = _parts(store, config, quiet)
        counts.update(done=sum(files for files, _ in parts.values()))
    return _result(store, config, quiet, run_id, parts)


def _parts(store: Store, config: CollectConfig, quiet: Quiet) -> dict[str, tuple[int, int]]:
    """Kind -> (files, bytes); vectors first, as they let go of blobs."""
    dry = config.dry_run
    vectors = store.dead_vectors() if dry else store.compact_vectors()
    found = {
        "vectors": (len(vectors), sum(vectors.values())),
        "blobs": store.loose_blobs(quiet) if dry else store.collect_blobs(quiet),
        "faiss": _swept(list(_faiss(store, quiet)), dry),
        "training": _swept(list(_trainings(store, quiet)), dry),
        "frames": _swept(list(_frames(store, quiet)), dry),
    }
    free = store.free_database_bytes() if config.vacuum else 0
    if free and not dry:
        store.vacuum()
    return {**found, "database": (1 if free else 0, free)}


def _swept(paths: list[Path], dry: bool) -> tuple[int, int]:
    """Remove files and folders; (how many, bytes)."""
    size = sum(folder_bytes(path) if path.is_dir() else path.stat().st_size for path in paths)
    for path in () if dry else paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(paths), size


def _faiss(store: Store, quiet: Quiet) -> Iterator[Path]:
    for folder in (space / "faiss" for space in store.space_folders()):
        header = read_header(folder)
        files = () if header is None else (header.trained, header.dead, *header.shards)
        named = {file.name for file in files if file is not None}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            loose = path.suffix in (".faiss", ".npy", ".part") and path.name not in named
            if loose and path.stat().st_mtime < quiet.before:
                yield path


def _trainings(store: Store, quiet: Quiet) -> Iterator[Path]:
    """Folders of trainings that are neither recorded nor to be continued."""
    folders = _old_folders(store.path / "training", quiet)
    names = [folder.name for folder in folders]
    known = store.begun_items("train", names)
    wanted = set()
    for run in store.runs(stage="train"):
        wanted.add(str(run.facts.get("training", ""))[:16])
    for run in store.runs(stage="verify"):
        wanted.update(str(key)[:16] for key in run.facts.get("trials", ()))
    wanted -= store.begun_items("verify", names)  # a trial's folder goes with its end
    yield from (folder for folder in folders if folder.name not in known | wanted)


def _frames(store: Store, quiet: Quiet) -> Iterator[Path]:
    """Folders of frames of videos without an image."""
    folders = _old_folders(store.path / "frames", quiet)
    if folders:
        named = {found for _, uri in store.image_places() for found in _FRAME.findall(uri)}
        yield from (folder for folder in folders if folder.name not in named)


def _old_folders(root: Path, quiet: Quiet) -> list[Path]:
    folders = sorted(root.iterdir()) if root.is_dir() else []
    named = [path for path in folders if path.is_dir() and _KEY.fullmatch(path.name)]
    return [path for path in named if newest(path) < quiet.before]


def _result(
    store: Store, config: CollectConfig, quiet: Quiet, run_id: int, parts: dict[str, tuple[int, int]]
) -> StageResult:
    summary: dict[str, Any] = {
        "dry_run": config.dry_run,
        "parts": {kind: {"files": files, "bytes": size} for kind, (files, size) in parts.items()},
        "bytes": sum(size for _, size in parts.values()),
        "waiting": list(quiet.waiting),
        "database": store.free_database_bytes(),
    }
    return StageResult(
        stage=STAGE, run_id=run_id, done=sum(files for files, _ in parts.values()), summary=summary
    )
