"""`query`: rank the pool by what it is expected to hold of the asked failures, and store a selection.

In: outcomes, and the vectors that `index` stored. Out: a `Selection` of arm "query" (or of the method that
was asked for) whose config holds the out-of-fold table, the groups and what the pool is expected to hold.
Pool annotations are never read; the pool is scored in pieces, so memory hardly grows with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run
from curator.query.asked import Mined
from curator.query.filters import PoolFilter
from curator.query.kinds import vectors
from curator.query.methods.base import image_scores
from curator.query.run_answers import Answered, Question, answers, shown
from curator.query.run_indexed import IndexState, indexed, read_mined
from curator.query.run_questions import judged_table, questions
from curator.query.selection import Answers, Refusals, as_hits, choose, nearer_to
from curator.query.settings import QueryConfig
from store.errors import NotFoundError
from store.keys import content_key
from store.records import ItemStatus, Leak, Outcome, Selection

if TYPE_CHECKING:
    from store.store import Store

STAGE = "query"
STAGE_VERSION = 4  # 4: expected failures from a predictor, through compact vectors
DEFAULT = "predictor"
NOT_INDEXED = "have no vectors (run: curator index)"


def query(store: Store, config: QueryConfig, *, executor: Executor | None = None) -> StageResult:
    """Select pool images; the driver does it, so that `executor` is not used.

    Returns:
        a result whose summary holds "selection", "groups" (name, failures, hits, expected), "judged" (the
        out-of-fold table by what is asked), "hits" (rank, image, uri, score, group, outcome, box, reason) and
        "warnings". With `preview` "judged" and "groups" alone, and nothing is stored.

    Raises:
        InputError: no failure matches, a class is unknown, or the pool is not indexed (names `curator
            index`).
    """
    current = read_current(store, STAGE)
    failures = _failures(config, current)
    pool = _pool(store, config)
    index = indexed(store, config.embedder, current, store.image_ids(role="pool"))
    leaks = store.leaks(pool)
    key = content_key(
        STAGE,
        STAGE_VERSION,
        config.results(),
        current.digest,
        index.state,
        sorted(outcome.key for outcome in failures),
        _sha256(store, pool),
        _sha256(store, list(leaks)),
        store.near_threshold,
        _sha256(store, store.image_ids(role="train")),
    )
    if config.preview:
        return _preview(store, config, current, failures, index)
    with recorded_run(
        store, STAGE, config, models=[current.model.fingerprint], config_key=key, scope=config.name
    ) as (run_id, counts):
        selection = _stored(store, config.name, key)
        counts.update(done=int(selection is None), skipped=int(selection is not None), failed=0)
        if selection is None:
            selection = _select(store, config, key, failures, current, pool, index, leaks)
            with store.transaction():
                store.put_selection(run_id, selection)
                store.record_items(run_id, [ItemStatus(key=key, status="done")])
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts["done"],
        skipped=counts["skipped"],
        summary=_summary(store, selection),
    )


def _failures(config: QueryConfig, current: Current) -> list[Outcome]:
    failures = FailureSelector.parse(config.failures).among(current.outcomes)
    if not failures:
        kinds = sorted({f"{o.kind}:{o.cause}" for o in current.outcomes if o.kind != "TP"})
        raise InputError(
            f"query: no failure matches {config.failures!r}; there are {', '.join(kinds) or 'none'} "
            "(curator diagnose lists them)"
        )
    return failures


def _pool(store: Store, config: QueryConfig) -> list[int]:
    """Pool images that may answer.

    Raises:
        InputError: none passes the filter.
    """
    pool = store.image_ids(role="pool")
    wanted = PoolFilter.parse(config.where)
    if wanted.empty:
        return pool
    taken: set[int] = set()
    if wanted.unselected:
        taken = {i for s in store.selections() if s.name != config.name for i in s.image_ids}
    passing = {
        member.image_id
        for member in store.memberships(pool)
        if member.role == "pool" and wanted.allows(member) and member.image_id not in taken
    }
    if not passing:
        raise InputError(
            f"query: none of {len(pool)} pool images passes --where {config.where!r}; "
            "curator status lists data sets"
        )
    return sorted(passing)


def _sha256(store: Store, ids: Sequence[int]) -> str:
    return content_key(sorted(image.sha256 for image in store.images(reader="query", ids=ids))) if ids else ""


def _stored(store: Store, name: str, key: str) -> Selection | None:
    try:
        selection = store.selection(name)
    except NotFoundError:
        return None
    return selection if selection.key == key else None


def _preview(
    store: Store, config: QueryConfig, current: Current, failures: Sequence[Outcome], index: IndexState
) -> StageResult:
    mined = read_mined(store, current, index)
    asking = questions(store, config, current, failures, mined, index)
    return StageResult(
        stage=STAGE,
        run_id=0,
        summary={
            "preview": True,
            "judged": judged_table(asking, mined, config),
            "groups": [_group(question) for question in asking],
            "notes": _notes(asking),
            "warnings": [index.warning] if index.missing else [],
        },
    )


def _select(
    store: Store,
    config: QueryConfig,
    key: str,
    failures: Sequence[Outcome],
    current: Current,
    pool: Sequence[int],
    index: IndexState,
    leaks: Mapping[int, Leak],
) -> Selection:
    mined = read_mined(store, current, index)
    asking = questions(store, config, current, failures, mined, index)
    found = answers(store, index.space, asking, pool, current.criteria.score)
    if not len(found.image_ids):
        raise InputError("query: no pool image has vectors yet; run: curator index")
    train = store.image_ids(role="train")
    choice = choose(
        Answers(
            groups=found.groups,
            image_ids=found.image_ids,
            expected=_gains(asking, found),
            objects=found.objects,
        ),
        budget=config.budget,
        budget_boxes=config.budget_boxes or None,
        strength=config.diversity,
        quota=dict.fromkeys(found.groups, config.quota) if config.quota else None,
        refusals=[
            lambda ids: {i: leaks[i] for i in ids if i in leaks},
            lambda ids: dict.fromkeys(
                store.near_duplicates(ids, train) if train else {}, "the training set has it already"
            ),
            *_unlike(store, config, index, asking),
        ],
        duplicates=store.near_duplicates,
    )
    picked = {pick.image_id: pick.group for pick in choice.picks}
    said = shown(store, index.space, asking, found, picked, mined, current.model.classes)
    hits = as_hits(choice, said)
    warnings = [*choice.warnings, *_notes(asking)]
    if index.missing:
        warnings.append(index.warning)
    asked = _asking(failures, mined)
    if asked["unused"]:
        others = "; ".join(f"{count} {reason}" for reason, count in asked["unused"].items())
        warnings.append(f"{asked['used']} of {asked['failures']} failures ask; the others do not: {others}")
    return Selection(
        name=config.name,
        arm="query" if config.method == DEFAULT else config.method,
        hits=hits,
        key=key,
        config={
            **config.everything(),
            "groups": [
                {
                    **_group(question),
                    "hits": sum(hit.group in question.groups for hit in hits),
                    "expected": _expected(question, found, number),
                }
                for number, question in enumerate(asking)
            ],
            "judged": judged_table(asking, mined, config),
            "warnings": warnings,
            "asking": asked,
            "explained_by": current.explained_by,
            "current": current.digest,
        },
    )


def _gains(asking: Sequence[Question], found: Answered) -> np.ndarray:
    """What the selection adds up (M, G): expectations, or where a method gives scores alone their ranks among
    the pool's in (0, 1], so that groups of different scales compare."""
    result = np.zeros_like(found.scores)
    for column, number in enumerate(found.of):
        scores = found.scores[:, column]
        if asking[number].scorer.expects:
            result[:, column] = np.maximum(scores, 0)
        else:
            order = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
            result[:, column] = np.where(np.isfinite(scores), (order + 1) / len(order), 0)
    return result


