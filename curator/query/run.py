"""`query`: rank the pool by what it is expected to hold of the asked failures, and store a selection.

In: outcomes, and the vectors that `index` stored. Out: a `Selection` of arm "query" (or of the method that
was asked for) whose config holds the out-of-fold table, the groups and what the pool is expected to hold.
Pool annotations are never read; the pool is scored in pieces, so memory hardly grows with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.run_suspects import Trusted, without_suspects
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run
from curator.query.asked import Mined
from curator.query.feedback import asks
from curator.query.run_answers import Question, answers, shown
from curator.query.run_choice import BLIND, draw, gains, refused, unlike
from curator.query.run_coverage import covered
from curator.query.run_examples import example_question, parse_like
from curator.query.run_indexed import IndexState, indexed, read_mined
from curator.query.run_pool import VERIFICATION, ArmOf, may_answer
from curator.query.run_questions import asked_for, judged_table, method, questions
from curator.query.run_refine import Refinement, known_already, refined, refinement
from curator.query.run_retrieval import retrieve
from curator.query.selection import Answers, as_hits, choose
from curator.query.settings import QueryConfig
from curator.query.wording import failed
from store.errors import NotFoundError
from store.keys import content_key
from store.records import Hit, ItemStatus, Outcome, Selection

if TYPE_CHECKING:
    from store.store import Store

STAGE = "query"
# 6: what was added to the training set is refused; 7: the catalogue's state in the key
STAGE_VERSION = 7
DEFAULT = "predictor"
IDLE = 0.05  # expected failures below which a chosen image is hardly worth its place
NOT_INDEXED = "have no vectors (run: curator index)"


def query(
    store: Store, config: QueryConfig, *, executor: Executor | None = None, arm_of: ArmOf | None = None
) -> StageResult:
    """Select pool images; the driver does it, so that `executor` is not used.

    Args:
        arm_of: where it is asked for a verification; the selection then does not count for selected=no.
    Returns:
        a result whose summary holds "selection", "groups" (name, failures, hits, expected), "judged" (the
        out-of-fold table by what is asked), "hits" (rank, image, uri, score, group, outcome, box, reason),
        "left_out" (of suspect labels, one line or None), "refined" (what was learned from people, None
        without `refine`), "explained_by" (only of a method that reads explanations) and "warnings". With
        `preview` "judged" and "groups" alone, and nothing is stored.

    Raises:
        InputError: no failure matches, a class is unknown, or the pool is not indexed (names `curator
            index`).
    """
    whole = read_current(store, STAGE)
    by_example, picture = bool(config.like or config.text), _picture(store, config)
    asked = [] if by_example else _failures(config, whole)
    trusted = without_suspects(store, whole, asked, keep=config.keep_suspects)
    current, failures = trusted.current, trusted.failures
    beside = {config.name, *([] if arm_of is None else [arm_of.compared])}
    pool = may_answer(store, config.where, config.without, beside=beside)
    index = None
    if config.method != BLIND or by_example:
        index = indexed(store, config.embedder, whole, store.image_ids(role="pool"))
    if config.preview:
        if index is None:
            raise InputError(f"query: --method {BLIND} learns nothing, so there is nothing to preview")
        return _preview(store, config, trusted, index)
    found = refinement(store, config) if config.refine else None
    if found is not None:
        judged = set(found.judged)
        pool = [image for image in pool if image not in judged]
        if not pool:
            raise InputError("query: every pool image that may answer was judged or labelled already")
    key = content_key(
        STAGE,
        STAGE_VERSION,
        config.results(),
        current.digest,
        None if index is None else index.state,
        sorted(outcome.key for outcome in failures),
        store.catalogue_state(),
        hashlib.sha256(np.asarray(pool, np.int64).tobytes()).hexdigest(),
        store.near_threshold,
        picture if found is None else found.state,
        *([] if arm_of is None else [{VERIFICATION: arm_of.verification}]),
    )
    told = {"current": whole.digest} | ({} if arm_of is None else {VERIFICATION: arm_of.verification})
    with recorded_run(
        store, STAGE, config, models=[current.model.fingerprint], config_key=key, scope=config.name
    ) as (run_id, counts):
        selection = _stored(store, config.name, key)
        counts.update(done=0, skipped=int(selection is not None), failed=0)
        if selection is None:
            make = draw if index is None else partial(_select, index=index, refining=found)
            selection = make(store, config, key, failures, current, pool)
            selection = replace(selection, config={**selection.config, **told})
            with store.transaction():
                store.put_selection(run_id, selection)
                store.record_items(run_id, [ItemStatus(key=key, status="done")])
            counts.update(done=1)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts["done"],
        skipped=counts["skipped"],
        summary=_summary(store, config, selection, trusted),
    )


def _picture(store: Store, config: QueryConfig) -> str:
    """What a picture that asks holds now, "" where none does.

    Raises:
        InputError: it is a held-out image, which `verify` alone reads.
    """
    path = parse_like(config.like)[0] if config.like else None
    if path is None or not path.is_file():
        return ""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest in store.hashes_of(store.image_ids(role="holdout")):
        raise InputError(f"--like: {path} is a held-out image, which verify alone reads; ask by another one")
    return digest


def _questions(
    config: QueryConfig, current: Current, failures: Sequence[Outcome], mined: Mined, index: IndexState
) -> list[Question]:
    if config.like or config.text:
        return [example_question(config, current, index)]
    return questions(config, current, failures, mined, index)


def _failures(config: QueryConfig, current: Current) -> list[Outcome]:
    failures = FailureSelector.parse(config.failures).among(current.outcomes)
    if not failures:
        kinds = sorted({f"{o.kind}:{o.cause}" for o in current.outcomes if o.kind != "TP"})
        raise InputError(
            f"query: no failure matches {config.failures!r}; there are {', '.join(kinds) or 'none'} "
            "(curator diagnose lists them)"
        )
    return failures


def _stored(store: Store, name: str, key: str) -> Selection | None:
    try:
        selection = store.selection(name)
    except NotFoundError:
        return None
    return selection if selection.key == key else None


def _preview(store: Store, config: QueryConfig, trusted: Trusted, index: IndexState) -> StageResult:
    mined = read_mined(store, trusted.current, index)
    asking = _questions(config, trusted.current, trusted.failures, mined, index)
    return StageResult(
        stage=STAGE,
        run_id=0,
        summary={
            "preview": True,
            "judged": judged_table(asking, mined, config),
            "groups": [_group(question) for question in asking],
            "notes": _notes(asking),
            "left_out": trusted.left_out,
            "warnings": [*([index.warning] if index.missing else []), *trusted.warnings],
        },
    )


def _select(
    store: Store,
    config: QueryConfig,
    key: str,
    failures: Sequence[Outcome],
    current: Current,
    pool: Sequence[int],
    *,
    index: IndexState,
    refining: Refinement | None = None,
) -> Selection:
    mined = read_mined(store, current, index)
    learned, refusals = mined, refused(store, config.without)
    kept: tuple[Hit, ...] = ()
    if refining is not None:
        learned = refined(store, config, current, index, mined, refining, asked_for(failures, current))
        kept, refusals = refining.kept, [*refusals, *known_already(store, refining)]
    asking = _questions(config, current, failures, learned, index)
    named = retrieve(store, index.space, index.shape, asking, mined, pool, config.budget)
    found = answers(store, index.space, asking, named.image_ids, current.criteria.score)
    if not len(found.image_ids):
        raise InputError("query: no pool image has vectors yet; run: curator index")
    choice = choose(
        Answers(
            groups=found.groups,
            image_ids=found.image_ids,
            expected=gains(asking, found),
            objects=found.objects,
        ),
        budget=config.budget - len(kept),
        budget_boxes=config.budget_boxes or None,
        strength=config.diversity,
        quota=dict.fromkeys(found.groups, config.quota) if config.quota else None,
        refusals=[*refusals, *unlike(store, config, index, asking)],
        duplicates=store.near_duplicates,
    )
    picked = {pick.image_id: pick.group for pick in choice.picks}
    words = [current.class_map.get(name, name) for name in current.model.classes]
    why = shown(store, index.space, asking, found, picked, mined, words)
    hits = (*kept, *(replace(hit, rank=hit.rank + len(kept)) for hit in as_hits(choice, why)))
    holds = covered(store, index.space, asking, found, named, mined, config.seed)
    warnings = [*choice.warnings, *_notes(asking)]
    if any(own.ids for own in FailureSelector.parse(config.failures).alternatives):
        warnings.append("failures named by id ask for all failures of their kind, class and cause")
    if refining is not None:
        warnings += refining.warnings
    elif not (config.like or config.text) and (said := store.feedback(config.name)):
        warnings.append(
            f"{len(said)} hits of {config.name!r} were accepted or rejected; --refine uses that, this query "
            "does not"
        )
    warnings += [
        found_there.sentence(failed(question.asked.kind, question.asked.category))
        for question, found_there in zip(asking, holds, strict=True)
        if found_there is not None and found_there.absent
    ]
    idle = sum(pick.expected < IDLE for pick in choice.picks)
    if idle and all(question.scorer.expects for question in asking):
        warnings.append(f"{idle} of the {len(choice.picks)} chosen images expect fewer than {IDLE} failures")
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
                    "hits": sum(
                        hit.group in question.groups or asks(question.asked, hit.group) for hit in hits
                    ),
                    "expected": None if there is None else round(there.expected, 2),
                    "coverage": None if there is None else there.plain(),
                }
                for question, there in zip(asking, holds, strict=True)
            ],
            "judged": judged_table(asking, mined, config),
            "warnings": warnings,
            "asking": asked,
            "refined": refining and refining.note(config.method, asking),
            "labelled": [] if refining is None else [image.id for image, _ in refining.labelled],
            "scored": named.how,
            "explained_by": current.explained_by,
            "current": current.digest,
        },
    )


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


def _group(question: Question) -> dict[str, Any]:
    failures = len(set(question.kinds.outcome_ids.tolist()))
    return {
        "name": question.asked.name if failures else question.groups[0],  # of a picture or words, "like NAME"
        "failures": failures,
        "kinds": len(question.groups),
        "classes": list(question.asked.categories),
    }


def _notes(asking: Sequence[Question]) -> list[str]:
    return [question.scorer.note for question in asking if question.scorer.note]


def _summary(store: Store, config: QueryConfig, selection: Selection, trusted: Trusted) -> dict[str, Any]:
    reads = getattr(method(config), "reads_explanations", False)
    uris = {i.id: i.uri for i in store.images(reader="query", ids=list(selection.image_ids))}
    return {
        "selection": selection.name,
        "arm": selection.arm,
        "groups": selection.config["groups"],
        "judged": selection.config["judged"],
        "warnings": [*selection.config["warnings"], *trusted.warnings],
        "left_out": trusted.left_out,
        "asking": selection.config["asking"],
        "scored": selection.config["scored"],
        "refined": selection.config.get("refined"),
        **({"explained_by": selection.config["explained_by"]} if reads else {}),
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
