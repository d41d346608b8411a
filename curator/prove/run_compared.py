"""What the stored trials of a verification say, with what the Store knows of the holdout now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curator.prove.comparisons import Comparison, compare_arms, read_fates
from curator.prove.group_readings import Group, compare_groups
from curator.prove.trial_tables import newest_trials
from curator.prove.trials import SCORE_FLOOR
from store.records import Trial

if TYPE_CHECKING:
    from store.store import Store


def compare_stored(store: Store, trials: Sequence[Trial]) -> Comparison | None:
    """What trials of one verification say of arms and their differences; None for those of older versions."""
    return compare_arms(newest_trials(trials), store.blob, floor=SCORE_FLOOR, groups=video_of(store))


def groups_stored(store: Store, trials: Sequence[Trial]) -> list[Group]:
    """What trials of one verification say of every class, condition and cause; [] for older versions."""
    fates = read_fates(newest_trials(trials), store.blob, groups=video_of(store))
    return [] if fates is None else compare_groups(fates, floor=SCORE_FLOOR)


def video_of(store: Store) -> dict[str, str]:
    """sha256 of a holdout image -> the video or place that it shares with others."""
    ids = store.image_ids(role="holdout")
    hashes = dict(zip(ids, store.hashes_of(ids), strict=True))
    return {
        hashes[m.image_id]: m.group_key
        for m in store.memberships(ids)
        if m.role == "holdout" and m.group_key is not None
    }
