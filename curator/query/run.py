"""`query`: ask the pool for images like the failures and store what it answers as a selection.

In: outcomes, and the vectors that `index` stored. Out: a `Selection` of arm "query" (or of a baseline:
"similarity", "random") whose config tells how each group was asked. Pool annotations are never read; the
pool is scored in chunks, so memory does not grow with it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError, StageError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run
from curator.query.base import BoxTable, ContrastiveQuery, Examples, SimilarityQuery
from curator.query.contrast import fit_queries, unused
from curator.query.rounds import Answer, select
from curator.query.run_indexed import IndexState, indexed
from curator.query.run_tables import best_overlap, box_table, region_table, rows_by_image, twins
from curator.query.settings import QueryConfig
from store.errors import NotFoundError
from store.keys import content_key
from store.records import ItemStatus, Leak, Outcome, Selection

if TYPE_CHECKING:
    from store.store import Store

STAGE = "query"
STAGE_VERSION = 3
CHUNK = 1000  # pool images scored at a time
TWIN = 0.5  # IoU at which a mined image's candidate, window or cell shows the failure too
TWIN_REGION = 0.35  # the same for a culprit region, whose outline is rough
CLEAR = 0.2  # IoU below which it shows something else
DIVERSITY = 0.15  # strength of it within a group
DEPTH = 6  # answers kept per group, in budgets
NOT_INDEXED = "have no vectors (run: curator index)"

Query = ContrastiveQuery | SimilarityQuery


def query(store: Store, config: QueryConfig, *, executor: Executor | None = None) -> StageResult:
    """Select pool images; the driver does it, so that `executor` is not used.

    Returns:
        a result whose summary holds "selection", "groups" (name, failures, views, separation, hits),
        "hits" (rank, image, uri, score, group, outcome, box) and "warnings".

    Raises:
        InputError: no failure matches, a class is unknown, or the pool is not indexed (names `curator
            index`).
    """
    current = read_current(store, STAGE)
    failures = _failures(config, current)
    pool = store.image_ids(role="pool")
    leaks = store.leaks(pool)
    index = None if config.method == "random" else indexed(store, config, current, pool)
    key = content_key(
        STAGE,
        STAGE_VERSION,
        config.results(),
        current.digest,
        None if index is None else index.state,
        sorted(outcome.key for outcome in failures),
        _sha256(store, pool),
        _sha256(store, list(leaks)),
        store.near_threshold,
        _sha256(store, store.image_ids(role="train")),
    )
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


def _sha256(store: Store, ids: Sequence[int]) -> str:
    return content_key(sorted(image.sha256 for image in store.images(reader="query", ids=ids))) if ids else ""


def _stored(store: Store, name: str, key: str) -> Selection | None:
    try:
        selection = store.selection(name)
    except NotFoundError:
        return None
    return selection if selection.key == key else None


def _select(
    store: Store,
    config: QueryConfig,
    key: str,
    failures: Sequence[Outcome],
    current: Current,
    pool: Sequence[int],
    index: IndexState | None,
    leaks: Mapping[int, Leak],
) -> Selection:
    strength, floors = 0.0, None
    silent: Counter[str] = Counter()
    if index is None:
        groups: list[dict[str, Any]] = [{"name": "random", "failures": len(failures)}]
        answers = {"random": _random(pool, config.seed)}
        weights = {"random": 1.0}
    else:
        queries, reasons = _queries(store, config, failures, current, index)
        silent = Counter(reasons.values())
        answers = _answers(store, queries, pool, index.space, index.views, DEPTH * config.budget)
        weights = {q.name: q.weight for q in queries}
        if config.method == "contrastive":
            strength, floors = DIVERSITY, {q.name: q.bar for q in queries if isinstance(q, ContrastiveQuery)}
        groups = [q.describe() for q in queries]
    train = store.image_ids(role="train")
    known = store.near_duplicates([a.image_id for a in _first(answers)], train) if train else {}
    answers = {name: [a for a in found if a.image_id not in known] for name, found in answers.items()}
    hits, warnings = select(
        answers,
        weights,
        config.budget,
        leaks=lambda ids: {i: leaks[i] for i in ids if i in leaks},
        duplicates=store.near_duplicates,
        floors=floors,
        strength=strength,
    )
    if known:
        warnings.append(f"{len(known)} answers passed over: the training set has them already")
    if index is not None and index.missing:
        warnings.append(index.warning)
    asking = {
        "failures": len(failures),
        "used": len(failures) - silent.total(),
        "unused": dict(silent.most_common()),
    }
    if silent:
        others = "; ".join(f"{count} {reason}" for reason, count in silent.most_common())
        warnings.append(f"{asking['used']} of {len(failures)} failures ask; the others do not: {others}")
    for group in groups:
        group["hits"] = sum(hit.group == group["name"] for hit in hits)
    arm = "query" if config.method == "contrastive" else config.method
    return Selection(
        name=config.name,
        arm=arm,
        hits=tuple(hits),
        key=key,
        config={
            **config.everything(),
            "groups": groups,
            "warnings": warnings,
            "asking": asking,
            "explained_by": current.explained_by,
            "current": current.digest,
        },
    )


def _first(answers: Mapping[str, Sequence[Answer]]) -> list[Answer]:
    return list({a.image_id: a for found in answers.values() for a in found}.values())


def _random(pool: Sequence[int], seed: int) -> list[Answer]:
    order = np.random.default_rng(seed).permutation(np.array(sorted(pool), dtype=np.int64))
    return [
        Answer(
            image_id=int(i),
            score=0.0,
            box=(0.0, 0.0, 0.0, 0.0),
            outcome_id=None,
            vector=np.zeros(1),
        )
        for i in order
    ]


# ---------------------------------------------------------------- what is asked


def _queries(
    store: Store,
    config: QueryConfig,
    failures: Sequence[Outcome],
    current: Current,
    index: IndexState,
) -> tuple[list[Query], dict[int, str]]:
    """One or more queries per kind of failure, from the mined images' vectors; and why others do not ask."""
    views, outcomes = index.views, current.outcomes
    mined = store.image_ids(role="mine")
    table = box_table(store, index.space, views, mined, ("outcome", "candidate", "cell"))
    table = table.take((table.outcome_ids < 0) | np.isin(table.outcome_ids, _ids(outcomes)))
    blaming = [found.id for found in current.attributions.values()]
    regions = region_table(store, index.space, mined, blaming) if "object" in views else None
    offered = table.outcome_ids < 0
    wrong = [o for o in outcomes if o.kind != "TP"]
    near = best_overlap(table, [o.image_id for o in wrong], [o.box for o in wrong], _ids(wrong))[0] >= CLEAR
    if regions is not None:
        near |= best_overlap(table, regions.image_ids, regions.boxes, regions.outcome_ids)[0] >= CLEAR
    right = np.isin(table.outcome_ids, _ids([o for o in outcomes if o.kind == "TP"]))
    negatives = table.take((offered & ~near) | right)
    queries: list[Query] = []
    reasons: dict[int, str] = {}
    for kind in ("FN", "FP"):
        asked = [o for o in failures if o.kind == kind]
        own = table.take(np.isin(table.outcome_ids, _ids(asked)))
        indexed = {int(o): int(i) for o, i in zip(own.outcome_ids, own.image_ids, strict=True)}
        reasons |= {o.id or 0: NOT_INDEXED for o in asked if o.id not in indexed}
        if not len(own):
            continue
        if config.method == "similarity":
            view = "object" if "object" in views else views[0]
            queries.append(SimilarityQuery.fit(own, negatives, name=kind, view=view))
            continue
        candidates = table.take(offered)
        examples = [Examples(source="box", table=own, twins=twins(candidates, own, TWIN))]
        if regions is not None:
            blamed = regions.take(np.isin(regions.outcome_ids, _ids(asked)))
            if len(blamed):
                examples.append(
                    Examples(source="culprit", table=blamed, twins=twins(candidates, blamed, TWIN_REGION))
                )
        fitted = fit_queries(examples, negatives, candidates, kind=kind, views=views)
        reasons |= unused(fitted, indexed)
        queries += fitted
    if not queries:
        raise InputError("query: the failures have no vectors yet; run: curator index")
    return queries, reasons


