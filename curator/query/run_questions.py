"""What is asked of the pool: a fitted method per kind of failure and class, and how well it ranks.

In: `QueryConfig`, the asked failures, the mined images. Out: `Question`s; the out-of-fold table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curator.diagnose.current import Current
from curator.errors import InputError
from curator.query.asked import Asked, Mined, asked_of
from curator.query.judging import judge
from curator.query.kinds import Kinds
from curator.query.methods.base import Ranker
from curator.query.methods.plain import ClassUncertainty
from curator.query.methods.similarity import Similarity
from curator.query.run_answers import Question
from curator.query.run_indexed import IndexState
from curator.query.settings import QueryConfig
from curator.query.threads import each
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

    Args:
        mined: what to learn from, people's feedback included (`asked_for` names the questions).
    Raises:
        InputError: an unknown view; no failure has vectors.
    """
    views = (*index.shape.views, *index.shape.image_views)
    if config.view != "auto" and config.view not in views:
        raise InputError(f"--view: expected auto or one of {', '.join(views)}, got {config.view!r}")
    ranker = method(config)

    def fit(asked: Asked) -> Question | None:
        own = mined.asking(asked)
        own = own.take(own.outcome_ids >= 0)  # the failures; not what people accepted
        if not len(own):
            return None
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
        return Question(asked=asked, told=told, scorer=scorer, kinds=kinds)

    result = [question for question in each(fit, asked_for(failures, current)) if question is not None]
    if not result:
        raise InputError("query: the failures have no vectors yet; run: curator index")
    return result


def asked_for(failures: Sequence[Outcome], current: Current) -> list[Asked]:
    """What the failures ask."""
    return asked_of(failures, current.model.classes, current.class_map, current.criteria.score)


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
    if config.like or config.text:
        return []
    rivals = {name: RANKERS.load(name)() for name in RIVALS if name != config.method}

    def row(question: Question) -> dict[str, Any]:
        rankers = {config.method: method(config), **rivals}
        rows = judge(rankers, mined, question.asked, seed=config.seed, known={config.method: question.scorer})
        best = max(rows, key=lambda row: row.average_precision, default=None)
        own = next((row for row in rows if row.method == config.method), None)
        beaten = best and own and best.average_precision > own.average_precision
        return {
            "asked": question.asked.name,
            "failing": len({o.image_id for o in mined.known.values() if question.asked.matches(o)}),
            "methods": [row.plain() for row in rows],
            "better": best.method if best and beaten else None,
        }

    return each(row, asking)
