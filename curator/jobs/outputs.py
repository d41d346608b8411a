"""Can the output be written? Asked before the work, not after it.

In: the path that a command is to write, perhaps in folders that do not exist yet. Out: nothing, or a refusal.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from curator.errors import InputError


def require_file(path: Path, option: str = "--out") -> None:
    """Refuse a path where no file can be written.

    Raises:
        InputError: a folder, a file that may not be changed, or a place where nothing can be made.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: expected a file, got a folder; name a file in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{option} {path}: expected a writable file, this one is read-only; choose another")
    require_folder(path.absolute().parent, f"{option} {path}")


def require_folder(folder: Path, what: str) -> None:
    """Refuse a folder in which nothing can be made; it is probed with a temporary file.

    Args:
        folder: may be missing: then its nearest parent is probed. what: names the output for people.
    Raises:
        InputError: it is a file, or not writable.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise InputError(
            f"{what}: expected a writable folder {folder} ({error.strerror}); choose another place"
        ) from error
