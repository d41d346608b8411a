"""Content-addressed bytes: a blob's name is the SHA-256 of its content.

In: bytes. Out: their hash, and the bytes again, checked. Any fsspec file system serves; a blob appears
under its name only when it is complete (temporary file, then rename).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from store.errors import CorruptionError, NotFoundError


class BlobStore:
    """Blobs below `root`, a folder or an fsspec URL."""

    def __init__(self, root: str) -> None:
        self._files, self._root = url_to_fs(root)

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256. A damaged blob of that name is replaced; a sound one becomes as
        young as a new one, since `store.garbage` goes by age."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        with contextlib.suppress(FileNotFoundError):
            self._renew(path)
            if _matches(self._files.cat_file(path), sha256):
                return sha256
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.part"
        try:
            with self._files.open(temporary, "wb") as stream:
                stream.write(data)
                stream.flush()
                with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # no file of this machine
                    os.fsync(stream.fileno())
            self._files.mv(temporary, path)
        except BaseException:
            if self._files.exists(temporary):
                self._files.rm_file(temporary)
            raise
        return sha256

    def get(self, sha256: str) -> bytes:
        """Read a blob.

        Raises:
            NotFoundError: no such blob.
            CorruptionError: the bytes do not match the name.
        """
        try:
            data: bytes = self._files.cat_file(self._path(sha256))
        except FileNotFoundError as error:
            raise NotFoundError(f"no blob {sha256[:12]} in {self._root}") from error
        if not _matches(data, sha256):
            raise CorruptionError(
                f"blob {sha256[:12]} in {self._root} is damaged; run the stage that made it again"
            )
        return data

    def _renew(self, path: str) -> None:
        """Set the time of a blob to now, where it is a file of this machine.

        Raises:
            FileNotFoundError: no such blob.
        """
        if isinstance(self._files, LocalFileSystem):
            os.utime(path)

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"


def _matches(data: bytes, sha256: str) -> bool:
    return hashlib.sha256(data).hexdigest() == sha256
