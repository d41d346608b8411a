"""What of the current diagnosis and explanations is indexed: the part of the past that a query's key holds.

In: a `QueryConfig`, `Current` and the pool. Out: an `IndexState`; the mined images' boxes (`Mined`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curator.diagnose.current import Current
from curator.diagnose.run_current import culprits
from curator.errors import InputError
from curator.query.asked import Mined
from curator.query.index_work import STAGE as INDEX
from curator.query.run_index import index_items, index_work
from curator.query.settings import IndexConfig
from store.keys import content_key
from store.records import AnnotationSet, SpaceShape

if TYPE_CHECKING:
    from store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """What of the current state is indexed.

    Attributes:
        space: name of the vector space. shape: what it holds.
        state: content key of all that is in it and current. outcomes: keys of the current outcomes' boxes.
        missing: images that are not; of total images.
    """

    space: str
    shape: SpaceShape
    state: str
    outcomes: tuple[str, ...]
    missing: int
    total: int

    @property
    def warning(self) -> str:
        """A line for people."""
        return (
            f"{self.missing} of {self.total} mined and pool images are not indexed as they are diagnosed and "
            "explained now; run: curator index (it lists images that cannot be read)"
        )


def indexed(store: Store, embedder: str, current: Current, pool: Sequence[int]) -> IndexState:
    """The vector space of the newest indexing of this model with this embedder.

    Raises:
        InputError: there is none (names `curator index`).
    """
    for run in store.runs(stage=INDEX):
        made_for = run.scope in ("", current.model.fingerprint) and current.model.fingerprint in run.models
        if run.status == "failed" or not made_for or run.config.get("embedder") != embedder:
            continue
        if "components" not in run.config:  # of an older version: its vectors are gone
            break
        made = IndexConfig.from_table(run.config, where="index")
        name = run.config_key
        shape = store.space(name)
        if shape is None:
            break
        mine = store.image_ids(role="mine")
        work = index_work(made, current.model, shape)
        items = list(index_items(store, current, culprits(store, current), mine))
        keys = [work.key(item) for item in items]
        done = store.done_keys(INDEX, keys)
        with_outcomes = [
            key for item, key in zip(items, keys, strict=True) if item.outcomes and key in done
        ]
        # What a pool image offers depends on no diagnosis: its rows say all.
        others = sorted({*pool} - {*mine})
        stored, first, _ = store.box_ranges(name, image_ids=others)
        offers = hashlib.sha256(np.stack([stored, first]).astype("<i8").tobytes()).hexdigest()
        return IndexState(
            space=name,
            shape=shape,
            state=content_key(name, sorted(done), offers),
            outcomes=tuple(with_outcomes),
            missing=len(keys) - len(done) + len(others) - len(stored),
            total=len(keys) + len(others),
        )
    made_with = {
        str(run.config["embedder"])
        for run in store.runs(stage=INDEX)
        if current.model.fingerprint in run.models and "components" in run.config and run.status != "failed"
    }
    there = f" (there are: {', '.join(sorted(made_with))})" if made_with else ""
    option = "" if embedder == "detector:" else f" --embedder '{embedder}'"
    raise InputError(
        f"query: this detector's failures and pool have no {embedder!r} vectors yet{there}; run: curator "
        f"index{option}"
    )


def read_mined(store: Store, current: Current, state: IndexState) -> Mined:
    """What the mined images offer, with what is known of them.

    Args:
        current: of which outcomes are known; where it holds fewer than were indexed, at the others' places
            there is no failure.
    """
    ids = store.image_ids(role="mine")
    offered = store.boxes(state.space, "offered", image_ids=ids)
    known = {outcome.id or 0: outcome for outcome in current.outcomes}
    rows = store.boxes(state.space, "outcomes", keys=state.outcomes)
    rows = rows.take(np.isin(rows.outcome_ids, np.array(list(known), np.int64)))
    region = rows.attribution_ids >= 0
    culprit_rows = rows.take(region)
    units = {
        member.image_id: f"group {member.group_key}"
        for member in store.memberships(ids)
        if member.role == "mine" and member.group_key
    }
    return Mined(
        offered=offered,
        image_ids=np.array(sorted(ids), np.int64),
        outcomes=rows.take(~region),
        culprits=culprit_rows if len(culprit_rows) else None,
        known=known,
        units=units,
        listed=listed_apart(current, store.annotations(ids, reader="query").values()),
    )


def listed_apart(current: Current, labels: Iterable[AnnotationSet]) -> dict[int, frozenset[str]]:
    """Images whose labels do not speak of all classes that the detector can mean, with those that they do."""
    judged = set(current.class_map.values())
    return {s.image_id: s.classes for s in labels if s.classes is not None and not judged <= s.classes}
