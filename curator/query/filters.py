"""Which pool images may answer: `dataset=night|dusk,split=train,after=2026-01-01,selected=no`.

In: the words, and what is known of images. Out: a predicate. The keys are the facts of a membership;
alternatives of one key are joined by "|".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from curator.errors import InputError
from curator.query.settings import WHERE
from store.records import Membership

KEYS = ("dataset", "source", "group", "split", "after", "before", "selected")
SHOWN = 8  # values that an error names


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
                raise InputError(f"--where: expected {WHERE}; got {part!r}")
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
        return all(_fact(member, key) in values for key, values in self.words) and self._within(member)

    def _within(self, member: Membership) -> bool:
        if self.after is None and self.before is None:
            return True
        if member.captured_at is None:
            return False
        moment = member.captured_at.replace(tzinfo=None)
        return (self.after is None or moment >= self.after) and (self.before is None or moment < self.before)

    def why_none(self, members: Sequence[Membership]) -> str:
        """Which part lets none of the memberships through, and what there is instead: of those that pass the
        parts before it. For memberships of which none passes, or none that no selection holds."""
        for key, values in self.words:
            passing = [member for member in members if _fact(member, key) in values]
            if not passing:
                there = sorted({fact for member in members if (fact := _fact(member, key)) is not None})
                if not there:
                    return f"none of them has a {key}"
                more = f", ... ({len(there)} in all)" if len(there) > SHOWN else ""
                named = ", ".join(there[:SHOWN]) + more
                return f"there is no {key} {'|'.join(sorted(values))}; there are {named}"
            members = passing
        if not any(self._within(member) for member in members):
            moments = sorted(m.captured_at.replace(tzinfo=None) for m in members if m.captured_at is not None)
            if not moments:
                return "none of them has a date"
            return f"their dates reach from {moments[0].isoformat()} to {moments[-1].isoformat()}"
        return "all that pass the rest are in a selection already"


def _fact(member: Membership, key: str) -> str | None:
    return {
        "dataset": member.dataset,
        "source": member.source,
        "group": member.group_key,
        "split": member.split,
    }[key]


def _moment(value: str, part: str) -> datetime:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError as error:
        raise InputError(
            f"--where: expected a date such as 2026-01-31 or 2026-01-31T08:00, got {part!r}"
        ) from error