def _ids(outcomes: Sequence[Outcome]) -> NDArray[np.int64]:
    return np.array([outcome.id for outcome in outcomes], dtype=np.int64)


# ---------------------------------------------------------------- what the pool answers


def _answers(
    store: Store, queries: Sequence[Query], pool: Sequence[int], space: str, views: Sequence[str], most: int
) -> dict[str, list[Answer]]:
    """The pool's best `most` images per query, each by its best box."""
    kept: dict[str, list[tuple[float, int, Answer]]] = {q.name: [] for q in queries}
    for start in range(0, len(pool), CHUNK):
        table = box_table(store, space, views, pool[start : start + CHUNK], ("candidate", "cell"))
        for q in queries:
            for entry in best_boxes(q, table):
                if len(kept[q.name]) < most:
                    heapq.heappush(kept[q.name], entry)
                elif entry[:2] > kept[q.name][0][:2]:
                    heapq.heapreplace(kept[q.name], entry)
    if not any(kept.values()):
        raise InputError("query: no pool image has vectors yet; run: curator index")
    return {
        name: [a for _, _, a in sorted(found, key=lambda e: (-e[0], -e[1]))] for name, found in kept.items()
    }


def best_boxes(q: Query, table: BoxTable) -> Iterator[tuple[float, int, Answer]]:
    """Each image's best box as (score, -image id, answer); none where the detector's evidence on none of its
    boxes is that of the failures (a score of -inf).

    Raises:
        StageError: a score is not a number.
    """
    if not len(table):
        return
    scores = q.score(table)
    broken = np.unique(table.image_ids[np.isnan(scores)]).tolist()
    if broken:
        raise StageError(
            f"query: expected finite vectors, got scores of nan for {len(broken)} pool images "
            f"(first: {broken[0]}); run curator index in a new workspace"
        )
    rows = np.array([own[np.argmax(scores[own])] for own in rows_by_image(table.image_ids)])
    rows = rows[~np.isneginf(scores[rows])]
    best = table.take(rows)
    nearest, vectors = q.nearest(best), q.vectors(best)
    for i, row in enumerate(rows):
        x1, y1, x2, y2 = (float(v) for v in best.boxes[i])
        image = int(best.image_ids[i])
        yield (
            float(scores[row]),
            -image,
            Answer(
                image_id=image,
                score=float(scores[row]),
                box=(x1, y1, x2, y2),
                outcome_id=int(nearest[i]),
                vector=vectors[i],
            ),
        )


def _summary(store: Store, selection: Selection) -> dict[str, Any]:
    uris = {i.id: i.uri for i in store.images(reader="query", ids=list(selection.image_ids))}
    return {
        "selection": selection.name,
        "arm": selection.arm,
        "groups": selection.config["groups"],
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
            }
            for h in selection.hits
        ],
    }
