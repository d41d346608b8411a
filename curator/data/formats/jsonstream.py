"""Read a large JSON object piece by piece, with memory for one element at a time.

In: a file holding one JSON object. Out: the elements of its top-level arrays, in file order. The standard
decoder does the parsing (`JSONDecoder.raw_decode` on a growing window), so no further package is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from curator.errors import FormatError

CHUNK = 1 << 20
LIMIT = 1 << 28
"""Characters of one element at most: a file that lost a quote is refused instead of read into memory."""

_SPACE = re.compile(r"[ \t\n\r]*")
_TAIL = 16  # a cut-off literal, number or escape shows as an error this close to the window's end


def array_elements(path: Path, arrays: set[str] | None = None) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, element, the element's JSON text) for every element of every top-level array.

    Args:
        arrays: receives the key of every array found, empty ones included.

    Raises:
        FormatError: unreadable file, or text that is not one JSON object (with the character's position).
    """
    try:
        with path.open(encoding="utf-8-sig") as handle:
            yield from _Window(path, handle, arrays).elements()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise FormatError(f"{path}: expected a readable JSON file ({reason})") from error


class _Window:
    """The part of the text that is in memory; `at` is the reading position in it."""

    def __init__(self, path: Path, handle: TextIO, arrays: set[str] | None = None) -> None:
        self.path, self.handle = path, handle
        self.arrays = set() if arrays is None else arrays
        self.text, self.at, self.passed, self.ended = "", 0, 0, False
        self.decode = json.JSONDecoder().raw_decode

    def elements(self) -> Iterator[tuple[str, Any, str]]:
        self.expect("{")
        if self.peek() != "}":
            while True:
                key, _ = self.value()
                if not isinstance(key, str):
                    raise self.wrong("a key")
                self.expect(":")
                if self.peek() == "[":
                    self.arrays.add(key)
                    yield from ((key, value, text) for value, text in self.array())
                else:
                    self.value()
                if self.peek() != ",":
                    break
                self.at += 1
        self.expect("}")
        if self.peek():
            raise self.wrong("the end of the file")

    def array(self) -> Iterator[tuple[Any, str]]:
        self.at += 1
        if self.peek() != "]":
            while True:
                yield self.value()
                if self.peek() != ",":
                    break
                self.at += 1
        self.expect("]")

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.grow()

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.wrong(repr(character))
        self.at += 1

    def value(self) -> tuple[Any, str]:
        self.peek()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _TAIL
                if self.ended or not cut:
                    raise self.wrong(f"valid JSON ({error.msg})", error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.wrong(f"plain JSON ({type(error).__name__})") from error
            else:
                # "12" may go on as "12.5e3" in the next chunk
                whole = end < len(self.text) - (_TAIL if isinstance(value, int | float) else 0)
                if whole or self.ended:
                    text = self.text[self.at : end]
                    self.at = end
                    return value, text
            self.grow()

    def grow(self) -> None:
        """Drop what is read; read as much again as is left, so that long elements cost linear time."""
        left = self.text[self.at :]
        if len(left) > LIMIT:
            raise self.wrong(f"elements of at most {LIMIT} characters")
        more = self.handle.read(max(CHUNK, len(left)))
        self.passed += self.at
        self.text, self.at, self.ended = left + more, 0, not more

    def wrong(self, expected: str, at: int | None = None) -> FormatError:
        at = self.at if at is None else at
        found = self.text[at : at + 20] or "the end of the file"
        return FormatError(f"{self.path}: expected {expected} at character {self.passed + at}, got {found!r}")
