"""Read a large JSON object or list piece by piece, with memory for one element at a time.

In: a file holding one JSON object (or one list). Out: the elements of its top-level arrays, in file order.
`ijson` parses; this file adds what data sets need: numbers as Python writes them (whole ones of any length,
others as floats), a byte order mark passed over, NaN and Infinity (no JSON, but Python's own writer makes
them) read as the texts "NaN", "Infinity" so that the one object that holds them is named and not the file
lost, and one clear line with the place of a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from curator.errors import FormatError

CHUNK = 1 << 15
DEPTH = 100
"""Nesting at most: no data set needs more, and what loses its brackets would fill the memory."""

_MARK = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)|("(?:[^"\\]|\\.)*\\?\Z|[-A-Za-z]+\Z)', re.DOTALL)
"""A text; a word that is no number; the beginning of a text or a word, cut off at the end."""

_ARROW = 40  # columns before the place that yajl's messages point at


def list_elements(path: Path) -> Iterator[Any]:
    """Yield the elements of the one list that the file holds.

    Raises:
        FormatError: as `array_elements`.
    """
    return (element for _, element in array_elements(path, start="start_array"))


def array_elements(
    path: Path, arrays: set[str] | None = None, *, start: str = "start_map"
) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for every element of every top-level array.

    Args:
        arrays: receives the key of every array found, empty ones included.
        start: the parser's event that the file begins with; "start_array": it is one list, of key "".

    Raises:
        FormatError: unreadable file, or text that is not one JSON object or list (with the byte's position).
    """
    found = set() if arrays is None else arrays
    try:
        with path.open("rb") as handle:
            source = _Bytes(handle, not _holds_no_number(handle))
            try:
                yield from _elements(path, source, found, start)
            except ijson.JSONError as error:
                raise FormatError(f"{path}: expected valid JSON, {source.place(error)}") from error
    except OSError as error:
        raise FormatError(f"{path}: expected a readable JSON file ({error.strerror})") from error


def _elements(
    path: Path, source: _Bytes, arrays: set[str], start: str
) -> Iterator[tuple[str, Any]]:
    """Build the elements from the parser's events; `stack` holds the open containers of one element."""
    stack: list[Any] = []
    names: list[str] = []  # the key under which each open container belongs
    key = name = ""
    depth, in_array = 0, False
    for event, value in ijson.basic_parse(source, buf_size=CHUNK):
        if depth == 0:
            if event != start:
                wanted = "'{' at the start, one JSON object"
                if start == "start_array":
                    wanted = "'[' at the start, one list"
                raise FormatError(f"{path}: expected {wanted}")
            if event == "start_array":
                depth, in_array = 2, True  # as if it were the one array of an object
                arrays.add(key)
                continue
        if event in ("start_map", "start_array"):
            depth += 1
            if depth > DEPTH:
                near = f"near byte {source.passed}"
                raise FormatError(f"{path}: expected plain JSON, got over {DEPTH} nested brackets {near}")
            if depth == 2 and event == "start_array":
                in_array = True
                arrays.add(key)
            elif in_array:
                stack.append({} if event == "start_map" else [])
                names.append(name)
            continue
        if event in ("end_map", "end_array"):
            depth -= 1
            if depth == 1:
                in_array = False
            if not stack:
                continue
            value, name = stack.pop(), names.pop()
        elif event == "map_key":
            name = value
            key = value if depth == 1 else key
            continue
        elif not in_array:
            continue
        elif type(value) is Decimal:
            value = float(value)
        if not stack:
            yield key, value
        elif type(stack[-1]) is dict:
            stack[-1][name] = value
        else:
            stack[-1].append(value)


def _holds_no_number(handle: BinaryIO) -> bool:
    """Does "NaN" or "Infinity" occur in the file, in a text or outside? A quick look: most have none."""
    end = b""
    try:
        while chunk := handle.read(1 << 17):
            seen = end + chunk
            if b"NaN" in seen or b"Infinity" in seen:
                return True
            end = chunk[-len(b"Infinity") :]
        return False
    finally:
        handle.seek(0)


class _Bytes:
    """The file's bytes as the parser asks for them: without a mark, NaN and Infinity in quotes."""

    def __init__(self, handle: BinaryIO, plain: bool) -> None:
        self.handle, self.plain = handle, plain
        if handle.read(len(_MARK)) != _MARK:
            handle.seek(0)
        self.passed, self.last, self.waiting = handle.tell(), b"", b""

    def read(self, size: int) -> bytes:
        while size and (chunk := self.handle.read(size)):
            self.passed, self.last = self.passed + len(self.last), chunk
            if self.plain:
                return chunk
            text, self.waiting = self.waiting + chunk, b""
            if text := _TOKEN.sub(self.quoted, text):
                return text
        if not size:
            return b""
        rest, self.waiting = self.waiting, b""
        return rest

    def quoted(self, token: re.Match[bytes]) -> bytes:
        """A text as it is, NaN and Infinity in quotes; what is cut off waits for the next bytes."""
        text, word, cut = token[0], token[1], token[2]
        if cut:
            self.waiting = cut
            return b""
        return b'"%s"' % word if word else text

    def place(self, error: Exception) -> str:
        """Where the parser stopped and what it says, on one line."""
        told = error.args[0] if error.args else ""
        lines = (told.decode(errors="replace") if isinstance(told, bytes) else str(told)).splitlines()
        reason = lines[0].split(": ", 1)[-1] if lines else "broken"
        if len(lines) < 2:  # a parser without yajl, which says less
            return f"got something else ({reason})"
        if not (seen := lines[1].strip()):
            return f"the file ends too early ({reason})"
        before = lines[1][:_ARROW].lstrip().encode(errors="replace")
        at = re.sub(rb"\s", b" ", self.last).find(before)
        byte = self.passed + (at + len(before) if at >= 0 else 0)
        return f"got {seen!r} near byte {byte} ({reason})"
