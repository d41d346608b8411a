"""Which pool images may answer: `dataset=night,source=cam1,after=2026-01-01,selected=no`.

In: the words, and what is known of images. Out: a predicate. The keys are the facts of a membership;
alternatives of one key are joined by "|".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from curator.errors import InputError
from store.records import Membership

KEYS = ("dataset", "source", "group", "split", "after", "before", "selected")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFilter:
    """A parsed filter; empty sets and None let everything through.

    Attributes:
        words: key -> values of which one must be the membership's.
        after, before: bounds of the moment of recording; before is not included.
        unselected: images of no stored selection, those of a verification's arms aside.
    """

    words: tuple[tuple[str, frozenset[str]], ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    unselected: bool = False

    @classmethod
    def parse(cls, text: str) -> PoolFilter:
        """Parse.

        Raises:
            InputError: an unknown key, or a value that is no date where one is expected.
        """
        words: list[tuple[str, frozenset[str]]] = []
        moments: dict[str, datetime] = {}
        unselected = False
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value or key not in KEYS:
                raise InputError(
                    f"--where: expected KEY=VALUE joined by ',' with the keys {', '.join(KEYS)}, got {part!r}"
                )
            if key in ("after", "before"):
                moments[key] = _moment(value, part)
            elif key == "selected":
                if value != "no":
                    raise InputError(f"--where: expected selected=no, got {part!r}")
                unselected = True
            else:
                words.append((key, frozenset(value.split("|"))))
        return cls(
            words=tuple(words),
            after=moments.get("after"),
            before=moments.get("before"),
            unselected=unselected,
        )

    @property
    def empty(self) -> bool:
        """True where every image passes."""
        return self == PoolFilter()

    def allows(self, member: Membership) -> bool:
        """True for a membership with these facts; an unknown moment lies within no bounds."""
        facts = {
            "dataset": member.dataset,
            "source": member.source,
            "group": member.group_key,
            "split": member.split,
        }
        if any(facts[key] not in values for key, values in self.words):
            return False
        if self.after is None and self.before is None:
            return True
        if member.captured_at is None:
            return False
        moment = member.captured_at.replace(tzinfo=None)
        return (self.after is None or moment >= self.after) and (self.before is None or moment < self.before)


def _moment(value: str, part: str) -> datetime:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError as error:
        raise InputError(
            f"--where: expected a date such as 2026-01-31 or 2026-01-31T08:00, got {part!r}"
        ) from error
