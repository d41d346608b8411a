"""What the formats of labelling tools share: their classes, the image that a task names, attributes as text.

Tools give images back under other names: in a folder or at an address of their own ("/data/upload/3/..."),
behind eight hex digits (Label Studio), before ".rf." and a hash (Roboflow), written anew or left out
altogether. Here a name leads to a file below the images folder and nowhere else; where none is there, `add`
looks among the images that the workspace itself sent out (`curator.data.run_returned`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curator.data.formats.checking import ObjectError, class_names, rounded
from curator.data.formats.finding import ImageFinder, tails
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
_REWRITTEN = re.compile(r"_(?:jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]{8,}$", re.IGNORECASE)


class Labels:
    """The classes of a data set, by the names that its objects bear.

    Attributes:
        known: the classes to read, in the order listed (else sorted). listed: the same where the data set or
            the user lists them. notes: on changed names.
    """

    def __init__(
        self,
        where: str,
        listed: Sequence[str] | None,
        found: Iterable[str],
        wanted: Sequence[str] | None,
        *,
        strict: bool = False,
    ) -> None:
        """
        Args:
            where: what to call the data set in messages. listed: as it lists them; None where it does not.
            found: names of its objects. wanted: the user's choice.
            strict: names that are not listed are unknown, not classes that the list lacks.
        """
        more = [] if listed and strict else sorted(set(found) - set(listed or ()))
        written = dict.fromkeys([*(listed or ()), *more])
        self._names, self.notes = class_names({n: n for n in written if n.strip()}, where)
        if listed and (new := [name for name in more if name.strip()]):
            self.notes += (f"classes that the list of classes lacks: {', '.join(new)[:200]}",)
        self._wanted = frozenset(wanted) if wanted else None
        own = tuple(dict.fromkeys(self._names.values()))
        self.known = tuple(wanted) if wanted else own
        self.listed = self.known if wanted or listed else None

    def of(self, written: object) -> str | None:
        """The class of an object's name; None where the user left it out.

        Raises:
            ObjectError: no name, or one that the data set does not list.
        """
        text = written if isinstance(written, str) else ""
        name = self._names.get(text) or self._names.get(text.strip())
        if name is None and self._wanted and text.strip() in self._wanted:
            return text.strip()
        if name is None:
            raise ObjectError(f"unknown class {str(written)[:60]!r}")
        return name if self._wanted is None or name in self._wanted else None


def image_of(finder: ImageFinder, name: str, *, search: bool = True) -> Path:
    """The file that `name` (a path, an address) means; one that is not there, below the folder, where none
    is. Nothing outside the folder is ever named.

    Args:
        search: look through the whole folder; else where the end of the name leads, and in `images/`. A file
            of labels may lie among downloads, beside anything.
    Raises:
        FormatError: several files could be meant, or the name is empty.
    """
    text = name.strip()
    if not text:
        raise FormatError("expected the name of an image, got nothing")
    parts = next(tails(text), [])
    last = parts[-1].replace("\0", "") if parts else ""
    plain = _UPLOADED.sub("", last)
    if not search:
        ends = [text, *("/".join(parts[start:]) for start in range(len(parts))), plain]
        found = next(filter(None, (finder.direct(e) for end in ends for e in (end, f"images/{end}"))), None)
    else:
        found = finder.find(text) or (finder.find(plain) if plain != last else None)
    if found:
        return found
    if not last:
        raise FormatError(f"expected the name of an image, got {name[:60]!r}")
    return finder.folder / last


def named_in(finder: ImageFinder, path: Path) -> str:
    """How to call an image of the data set."""
    return path.relative_to(finder.folder).as_posix() if path.is_relative_to(finder.folder) else path.name


def original_stems(name: str) -> tuple[str, ...]:
    """The stems that a file may have had before a tool renamed it: as it is, without Label Studio's prefix,
    without Roboflow's end."""
    last = name.replace("\\", "/").rpartition("/")[2]
    stem = last.rpartition(".")[0] or last
    short = _REWRITTEN.sub("", stem)
    found = [stem, short, _UPLOADED.sub("", stem), _UPLOADED.sub("", short)]
    return tuple(dict.fromkeys(found))


def bounds(points: Sequence[Sequence[float]]) -> tuple[BoxTuple, tuple[tuple[float, ...], ...]]:
    """(upright box, the one ring) of a polygon's points.

    Raises:
        ObjectError: fewer than three points.
    """
    if len(points) < 3:
        raise ObjectError(f"expected a polygon of at least 3 points, got {len(points)}")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return (min(xs), min(ys), max(xs), max(ys)), (tuple(v for p in points for v in p),)


def attribute_text(value: Any) -> str:
    """An attribute as text: words as they are; as JSON anything else, and what would be read as such."""
    if isinstance(value, str) and value.isprintable() and value.strip() == value and value:
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=True)


def attribute_value(text: str) -> Any:
    """What `attribute_text` wrote."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without the run-length mask, which these tools do not hold."""
    return {name: value for name, value in attributes.items() if name != "rle"}


def outline_dropped(annotation: NewAnnotation) -> NewAnnotation:
    """The annotation without its polygon and its run-length mask: what a box of these tools holds."""
    return rounded(replace(annotation, polygon=None, attributes=plain_attributes(annotation.attributes)))
