"""The folder of an export: is it there already, and how it gets there whole or not at all.

In: the images one by one, and what the manifest says besides. Out: the folder in the trainer's format with
`manifest.json`. It is written beside its place, read back, compared, and renamed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.data.formats.base import Format, OutputImage
from curator.data.formats.jsonstream import array_elements
from curator.data.readback import Expected, read_back
from curator.errors import InputError

MANIFEST = "manifest.json"
_PARTIAL = ".curator-export-"
_OLD = ".old"  # ends the name of an export while another takes its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an export says besides its images.

    Attributes:
        head: the manifest's first facts, "key", "format" and "categories" among them.
        names: class name in the workspace -> in the files. notes: what was changed in the names.
        left_out: (image, reason); it may grow while the images are read.
    """

    head: Mapping[str, Any]
    names: Mapping[str, str]
    notes: Sequence[str]
    left_out: Sequence[tuple[str, str]]


def stands(out: Path, key: str) -> bool:
    """Is the export of this key in `out` already? What killed exports left beside it is removed.

    Raises:
        InputError: something else is there.
    """
    _clean(out)
    present = _present_key(out)
    if present is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no export of curator; choose another folder")
    if present not in (None, key):
        raise InputError(f"{out} holds another export; choose another folder, or remove it first")
    return present is not None


def files(out: Path) -> Iterator[Any]:
    """The manifest's entries of files, one by one."""
    return (entry for name, entry in array_elements(out / MANIFEST) if name == "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a manifest says of all files.

    Attributes:
        objects: class -> number of objects; crowd regions are no objects. notes: for people.
        left_out: (image, reason).
    """

    objects: Mapping[str, int]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def told(out: Path) -> Told:
    """The end of the manifest."""
    found: dict[str, list[Any]] = {"objects": [], "notes": [], "left_out": []}
    for name, element in array_elements(out / MANIFEST):
        if name in found:
            found[name].append(element)
    return Told(
        objects={entry["class"]: entry["objects"] for entry in found["objects"]},
        notes=tuple(found["notes"]),
        left_out=tuple((str(name), str(reason)) for name, reason in found["left_out"]),
    )


def head_of(out: Path) -> dict[str, Any]:
    """The first facts of the manifest, in their order; they fill its first line."""
    with (out / MANIFEST).open(encoding="utf-8") as handle:
        found: dict[str, Any] = json.loads(handle.readline().rstrip().rstrip(",") + "}")
    return found


def digest_of(folder: Path) -> str:
    """sha256 of the manifest, which names every file with its hash."""
    with (folder / MANIFEST).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def changed_files(out: Path) -> Iterator[str]:
    """The files of the manifest that are gone or hold other bytes than it says; others are not looked at."""
    for entry in files(out):
        try:
            with (out / entry["path"]).open("rb") as handle:
                same = hashlib.file_digest(handle, "sha256").hexdigest() == entry["sha256"]
        except OSError:
            same = False
        if not same:
            yield entry["path"]


def require_untouched(out: Path) -> None:
    """Refuse to replace an export that people changed, or keep files in.

    Raises:
        InputError: names the first file.
    """
    known = {MANIFEST, *(entry["path"] for entry in files(out))}
    own = (path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if not path.is_dir())
    found = next(changed_files(out), None) or next((path for path in own if path not in known), None)
    if found is not None:
        raise InputError(
            f"{out}: images that this export left out can be read now, but {found} in it was changed or "
            "added, so it is not written anew; export to another folder, or remove this one first"
        )


def write(
    form: Format,
    out: Path,
    contents: Contents,
    images: Iterable[OutputImage],
    *,
    check: Callable[[str], None] = lambda digest: None,
    replacing: bool = False,
) -> None:
    """Write, read back and rename.

    Args:
        replacing: an export stands at `out`, whose place this one takes.
        check: is called with `digest_of` the folder before it gets its place; it may raise.
    Raises:
        InputError: nothing to write, or something was put at `out` meanwhile. StageError: what was read back
            is not what was to be written.
    """
    part = out.parent / f".{out.name}{_PARTIAL}{socket.gethostname()}-{os.getpid()}"
    categories, count = list(contents.head["categories"]), Counter[str]()
    try:
        part.mkdir(parents=True)
        with Expected(contents.names) as expected:

            def noted() -> Iterator[OutputImage]:
                for image in images:
                    clean = expected.note(form, image)
                    count.update(a.category for a in clean.annotations if not a.crowd)
                    yield clean

            with (part / MANIFEST).open("x", encoding="utf-8") as manifest:
                manifest.write(json.dumps(contents.head, ensure_ascii=False)[:-1] + ',\n"files": [')
                for number, entry in enumerate(form.write(part, categories, noted())):
                    manifest.write(",\n" * (number > 0) + json.dumps(entry, ensure_ascii=False))
                    if "lineage" in entry:
                        expected.written(entry["path"], entry["sha256"])
                said = [*contents.notes, *_crowd_note(contents.head["format"], expected)]
                counted = [{"class": name, "objects": count[name]} for name in categories]
                manifest.write('],\n"objects": ' + json.dumps(counted, ensure_ascii=False))
                manifest.write(',\n"notes": ' + json.dumps(said, ensure_ascii=False))
                manifest.write(',\n"left_out": ' + json.dumps(contents.left_out, ensure_ascii=False) + "}\n")
                manifest.flush()
                os.fsync(manifest.fileno())
            read_back(form, part, expected, contents.left_out)
        check(digest_of(part))
        _place(part, out, replacing)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _place(part: Path, out: Path, replacing: bool) -> None:
    """Give the whole folder its name; an empty folder may stand there, or the export that it replaces."""
    old = part.with_name(part.name + _OLD)
    try:
        if replacing:
            os.replace(out, old)
        try:
            os.replace(part, out)
        except BaseException:
            if replacing:
                os.replace(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise InputError(
            f"{out}: something else was written there meanwhile, perhaps by another curator; "
            "choose another folder, or run this again"
        ) from error


def _crowd_note(format: str, expected: Expected) -> list[str]:
    if not expected.crowd_regions:
        return []
    return [
        f"{expected.crowd_regions} crowd regions in {expected.crowd_images} images are left out: {format} "
        "files hold none, and trainers will take what lies there for background (coco and voc keep them)"
    ]


def _present_key(out: Path) -> str | None:
    """The key of the export in `out`; the manifest starts with it."""
    try:
        with (out / MANIFEST).open(encoding="utf-8") as handle:
            match = re.match(r'\{"key": "([0-9a-f]{64})"', handle.read(100))
    except (OSError, UnicodeDecodeError):
        return None
    return match.group(1) if match else None


def _clean(out: Path) -> None:
    """Remove what killed exports to `out` left: folders of this host's processes that are gone, and those of
    other hosts where nothing was written for a day."""
    for path in out.parent.glob(f".{glob.escape(out.name)}{_PARTIAL}*"):
        name = path.name.removeprefix(f".{out.name}{_PARTIAL}").removesuffix(_OLD)
        host, _, pid = name.rpartition("-")
        with suppress(FileNotFoundError):  # another process ended, or cleans too
            if host == socket.gethostname() and pid.isdigit():
                gone = int(pid) == os.getpid() or not _alive(int(pid))
            else:
                gone = time.time() - _written(path) > 86400
            if gone:
                shutil.rmtree(path)


def _written(path: Path) -> float:
    """When something was last written to an unfinished export: its manifest grows with every file."""
    times = [path.stat().st_mtime]
    with suppress(FileNotFoundError):
        times.append((path / MANIFEST).stat().st_mtime)
    return max(times)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
