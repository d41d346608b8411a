"""Which files of a folder are pictures, and which of these can be read here.

In: a folder. Out: its readable pictures one by one, and a count by kind of those that are passed over, so
that nobody takes 300 of 800 pictures for the whole folder. What is readable follows the installed Pillow:
AVIF and JPEG 2000 depend on how it was built, HEIC and JPEG XL on a plug-in (`store.images.load_plugins`).
Of a picture with several frames (GIF, MPO) the first one is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image, features

from store.images import load_plugins

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "QOI": (".qoi",),
    "HEIF": (".heic", ".heif", ".heics", ".heifs", ".hif"),
    "JXL": (".jxl",),
}
"""Pillow's name of a format -> suffixes. Raw files (.dng) are left out: Pillow would read their thumbnail."""

_RAW = (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw")
_OTHER = (".svg", ".psd", ".xcf", ".exr", ".hdr", ".pfm", ".eps", ".ico", ".pcx", ".jxr", ".dcm", ".fits")
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".3gp"),
)
_PICTURES = frozenset(
    (*(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes), *_RAW, *_OTHER, *VIDEO_SUFFIXES)
)


def readable_suffixes() -> tuple[str, ...]:
    """Suffixes, in lower case, of the pictures that are read here."""
    load_plugins()
    Image.init()
    return tuple(suffix for name, suffixes in _SUFFIXES.items() if _decodes(name) for suffix in suffixes)


def _decodes(name: str) -> bool:
    if name == "JPEG2000":
        return bool(features.check("jpg_2000"))
    return ("JPEG" if name == "MPO" else name) in Image.OPEN


def image_files(folder: Path, passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """All readable pictures under `folder`, recursively, in name order; hidden ones are passed over.

    Args:
        passed_over: counts the other files by suffix (lower case, "" for none).
    """
    readable = readable_suffixes()
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in readable:
                yield Path(current, name)
            elif passed_over is not None:
                passed_over[suffix] += 1


def passed_over_notes(passed_over: Mapping[str, int]) -> tuple[str, ...]:
    """A line that names the pictures and videos among the files passed over; none where there are none."""
    kinds = {suffix: count for suffix, count in passed_over.items() if suffix in _PICTURES}
    if not kinds:
        return ()
    return (f"passed over: {_named(kinds)}; {_what_is_read(kinds)}",)


def nothing_readable(where: Path | str, passed_over: Mapping[str, int]) -> str:
    """The message for a folder without readable pictures."""
    found = _named(passed_over) if passed_over else "none"
    return f"{where}: expected images, found {found}; {_what_is_read(passed_over)}"


def _named(kinds: Mapping[str, int]) -> str:
    most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in most[:8]]
    return ", ".join(named) + (f" and {len(most) - 8} other kinds" if len(most) > 8 else "")


def _what_is_read(kinds: Mapping[str, int]) -> str:
    readable = readable_suffixes()
    named = [suffixes[0] for suffixes in _SUFFIXES.values() if suffixes[0] in readable]
    text = f"read are {', '.join(named)}"
    if any(suffix in _SUFFIXES["HEIF"] for suffix in kinds):
        text += "; `pip install pillow-heif` adds .heic"
    if any(suffix in VIDEO_SUFFIXES for suffix in kinds):
        text += "; `curator add video` reads videos"
    return text
