"""What Roboflow's exports have of their own: a folder a split, and a class that stands for all.

Its COCO has `train/`, `valid/` and `test/`, each with `_annotations.coco.json` beside the images. Category 0
of each file is named after the project; the others name it as their supercategory, and no object is of it.
Its images are written anew and called `NAME_jpg.rf.HASH.jpg` (`labelling.original_stems`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

COCO_FILE = "_annotations.coco.json"
_ORDER = ("train", "valid", "test")


def coco_splits(folder: Path) -> Iterator[tuple[str, Path]]:
    """(split, file) of a folder that holds several."""
    found = {file.parent.name: file for file in folder.glob(f"*/{COCO_FILE}")}
    for name in sorted(found, key=lambda name: (_ORDER.index(name) if name in _ORDER else 3, name)):
        yield name, found[name]


def umbrella(names: Mapping[str, str], parents: Mapping[str, str], used: Set[str]) -> str | None:
    """The id of the category that stands for all others, where no object is of it.

    Args:
        names, parents: name and supercategory by id. used: ids that annotations bear.
    """
    name = names.get("0")
    if name is None or "0" in used or len(names) < 2 or parents.get("0") not in ("", "none"):
        return None
    return "0" if all(parents.get(i) == name for i in names if i != "0") else None
