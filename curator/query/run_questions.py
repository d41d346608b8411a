"""What is asked of the pool: a fitted method per kind of failure and class, and how well it ranks.

In: `QueryConfig`, the asked failures, the mined images. Out: `Question`s; the out-of-fold table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curator.diagnose.current import Current
from curator.errors import InputError
from curator.query.asked import Mined, asked_of
from curator.query.judging import judge
from curator.query.kinds import Kinds
from curator.query.methods.base import Ranker
from curator.query.methods.plain import ClassUncertainty
from curator.query.methods.similarity import Similarity
from curator.query.run_answers import Question
from curator.query.run_indexed import IndexState
from curator.query.settings import QueryConfig
from curator.query.wording import failed
from curator.registry import RANKERS
from store.records import Outcome

FALLBACK = "class-uncertainty"
RIVALS = (FALLBACK, "similarity", "random")


def questions(
    config: QueryConfig,
    current: Current,
    failures: Sequence[Outcome],
    mined: Mined,
    index: IndexState,
) -> list[Question]:
    """Fit the method to every kind of failure and class that is asked for.

    Raises:
        InputError: an unknown view; no failure has vectors.
    """
    views = (*index.shape.views, *index.shape.image_views)
    if config.view != "auto" and config.view not in views:
        raise InputError(f"--view: expected auto or one of {', '.join(views)}, got {config.view!r}")
    ranker = method(config)
    result = []
    for asked in asked_of(failures, current.model.classes, current.class_map, current.criteria.score):
        own = mined.asking(asked)
        if not len(own):
            continue
        scorer = ranker.fit(mined, asked, seed=config.seed)
        kinds = Kinds.of(
            own,
            asked.name,
            tuple(index.shape.views),
            spread=scorer.expects and config.diversity > 0,
            seed=config.seed,
        )
        by = FALLBACK if isinstance(scorer, ClassUncertainty) else config.method
        told = f"{failed(asked.kind, asked.category)} by {by}"
        result.append(Question(asked=asked, told=told, scorer=scorer, kinds=kinds))
    if not result:
        raise InputError("query: the failures have no vectors yet; run: curator index")
    return result


def method(config: QueryConfig) -> Ranker:
    """The ranking method of a configuration.

    Raises:
        RegistryError: unknown (lists the choices).
    """
    if config.method == "similarity" and config.view != "auto":
        return Similarity(view=config.view)
    ranker: Ranker = RANKERS.load(config.method)()
    return ranker


def judged_table(asking: Sequence[Question], mined: Mined, config: QueryConfig) -> list[dict[str, Any]]:
    """Per kind of failure and class, how well its method and the plain rivals rank mined images not seen.

    Returns:
        rows: "asked", "failing" images, "methods" (see `Judged.plain`; empty where fewer than two images
        fail), and "better": the rival with the highest average precision, where one is above the method's.
    """
    table: list[dict[str, Any]] = []
    if config.like or config.text:
        return table
    for question in asking:
        rankers = {config.method: method(config)}
        rankers |= {name: RANKERS.load(name)() for name in RIVALS if name != config.method}
        rows = judge(rankers, mined, question.asked, seed=config.seed, known={config.method: question.scorer})
        best = max(rows, key=lambda row: row.average_precision, default=None)
        own = next((row for row in rows if row.method == config.method), None)
        better = best.method if best and own and best.average_precision > own.average_precision else None
        table.append(
            {
                "asked": question.asked.name,
                "failing": len({o.image_id for o in mined.known.values() if question.asked.matches(o)}),
                "methods": [row.plain() for row in rows],
                "better": better,
            }
        )
    return table
