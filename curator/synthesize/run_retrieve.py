"""Retrieve first, generate last: what the pool holds of the failures, as a query said.

In: the selection that `synthesize --selection` names. Out: a note for people. Nothing is left unpainted
because of it: what a pool is expected to hold is an estimate, and has no labels yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.store import Store

NAMED = 3  # groups that a note names


def retrieve_first(store: Store, selection: str | None) -> list[str]:
    """A note with the groups of which the pool holds at least one failure, by the lower end of the query's
    interval; empty where there is none, or the selection says no such numbers."""
    if selection is None:
        return []
    groups = store.selection(selection).config.get("groups", [])
    known = [(group["coverage"], group["name"]) for group in groups if group.get("coverage")]
    held = sorted(
        ((own, name) for own, name in known if own["low"] >= 1),
        key=lambda one: (-one[0]["expected"], one[1]),
    )
    if not held:
        return []
    told = ", ".join(
        f"{name} about {own['expected']:.0f} [{own['low']:.0f}, {own['high']:.0f}]"
        for own, name in held[:NAMED]
    )
    more = f" and {len(held) - NAMED} more groups" if len(held) > NAMED else ""
    return [
        f"by the query {selection} the pool holds failures ({told}{more}): label what it chose first; "
        "samples are for what the pool lacks"
    ]
