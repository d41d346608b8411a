"""Which pool images may answer: those that pass `--where` and are in no selection of `--without`.

In: the words of a query, and the Store. Out: image ids. The arms of a verification draw from what the query
that they are compared with was allowed to choose from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.errors import InputError
from curator.query.filters import PoolFilter

if TYPE_CHECKING:
    from store.records import Selection
    from store.store import Store

VERIFICATION = "verification"  # key of a selection's config: whose arm it is


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmOf:
    """Says that a selection is made as an arm: of which verification, to be compared with which selection."""

    verification: str
    compared: str


def is_arm(selection: Selection) -> bool:
    """Was it made as an arm of a verification, not to be labelled?"""
    return bool(selection.config.get(VERIFICATION))


def may_answer(store: Store, where: str, without: Collection[str], *, beside: Collection[str]) -> list[int]:
    """Pool images that may answer.

    Args:
        where: as `PoolFilter` reads it. without: selections whose images may not.
        beside: selections that do not count for selected=no; those of a verification's arms never do.
    Raises:
        InputError: there are none, or none passes the filter.
    """
    pool = store.image_ids(role="pool")
    if not pool:
        raise InputError("query: there are no pool images; run: curator add images FOLDER --role pool")
    taken = {i for name in without for i in store.selection(name).image_ids}
    if taken:
        pool = [i for i in pool if i not in taken]
        if not pool:
            raise InputError(f"query: every pool image is in {', '.join(without)} already")
    wanted = PoolFilter.parse(where)
    if wanted.empty:
        return pool
    if wanted.unselected:
        counting = (s for s in store.selections() if s.name not in beside and not is_arm(s))
        taken = {i for s in counting for i in s.image_ids}
    members = [member for member in store.memberships(pool) if member.role == "pool"]
    passing = {
        member.image_id for member in members if wanted.allows(member) and member.image_id not in taken
    }
    if not passing:
        raise InputError(
            f"query: none of {len(pool)} pool images passes --where {where!r}: {wanted.why_none(members)}"
        )
    return sorted(passing)
