"""Objects of a bucket, named by URI: list folders, fetch whole objects, try again what may pass.

In: `s3://BUCKET/KEY`, `gs://`, `az://` or another address that fsspec opens. Out: bytes that are whole, or
one clear line. Time-outs, broken connections, 5xx answers (503 SlowDown among them), short bodies and wrong
hashes are tried `TRIES` times with doubling waits; a missing object or a missing permission is not.

Credentials are looked for by the file system itself (environment, profile, role of the machine), nothing of
them is stored: a URI that holds a password is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from store.errors import CorruptionError, RemoteError

T = TypeVar("T")
TRIES = 4
FIRST_WAIT = 0.5
"""Seconds before the second try; each further wait is twice as long."""
EXTRAS = {
    **{"s3": "s3", "s3a": "s3"},
    **{"gs": "gcs", "gcs": "gcs"},
    **{"az": "azure", "abfs": "azure", "abfss": "azure"},
}
"""Scheme -> the extra that installs its package."""
SCHEMES = (*EXTRAS, "memory")
"""Whose folders may be listed."""
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)
_UNSET = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError")
"""Of botocore: settings that are missing, which no further try finds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a listing.

    Attributes:
        size: bytes. version: changes when the object does: etag, else time and size.
    """

    uri: str
    size: int
    version: str


def is_remote(uri: str) -> bool:
    """Is `uri` an address and no path of this machine?"""
    return "://" in uri and not uri.startswith("file://")


def checked(uri: str) -> str:
    """`uri` of a folder or object that may be listed, without a last "/".

    Raises:
        RemoteError: another scheme, no bucket, or a password or key in it.
    """
    scheme, _, rest = uri.partition("://")
    said = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    if (urlsplit(uri).password is not None) or "?" in rest or (":" in rest.rpartition("@")[0]):
        raise RemoteError(
            f"{said}: expected an address without a password, key or '?' in it, which would be stored; give "
            "credentials as the provider's tools take them (environment, profile)"
        )
    if scheme not in SCHEMES:
        raise RemoteError(f"{said}: expected a local path or {', '.join(f'{s}://' for s in SCHEMES)}")
    if not rest.strip("/") or "::" in uri or {".", ".."} & set(rest.split("/")):
        raise RemoteError(f"{said}: expected {scheme}://BUCKET/FOLDER, without '..' or '::'")
    return uri.rstrip("/")


def fetch(uri: str, *, size: int | None = None, sha256: str | None = None) -> bytes:
    """Read a whole object.

    Args:
        size, sha256: what its bytes must have, where they are known.
    Raises:
        RemoteError: it is not there, may not be read, or did not come whole in `TRIES` tries.
        CorruptionError: it is whole, and another one than `sha256` says.
    """
    wrong: list[str] = []

    def once() -> bytes:
        files, path = _opened(uri)
        more = {"max_concurrency": 1} if _protocol(uri) == "s3" else {}  # one request, not HEAD and GET
        data: bytes = files.cat_file(path, **more)
        if size is not None and len(data) != size:
            raise _ShortError(f"{len(data)} bytes came, expected {size}")
        if sha256 is not None and (actual := hashlib.sha256(data).hexdigest()) != sha256:
            again = actual in wrong
            wrong.append(actual)
            if again:  # a body cut short is hardly cut at one place twice
                raise _ChangedError
            raise _ShortError(f"{len(data)} bytes of another hash came")
        return data

    try:
        return _patient(uri, once)
    except _ChangedError:
        raise CorruptionError(
            f"{uri}: the file changed since it was added (sha256 {wrong[-1][:12]}, recorded "
            f"{(sha256 or '')[:12]}); restore it or add it again"
        ) from None


def fetch_file(uri: str, out: Path, *, size: int) -> None:
    """Stream an object of `size` bytes into the file `out`.

    Raises:
        RemoteError: as `fetch`.
    """

    def once() -> None:
        files, path = _opened(uri)
        files.get_file(path, str(out))
        if (came := out.stat().st_size) != size:
            raise _ShortError(f"{came} bytes came, expected {size}")

    _patient(uri, once)


def listed(uri: str) -> Iterator[Entry]:
    """All objects below a folder, folder by folder: memory holds one folder's listing.

    Raises:
        RemoteError: the folder cannot be listed.
    """
    scheme = uri.partition("://")[0]
    folders = [uri]
    while folders:
        folder = folders.pop()
        for name, facts in _entries(folder):
            own = f"{scheme}://{name}"
            if own == folder:
                continue  # a marker that only says that the folder is there
            if facts["type"] == "directory":
                folders.append(own)
            else:
                yield _entry(own, facts)


def one(uri: str) -> Entry | None:
    """The object called `uri`; None where it is a folder.

    Raises:
        RemoteError: nothing there, or it cannot be asked.
    """

    def once() -> Any:
        files, path = _opened(uri)
        return files.info(path, **({"refresh": True} if _protocol(uri) == "s3" else {}))

    facts = _patient(uri, once)
    return None if facts["type"] == "directory" else _entry(uri, facts)


def gone(uris: Iterable[str]) -> set[str]:
    """Those of `uris` that are surely no more; what cannot be asked counts as there."""

    def absent(uri: str) -> bool:
        try:
            one(uri)
        except RemoteError as error:
            return isinstance(error.__cause__, FileNotFoundError)
        return False

    known = list(uris)
    if not known:
        return set()
    with ThreadPoolExecutor(16, "gone") as threads:
        return {uri for uri, missing in zip(known, threads.map(absent, known), strict=True) if missing}


class _ShortError(Exception):
    """Bytes that are not the whole object."""


class _ChangedError(Exception):
    """The same bytes twice, and not those that were recorded."""


def _entries(folder: str) -> list[tuple[str, dict[str, Any]]]:
    """(name from the bucket on, facts), in name order; a folder and an object may share a name."""

    def once() -> Any:
        files, path = _opened(folder)
        return files.ls(path, detail=True, refresh=True)

    found = [(facts["name"].strip("/"), facts) for facts in _patient(folder, once)]
    return sorted(found, key=lambda pair: (pair[0], pair[1]["type"]))


def _entry(uri: str, facts: dict[str, Any]) -> Entry:
    size = int(facts.get("size") or 0)
    version = facts.get("ETag") or facts.get("etag") or facts.get("md5Hash")
    when = next((facts[k] for k in ("LastModified", "last_modified", "mtime", "created") if facts.get(k)), "")
    return Entry(uri, size, f"{version or when} {size}")


def _protocol(uri: str) -> str:
    scheme = uri.partition("://")[0]
    return {"s3a": "s3", "gcs": "gs"}.get(scheme, scheme)


def _opened(uri: str) -> tuple[Any, str]:
    """The file system of `uri` and the path in it."""
    import fsspec

    protocol = _protocol(uri)
    options: dict[str, Any] = {}
    if protocol in EXTRAS:
        options["use_listings_cache"] = False
    if protocol == "s3":  # a try is one request: whether another one follows is decided here
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {**given, "retries": {"total_max_attempts": 1}}
    kind = fsspec.get_filesystem_class(protocol)
    files = fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(uri), **options)
    if protocol == "s3":
        files.retries = 1
    return files, kind._strip_protocol(uri)


def _patient(uri: str, once: Callable[[], T]) -> T:
    """What `once` gives, tried again while its trouble may pass."""
    wait = FIRST_WAIT
    for number in range(1, TRIES + 1):
        try:
            return once()
        except _ChangedError:
            raise
        except ImportError as error:
            scheme = uri.partition("://")[0]
            extra = EXTRAS.get(scheme)
            raise RemoteError(
                f'{uri}: {scheme}:// needs pip install "curator[{extra}]"' if extra else f"{uri}: {error}"
            ) from error
        except FileNotFoundError as error:
            raise RemoteError(f"{uri}: nothing is there") from error
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, (*_FINAL, ValueError, TypeError)) or type(error).__name__ in _UNSET:
                raise RemoteError(f"{uri}: cannot be read ({_reason(error)})") from error
            if number == TRIES:
                raise RemoteError(f"{uri}: not read in {TRIES} tries ({_reason(error)})") from error
            time.sleep(wait)
            wait *= 2
    raise AssertionError


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _ShortError) else f"{type(error).__name__}: {text}".rstrip(": ")