def _unlike(
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


def _asking(failures: Sequence[Outcome], mined: Mined) -> dict[str, Any]:
    """How many of the asked failures are learned from, and why the others are not."""
    known = set(mined.outcomes.outcome_ids.tolist())
    used = sum(outcome.id in known for outcome in failures)
    silent = len(failures) - used
    return {
        "failures": len(failures),
        "used": used,
        "unused": {NOT_INDEXED: silent} if silent else {},
    }


def _expected(question: Question, found: Answered, number: int) -> float | None:
    if not question.scorer.expects:
        return None
    columns = [c for c, of in enumerate(found.of) if of == number]
    return round(float(found.scores[:, columns].sum()), 2)


def _group(question: Question) -> dict[str, Any]:
    return {
        "name": question.asked.name,
        "failures": len(set(question.kinds.outcome_ids.tolist())),
        "kinds": len(question.groups),
    }


def _notes(asking: Sequence[Question]) -> list[str]:
    return [question.scorer.note for question in asking if question.scorer.note]


def _summary(store: Store, selection: Selection) -> dict[str, Any]:
    uris = {i.id: i.uri for i in store.images(reader="query", ids=list(selection.image_ids))}
    return {
        "selection": selection.name,
        "arm": selection.arm,
        "groups": selection.config["groups"],
        "judged": selection.config["judged"],
        "warnings": selection.config["warnings"],
        "asking": selection.config["asking"],
        "explained_by": selection.config["explained_by"],
        "hits": [
            {
                "rank": h.rank,
                "image": h.image_id,
                "uri": uris.get(h.image_id, ""),
                "score": round(h.score, 4),
                "group": h.group,
                "outcome": h.outcome_id,
                "box": list(h.box),
                "reason": h.reason,
            }
            for h in selection.hits
        ],
    }
