"""Find the image that an annotation file names, although the name was written on another machine.

In: names as files hold them: relative to the images folder, or with the drive, the backslashes, the "..",
the served address of the machine that exported them. Out: a file below the images folder. A name that leads
to a file there is followed; any other is found by its tail: the file whose path shares the most last parts
with the name, where only one file does ("D:\\work\\set1\\images\\c.png" -> images/c.png). Nothing outside
the folder is ever looked at.

A tail must not find another image of the same name: it is refused where the folder that the name gives is
there and does not hold the file (/data/train/1.png is not val/1.png), and for a plain relative name where
neither the whole name nor the whole path of the file is the tail.
"""

from __future__ import annotations

import os
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from curator.errors import FormatError

_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://[^/]*")
_DRIVE = re.compile(r"^[A-Za-z]:")


class ImageFinder:
    """Looks for images below one folder. The list of its files is made at the first name that needs it, in a
    private SQLite file: memory stays flat."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = os.path.join(os.path.abspath(folder), "")  # ends with one separator
        self.index: sqlite3.Connection | None = None

    def find(self, name: str) -> Path | None:
        """The file called `name`; None where there is none below the folder.

        Raises:
            FormatError: several files below the folder could be meant.
        """
        return self.direct(name) or self.by_tail(name)

    def direct(self, name: str) -> Path | None:
        """The file where the name leads as it stands; None where that is no file, or outside the folder."""
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            joined = os.path.normpath(os.path.join(self.root, text))
            if joined.startswith(self.root) and "\0" not in text and os.path.isfile(joined):
                return Path(joined)
        return None

    def by_tail(self, name: str) -> Path | None:
        """The one file whose path shares most last parts with `name`.

        Raises:
            FormatError: several files do.
        """
        for parts in tails(name):
            if found := self._longest(name, parts):
                return found
        return None

    def _longest(self, name: str, parts: Sequence[str]) -> Path | None:
        index = self.index = self.index or _listed(self.folder)
        rows = index.execute("SELECT path FROM files WHERE name = ?", (_plain(parts[-1]),))
        lengths: dict[str, int] = {}
        for (path,) in rows:
            lengths[path] = _shared(path.split("/"), parts)
        longest = [path for path, length in lengths.items() if length == max(lengths.values())]
        exact = [path for path in longest if path.split("/")[-1] == parts[-1]]
        longest = exact or longest
        if not longest:
            return None
        if len(longest) > 1:
            some = ", ".join(sorted(longest)[:2]) + ", ..." * (len(longest) > 2)
            raise FormatError(
                f"{name!r}: {len(longest)} files below {self.folder} end so ({some}); "
                "pass --images with the folder of the one that is meant"
            )
        (path,) = longest
        return None if self._contradicts(name, parts, path, lengths[path]) else self.folder / path

    def _contradicts(self, name: str, parts: Sequence[str], path: str, length: int) -> bool:
        """Does what comes before the tail say that another file is meant?"""
        assert self.index is not None
        folders = path.split("/")[:-1]
        if length == len(parts) or (length > 1 and length > len(folders)):
            return False  # the whole name, or the whole path
        if length <= len(folders) and not (leads_outside(name) or "?" in name):
            return True
        given = _plain(parts[-length - 1])
        there = self.index.execute("SELECT 1 FROM folders WHERE name = ?", (given,)).fetchone()
        return there is not None and given not in map(_plain, folders)


def leads_outside(name: str) -> bool:
    """Is the name no plain path below the images folder: absolute, with a drive, an address or ".."?"""
    plain = name.replace("\\", "/")
    return bool(
        _ADDRESS.match(plain) or _DRIVE.match(plain) or plain.startswith("/") or ".." in plain.split("/")
    )


def tails(name: str) -> Iterator[list[str]]:
    """The parts of the path that a name may hold, without drive, host, "." and ".."."""
    query = parse_qsl(name.partition("?")[2])
    addresses = [value for _, value in query if "." in value] + [name.partition("?")[0], name]
    seen = []
    for address in addresses:
        for text in (address, unquote(address)):
            plain = _DRIVE.sub("", _ADDRESS.sub("", text.replace("\\", "/")))
            parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
            if parts and parts not in seen:
                seen.append(parts)
                yield parts


def _plain(part: str) -> str:
    """A name as machines that do not tell upper from lower case, or write accents apart, compare it."""
    return unicodedata.normalize("NFC", part).casefold()


def _shared(path: Sequence[str], parts: Sequence[str]) -> int:
    """How many last parts are equal."""
    count = 0
    for one, other in zip(reversed(path), reversed(parts), strict=False):
        if _plain(one) != _plain(other):
            break
        count += 1
    return count


def _listed(folder: Path) -> sqlite3.Connection:
    """All files below `folder` by name, and the names of all folders; hidden ones are passed over. Links to
    folders are followed, each folder once."""
    index = sqlite3.connect("")
    index.executescript("""
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
        CREATE TABLE files (name TEXT, path TEXT);
        CREATE TABLE folders (name TEXT);
    """)
    seen: set[tuple[int, int]] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(_shown, folders))
        base = Path(current).relative_to(folder)
        index.executemany(
            "INSERT INTO files VALUES (?, ?)",
            ((_plain(name), (base / name).as_posix()) for name in files if _shown(name)),
        )
        index.executemany("INSERT INTO folders VALUES (?)", ((_plain(name),) for name in folders))
    index.execute("CREATE INDEX by_name ON files (name)")
    index.execute("CREATE INDEX by_folder ON folders (name)")
    return index


def _shown(name: str) -> bool:
    """Not hidden, and a name that a file could hold as text (other bytes come as surrogates)."""
    return not name.startswith(".") and not any("\ud800" <= letter <= "\udfff" for letter in name)
