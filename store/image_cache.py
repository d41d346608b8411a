"""A local copy of what was fetched from buckets, of limited size.

In: bytes and their sha256. Out: the same bytes again, or None. The files lie in `$CURATOR_CACHE/images` (else
the platform's folder for caches), named by hash, so what is there never goes stale and one copy serves every
workspace and process. The limit is `$CURATOR_CACHE_GB` (10 GB as shipped; 0: nothing is kept); the files read
longest ago go first. Each process counts what it writes and looks at the folder every twentieth of the limit,
so that several processes may pass it by a twentieth each until one of them looks.

A file appears by renaming: a kill leaves nothing but a part file, which goes after an hour. Bytes read back
are hashed, so a damaged file counts as absent. Trouble with the cache (a full disk) never is the reader's.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

DEFAULT_GB = 10.0
_PART = ".part-"
_STALE = 3600.0
_lock = threading.Lock()
_unseen: dict[Path, int] = {}
"""Folder -> bytes that this process wrote there since it looked last."""


def cache_folder(kind: str) -> Path:
    """The folder for one kind of cached files: below $CURATOR_CACHE, or the platform's folder for caches."""
    chosen = os.environ.get("CURATOR_CACHE")
    if chosen:
        return Path(chosen) / kind
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "curator" / kind


def limit() -> int:
    """Bytes that the cache may hold; a text that is no number of gigabytes counts as not given."""
    try:
        return max(0, int(float(os.environ.get("CURATOR_CACHE_GB", DEFAULT_GB)) * 1e9))
    except (ValueError, OverflowError):
        return int(DEFAULT_GB * 1e9)


def cached(sha256: str) -> bytes | None:
    """The bytes of this hash; None where they are not kept."""
    file = _file(sha256)
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        with suppress(OSError):
            file.unlink()
        return None
    with suppress(OSError):
        os.utime(file)  # many disks do not keep the time of access themselves
    return data


def keep(sha256: str, data: bytes) -> None:
    """Keep bytes whose hash is `sha256`; others are not kept."""
    most = limit()
    if not 0 < len(data) <= most or hashlib.sha256(data).hexdigest() != sha256:
        return
    file = _file(sha256)
    part = file.with_name(f"{_PART}{os.getpid()}-{secrets.token_hex(8)}")
    try:
        if file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    except OSError:
        return
    folder = file.parent.parent
    with _lock:
        written = _unseen.get(folder)
        look = written is None or written + len(data) > most // 20
        _unseen[folder] = 0 if look else (written or 0) + len(data)
    if look:
        shrink(folder, most)


def shrink(folder: Path, most: int) -> int:
    """Remove the files read longest ago until at most nine tenths of `most` are left, where there is more.

    Returns:
        the bytes that are left.
    """
    files: list[tuple[float, int, Path]] = []
    now = time.time()
    for path in folder.glob("*/*"):
        with suppress(OSError):
            status = path.stat()
            if not path.name.startswith(_PART):
                files.append((status.st_mtime, status.st_size, path))
            elif now - status.st_mtime > _STALE:
                path.unlink()
    total = sum(size for _, size, _ in files)
    if total <= most:
        return total
    for _, size, path in sorted(files):
        if total <= most * 9 // 10:
            break
        with suppress(OSError):  # another process was faster
            path.unlink()
        total -= size
    return total


def _file(sha256: str) -> Path:
    return cache_folder("images") / sha256[:2] / sha256
