"""`data.yaml` of a YOLO data set: class names, keypoints, and where the images of each split lie.

Words are read as they are written: YAML would make `no` and `off` False, `1` a number, `null` nothing, and
`2024-01-01` a day; as class names they mean themselves. Entries are resolved as the trainers do: against
`path:`, then against the folder of the file, where Roboflow's "../train/images" means train/images. A path of
the exporting machine ("/content/set/train/images") is found by its tail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curator.data.formats.checking import class_names
from curator.data.formats.files import inside
from curator.data.formats.finding import leads_outside, tails
from curator.errors import FormatError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOTHING = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")


class _AsWritten(yaml.SafeLoader):
    """Reads every plain word as text; `<<` still merges."""


_AsWritten.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}


@dataclass(frozen=True, slots=True)
class Part:
    """One split: a folder of images, or a text file that lists them.

    Attributes:
        root: the folder that relative names count from (`path:` of data.yaml).
    """

    split: str | None
    place: Path
    root: Path


def yaml_file(path: Path, *, wanted: bool) -> Path | None:
    """The data.yaml at `path`, or in the folder `path`; None where there is none and it is not `wanted`.

    Raises:
        FormatError: no such path; wanted, and none or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected data.yaml or a folder that holds one, got {path}")
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (path / name).is_file():
            return path / name
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if len(found) == 1:
        return found[0]
    if wanted:
        raise FormatError(
            f"{path}: expected data.yaml, found {', '.join(f.name for f in found) or 'no yaml file'}; "
            "name the file, or give the class names with --classes a,b,c"
        )
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """The file's table; every value is a text, a list or a table.

    Raises:
        FormatError: no YAML, or no table.
    """
    try:
        table = yaml.load(file.read_bytes(), Loader=_AsWritten)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise FormatError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise FormatError(f"{file}: expected a mapping with names, got {type(table).__name__}")
    return table


def read_names(table: Mapping[str, Any], file: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Class id -> name, and notes on what was changed in them.

    Raises:
        FormatError: no names, names that are no texts, or another number of them than `nc`.
    """
    names = table.get("names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(key, str) and key.isascii() and key.isdecimal() for key in names)
        or not all(isinstance(name, str) for name in names.values())
    ):
        raise FormatError(
            f"{file}: expected names (a list, or class id: name), got {names!r}; or give --classes a,b,c"
        )
    texts = {int(key): name for key, name in names.items()}
    count = str(table.get("nc", len(texts)))
    if count not in (str(len(texts)), str(max(texts) + 1)):
        raise FormatError(f"{file}: nc says {count} classes, names has {len(texts)}; correct one of them")
    if len(set(texts.values())) != len(texts):
        raise FormatError(f"{file}: two classes have the same name; names must differ")
    return class_names(texts, file.name)


def keypoint_numbers(table: Mapping[str, Any], file: Path) -> int:
    """How many numbers follow the box in a pose row; 0 where the data set has no keypoints.

    Raises:
        FormatError: `kpt_shape` is no [number of keypoints, 2 or 3].
    """
    shape = table.get("kpt_shape")
    if shape is None or shape in _NOTHING:
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(str(n).isdecimal() for n in shape):
        points, numbers = (int(n) for n in shape)
        if points > 0 and numbers in (2, 3):
            return points * numbers
    raise FormatError(
        f"{file}: kpt_shape: expected [number of keypoints, 2 or 3], such as [17, 3], got {shape!r}"
    )


def says_unlabelled(table: Mapping[str, Any]) -> bool:
    """Does the file say that images without a label file are no background?"""
    return table.get("skip_if_label_file_missing") in _TRUE


def find_parts(
    table: Mapping[str, Any], folder: Path, images: Path | None, split: str | None
) -> tuple[list[Part], tuple[str, ...]]:
    """Where the images lie, and notes on entries that lead nowhere.

    Args:
        folder: of data.yaml. images: read this folder instead. split: this one alone.
    Raises:
        FormatError: nothing found, or an entry that leads outside `folder`.
    """
    wanted = None if split is None else SPLITS.get(split, split)
    if images is not None:
        if not images.is_dir():
            raise FormatError(f"--images: expected a folder, got {images}")
        return [Part(wanted, images, images)], ()
    parts, notes = _named_parts(table, folder, wanted, split)
    if not parts:  # folders without a yaml that names them
        for name, number in SPLITS.items():
            for place in (folder / name / "images", folder / "images" / name):
                if place.is_dir() and (wanted is None or number == wanted):
                    parts.append(Part(number, place, folder))
    if not parts and wanted is None and (folder / "images").is_dir():
        parts.append(Part(None, folder / "images", folder))
    if not parts:
        raise FormatError(
            f"{folder}: expected images in images/ or in the folders that data.yaml names"
            f"{f' for split {split}' if split else ''}, found none; name their folder with --images"
        )
    return parts, tuple(notes)


def _named_parts(
    table: Mapping[str, Any], folder: Path, wanted: str | None, split: str | None
) -> tuple[list[Part], list[str]]:
    base = str(table.get("path", ""))
    base = "." if base in _NOTHING else base
    root = _within(folder, base)
    root = root if root is not None and root.is_dir() else folder
    parts: dict[Path, Part] = {}
    notes = []
    for key in dict.fromkeys([*SPLITS, *([split] if split else [])]):
        entries, name = table.get(key), SPLITS.get(key, key)
        if entries is None or entries in _NOTHING or (wanted is not None and name != wanted):
            continue
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _resolve(folder, base, str(entry))
            if place is None:
                notes.append(f"{key}: nothing at {entry}; passed over")
            elif place in parts:
                own = key == "val" and entries == table.get("train")  # as our exports have it: nothing amiss
                if parts[place].split != name and not own:
                    notes.append(f"{key}: {entry} is read once, as {parts[place].split}")
            else:
                parts[place] = Part(name, place, root)
    return list(parts.values()), notes


def _resolve(folder: Path, base: str, entry: str) -> Path | None:
    """Where a split's entry leads; None where nothing is there."""
    plain = entry.replace("\\", "/")
    while plain.startswith("../"):
        plain = plain[3:]
    refused: str | None = None
    for candidate in dict.fromkeys((f"{base}/{entry}", entry, f"{base}/{plain}", plain)):
        place = _within(folder, candidate)
        if place is None:
            refused = candidate if (folder / candidate).exists() else refused
        elif place.exists():
            return place
    if refused is not None:
        inside(folder, refused)  # raises the error that says so
    return _by_tail(folder, entry)


def _by_tail(folder: Path, entry: str) -> Path | None:
    """The place that an absolute entry of the exporting machine names, by its last two parts or more; a list
    file by its name too."""
    if leads_outside(entry):
        for parts in tails(entry):
            shortest = 1 if parts[-1].lower().endswith(".txt") else 2
            for start in range(len(parts) - shortest + 1):
                if (place := folder.joinpath(*parts[start:])).exists():
                    return place
    return None


def _within(folder: Path, entry: str) -> Path | None:
    """`folder` / `entry`, which may be the folder itself; None for what leads outside."""
    if os.path.normpath(os.path.join(folder, entry)) == os.path.normpath(folder):
        return folder
    try:
        return inside(folder, entry)
    except FormatError:
        return None
