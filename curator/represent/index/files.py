"""The files of an index: FAISS files, and one header that names them with what they hold.

    FOLDER/index.json                    the header, replaced as a whole; what it does not name is nothing
           GENERATION-trained.faiss      trained, without rows
           GENERATION-FIRST-END.faiss    a shard: rows FIRST .. END - 1
           GENERATION-NAME-dead.npy      numbers of rows that are never returned

A file is written under another name, read back for its checksum, and then renamed; the header comes last. So
a process that is killed leaves an index that is sound, if not finished, and at worst a file that nobody
names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curator.represent.index.base import Effort, Ints, Kind, Metric, Rows, library

FORMAT = 1
HEADER = "index.json"
_CHECKED = 256  # rows whose values enter the digest
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file with its length and CRC-32; `first`, `end`: the rows of a shard, or 0."""

    name: str
    size: int
    crc32: int
    first: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the files of a folder hold.

    Attributes:
        rows: rows 0 .. rows - 1 are held. digest: of their number and of some rows' values.
        planned: number of rows when it was planned and trained. sample: rows it was trained on.
        partial: the build was not finished.
    """

    kind: str
    metric: Metric
    dimension: int
    parameters: Mapping[str, int]
    generation: str
    rows: int
    digest: str
    planned: int
    sample: int
    trained: File | None
    shards: Sequence[File]
    dead: File | None
    partial: bool
    efforts: Sequence[Effort]
    queries: int
    measured_at: int


def read_header(folder: Path) -> Header | None:
    """The header; None where there is none, it is damaged, or another version wrote it."""
    try:
        facts = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        body = facts["header"]
        if facts["format"] != FORMAT or facts["crc32"] != _crc(body):
            return None
        files = {name: None if body[name] is None else File(**body[name]) for name in ("trained", "dead")}
        lists = {
            "shards": tuple(File(**shard) for shard in body["shards"]),
            "efforts": tuple(Effort(**effort) for effort in body["efforts"]),
        }
        return Header(**{**body, **files, **lists})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_header(folder: Path, header: Header) -> None:
    """Make the header the folder's, and remove the files of indexes that it does not name."""
    body = dataclasses.asdict(header)
    text = json.dumps({"format": FORMAT, "crc32": _crc(body), "header": body}, indent=1)
    part = folder / f"{HEADER}.{uuid.uuid4().hex}.part"
    with open(part, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, folder / HEADER)
    named = {file.name for file in (header.trained, header.dead, *header.shards) if file is not None}
    for path in folder.iterdir():
        if path.suffix in (".faiss", ".npy", ".part") and path.name not in named:
            path.unlink(missing_ok=True)


def save_index(folder: Path, name: str, index: Any, *, first: int = 0, end: int = 0) -> File:
    """Write a FAISS index; complete or not at all."""
    faiss = library()
    part = folder / f"{name}.{uuid.uuid4().hex}.part"
    faiss.write_index(index, str(part))
    return _settle(part, folder / name, first, end)


def load_index(folder: Path, file: File, kind: Kind, *, mapped: bool) -> Any | None:
    """The FAISS index of a file; None where it is absent, cut or damaged."""
    if not intact(folder, file):
        return None
    try:
        index = kind.load(str(folder / file.name), mapped=mapped)
    except RuntimeError:
        return None
    return index if index.ntotal == file.end - file.first else None


def save_dead(folder: Path, generation: str, dead: Ints) -> File | None:
    """Write the numbers of dead rows; None where there are none."""
    if not len(dead):
        return None
    name = f"{generation}-{uuid.uuid4().hex[:8]}-dead.npy"
    part = folder / f"{name}.part"
    with open(part, "wb") as stream:
        np.save(stream, dead, allow_pickle=False)
    return _settle(part, folder / name, 0, len(dead))


def load_dead(folder: Path, file: File | None) -> Ints | None:
    """Numbers of dead rows; None where the file is absent or damaged."""
    if file is None:
        return np.zeros(0, np.int64)
    if not intact(folder, file):
        return None
    return np.asarray(np.load(folder / file.name, allow_pickle=False), np.int64)


def holds_dead(folder: Path, file: File | None, dead: Ints) -> bool:
    """True where the file holds these numbers, and no file none."""
    if file is None or file.end != len(dead):
        return file is None and not len(dead)
    found = load_dead(folder, file)
    return found is not None and np.array_equal(found, dead)


def intact(folder: Path, file: File) -> bool:
    """True where the file is as it was written."""
    try:
        return (folder / file.name).stat().st_size == file.size and _file_crc(
            folder / file.name
        ) == file.crc32
    except OSError:
        return False


def digest(rows: Rows, count: int) -> str:
    """SHA-256 of the rows' numbers (0 .. count - 1), their dimension, and the values of 256 of them."""
    random = np.random.default_rng(count)
    places = np.unique(np.append(random.integers(0, max(count, 1), _CHECKED), [0, max(count - 1, 0)]))
    found = hashlib.sha256(f"{count} {rows.dimension} ".encode())
    if count:
        found.update(np.ascontiguousarray(rows.read(places), "<f4").tobytes())
    return found.hexdigest()


def same_rows(header: Header, rows: Rows) -> bool:
    """True where the header tells of the first of these rows."""
    return (
        header.dimension == rows.dimension
        and header.rows <= rows.count
        and header.digest == digest(rows, header.rows)
    )


def _settle(part: Path, path: Path, first: int, end: int) -> File:
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    file = File(name=path.name, size=part.stat().st_size, crc32=_file_crc(part), first=first, end=end)
    os.replace(part, path)
    return file


def _file_crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _crc(body: Any) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
