"""Which images a removal means: by id, by hash, by the names in a file, by role and data set.

In: a `RemoveConfig` of kind "images" or "dataset". Out: ids, and what was named and is not there: removed
already, perhaps, by the same command that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curator.data.settings import RemoveConfig
from curator.errors import InputError
from store.records import MembershipFilter

if TYPE_CHECKING:
    from store.store import Store

NAMED = 5  # names that a refusal shows


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenImages:
    """What is meant.

    Attributes:
        ids: of images, rising. which: their memberships that go.
        missing: number of those that were named and are not there.
    """

    ids: list[int]
    which: MembershipFilter
    missing: int


def chosen_images(store: Store, config: RemoveConfig) -> ChosenImages:
    """The images that a configuration names.

    Raises:
        InputError: an unknown data set, an id that is no number, a file that cannot be read, or a name that
            several images have.
    """
    which = MembershipFilter(role=config.role, dataset=config.dataset)
    known = store.removable()["dataset"]
    if config.dataset is not None and config.dataset not in known:
        raise InputError(f"no data set called {config.dataset!r}; there are: {', '.join(known) or 'none'}")
    named: set[int] = set()
    missing = 0
    if config.names or config.sha256 or config.file is not None:
        by_id = _numbers(config.names, "images")
        hashes = [own.lower() for own in config.sha256]
        found = store.ids_by_sha256(hashes)
        called, unknown = _called(store, config.file) if config.file is not None else ([], 0)
        there = store.known_images(by_id)
        named = {*there, *found.values(), *called}
        missing = len(set(by_id)) - len(there) + len(set(hashes)) - len(found) + unknown
        if not which.every:
            named &= set(store.images_of(which))
    elif not which.every:
        named = set(store.images_of(which))
    else:
        raise InputError(
            "remove images: name some: ids, --sha256, --file FILE, or --role and --dataset for all of a kind"
        )
    return ChosenImages(ids=sorted(named), which=which, missing=missing)


def _numbers(words: Sequence[str], what: str) -> list[int]:
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise InputError(f"remove {what}: expected numbers, got {', '.join(wrong[:NAMED])}")
    return [int(word) for word in words]


def sample_ids(store: Store, words: Sequence[str]) -> list[int]:
    """The samples of some numbers that are there.

    Raises:
        InputError: no numbers.
    """
    return store.known_samples(_numbers(words, "samples"))


def _called(store: Store, file: Path) -> tuple[list[int], int]:
    """Images by the names in a file, one a line: a path, or the end of one from a folder's name on; and how
    many names are nobody's.

    Raises:
        InputError: the file cannot be read, or a name is several images'.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--file {file}: expected a text file with a name a line ({error})") from error
    wanted: dict[str, list[str]] = {}
    for line in dict.fromkeys(filter(None, lines)):
        wanted.setdefault(line.replace("\\", "/").rpartition("/")[2], []).append(line)
    found: dict[str, list[int]] = {}
    for number, uri in store.image_places():
        for line in wanted.get(uri.rpartition("/")[2], ()):
            plain = line.replace("\\", "/").removeprefix("./")
            if uri in (line, str(Path(line).absolute())) or uri.endswith(f"/{plain.lstrip('/')}"):
                found.setdefault(line, []).append(number)
    several = [line for line, ids in found.items() if len(ids) > 1]
    if several:
        raise InputError(
            f"--file {file}: {len(several)} names are those of several images, such as {several[0]} (images "
            f"{', '.join(map(str, found[several[0]][:NAMED]))}); say more of their paths"
        )
    total = sum(len(names) for names in wanted.values())
    return [ids[0] for ids in found.values()], total - len(found)

