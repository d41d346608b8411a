"""What a selection may hold and how its gains add up: refusals, turns, chance.

In: the training set, images that are not wanted; scores. Out: what `curator.query.selection` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.current import Current
from curator.errors import InputError
from curator.query.kinds import vectors
from curator.query.methods.base import image_scores
from curator.query.run_answers import Answered, Question
from curator.query.run_indexed import IndexState
from curator.query.selection import Answers, Refusals, choose, nearer_to
from curator.query.settings import QueryConfig
from store.records import Hit, Outcome, Selection

if TYPE_CHECKING:
    from store.store import Store

BLIND = "random"  # the method that needs no vectors


def refused(store: Store, without: Sequence[str] = ()) -> list[Refusals]:
    """What is never selected: leaks, and what the training set or a selection that is named has already; each
    asked about the images alone that would be taken."""
    train = store.image_ids(role="train")
    chosen = sorted({i for name in without for i in store.selection(name).image_ids})

    def known(of: Sequence[int], said: str) -> Refusals:
        own = set(of)

        def refuse(ids: Sequence[int]) -> Mapping[int, object]:
            near = store.near_duplicates(ids, of) if of else {}
            return dict.fromkeys([*near, *(i for i in ids if i in own)], said)

        return refuse

    return [
        store.leaks,
        known(train, "the training set has it already"),
        *([known(chosen, f"{' or '.join(without)} has it already")] if chosen else []),
    ]


def unlike(
    store: Store, config: QueryConfig, index: IndexState, asking: Sequence[Question]
) -> list[Refusals]:
    """Refuses images whose best boxes are nearer to images that are not wanted than to the failures.

    Raises:
        InputError: an image that is not indexed.
    """
    if not config.unlike:
        return []
    views = tuple(index.shape.views)
    shown_there = store.boxes(index.space, "offered", image_ids=config.unlike)
    absent = sorted(set(config.unlike) - set(shown_there.image_ids.tolist()))
    if absent:
        raise InputError(
            f"--unlike: expected ids of indexed images, got {', '.join(map(str, absent))} "
            "(curator query prints ids with --json)"
        )
    # What is not wanted is what of those images answers most.
    best = np.concatenate([image_scores(q.scorer, shown_there)[2] for q in asking])
    unwanted = vectors(shown_there.take(np.unique(best)), views)
    like = np.concatenate([question.kinds.examples for question in asking])

    def refuse(ids: Sequence[int]) -> Mapping[int, object]:
        rows = store.boxes(index.space, "offered", image_ids=ids)
        found: dict[int, str] = {}
        for question in asking:
            images, _, own = image_scores(question.scorer, rows)
            found |= nearer_to(images, vectors(rows.take(own), views), unwanted, like)
        return {**found, **dict.fromkeys(set(ids) & set(config.unlike), "named as not wanted")}

    return [refuse]


def gains(asking: Sequence[Question], found: Answered) -> NDArray[np.float64]:
    """What the selection adds up (M, G): expectations, or where a method gives scores alone one over the rank
    in the pool, so that groups of different scales take turns (Cormack, Clarke and Buettcher 2009)."""
    result = np.zeros_like(found.scores)
    for column, number in enumerate(found.of):
        scores = found.scores[:, column]
        if asking[number].scorer.expects:
            result[:, column] = np.maximum(scores, 0)
        else:
            rank = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
            result[:, column] = np.where(np.isfinite(scores), 1 / (1 + rank), 0)
    return result


def draw(
    store: Store,
    config: QueryConfig,
    key: str,
    failures: Sequence[Outcome],
    current: Current,
    pool: Sequence[int],
) -> Selection:
    """Images by chance; it needs no vectors, so that every detector has this rival."""
    ids = np.array(sorted(pool), np.int64)
    rank = np.random.default_rng(config.seed).permutation(len(ids))
    choice = choose(
        Answers(groups=(BLIND,), image_ids=ids, expected=1.0 / (1 + rank[:, None])),
        budget=config.budget,
        refusals=refused(store, config.without),
        duplicates=store.near_duplicates,
    )
    hits = tuple(
        Hit(
            rank=place,
            image_id=pick.image_id,
            outcome_id=None,
            group=BLIND,
            box=(0.0, 0.0, 0.0, 0.0),
            score=0.0,
            reason="drawn at random",
        )
        for place, pick in enumerate(choice.picks, start=1)
    )
    group = {"name": BLIND, "failures": len(failures), "kinds": 1, "hits": len(hits)}
    return Selection(
        name=config.name,
        arm=BLIND,
        hits=hits,
        key=key,
        config={
            **config.everything(),
            "groups": [{**group, "expected": None, "coverage": None}],
            "judged": [],
            "warnings": list(choice.warnings),
            "asking": {"failures": len(failures), "used": len(failures), "unused": {}},
            "scored": f"{len(ids)} images drawn from",
            "explained_by": current.explained_by,
            "current": current.digest,
        },
    )
