"""Groups: failures of one cause and class.

In: outcomes. Out: `Group`s named KIND:CAUSE:CLASS, the unit that queries and recipes work on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from store.records import Group, Outcome, OutcomeKind


def group_outcomes(outcomes: Iterable[Outcome]) -> list[Group]:
    """Group stored failures by (kind, cause, class); members in the order of their ids, groups by name."""
    failures: dict[tuple[OutcomeKind, str, str], list[int]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda o: o.id or 0):
        if outcome.id is None:
            raise ValueError("expected stored outcomes, got one without an id")
        if outcome.kind != "TP":
            failures[outcome.kind, outcome.cause or "", outcome.category].append(outcome.id)
    return [
        Group(
            name=f"{kind}:{cause}:{category}",
            kind=kind,
            cause=cause or None,
            category=category,
            outcome_ids=tuple(ids),
        )
        for (kind, cause, category), ids in sorted(failures.items())
    ]
