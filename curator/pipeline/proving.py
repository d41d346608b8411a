"""`verify` with arms that are query methods: each is asked what the verified selection asked, then proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult
from curator.progress import say
from curator.prove import run_verify
from curator.prove.arms.base import Arm
from curator.prove.run_arms import DrawnFrom, check_names, load_arms, wanted_hits
from curator.prove.settings import VerifyConfig
from curator.query.run import query
from curator.query.run_pool import ArmOf, may_answer
from curator.query.settings import QueryConfig
from curator.registry import ARMS, RANKERS
from store.errors import NotFoundError

if TYPE_CHECKING:
    from store.store import Store

VIEWS = {"image-similarity": "image", "crop-similarity": "object"}  # arms: what their similarity compares
# of a query, not what it asks of failures
_OWN = ("name", "method", "budget", "preview", "refine", "device", "like", "text")


def verify(store: Store, config: VerifyConfig, *, executor: Executor | None = None) -> StageResult:
    """Train and measure every arm; see `curator.prove.run_verify.verify`.

    An arm named as a method of `curator query` gets a selection `VERIFICATION-METHOD`, and so do
    image-similarity and crop-similarity (cosine of whole images, of objects). They, random and oracle draw
    from the part of the pool that the compared selection was chosen from (`--where`, `--without`).

    Raises:
        InputError: as there, and what the query says.
        NotFoundError: an unknown selection; nothing is made then.
    """
    methods = [arm for arm in config.arms if arm in (*RANKERS.names(), *VIEWS) and arm not in ARMS.names()]
    asked = {arm: f"{config.name}-{arm}" for arm in methods}
    arms = load_arms(config.arms, asked)
    check_names(store, config, arms.values(), asked.values())
    drawn_from = _drawn_from(store, config, arms, asked)
    if methods:
        like = replace(
            _asked_by(store, config.selection), budget=max(config.all_budgets), device=config.device
        )
        own = ArmOf(verification=config.name, compared=config.selection)
        for arm, name in asked.items():
            if arm in VIEWS:
                query(store, replace(like, name=name, method="similarity", view=VIEWS[arm]), arm_of=own)
            else:
                query(store, replace(like, name=name, method=arm), arm_of=own)
    return run_verify.verify(store, config, asked=asked, drawn_from=drawn_from, executor=executor)


def _drawn_from(
    store: Store, config: VerifyConfig, arms: Mapping[str, Arm], asked: Mapping[str, str]
) -> DrawnFrom | None:
    """The part of the pool that the compared selection was chosen from; None where that is all of it, where
    no arm draws from the pool, or where none is compared with a selection.

    Compared is the verified selection where an arm is made of it or asks as it did, else the first that an
    arm names.
    """
    needs = {name: [arm.needs(budget) for budget in config.all_budgets] for name, arm in arms.items()}
    drawn = [name for name, own in needs.items() if name in asked or any(n.pool or n.fails for n in own)]
    named = [hit for name, own in needs.items() if name not in asked for hit in wanted_hits(own)]
    compared = config.selection if asked or "" in named else next(iter(named), None)
    try:
        made = None if not drawn or compared is None else store.selection(compared).config
    except NotFoundError:  # methods alone, and no query was made yet
        return None
    where, without = (made.get("where") or "", made.get("without") or ()) if made else ("", ())
    if not where and not without:
        return None
    passing = may_answer(store, str(where), tuple(without), beside={str(compared)})
    said = f"the pool images that pass {where}" if where else "the pool images"
    said += f" and are not in {' or '.join(without)}" if without else ""
    return DrawnFrom(images=frozenset(passing), said=said)


def _asked_by(store: Store, selection: str) -> QueryConfig:
    """The query that made a selection; the default one where there is none and none was named.

    Raises:
        NotFoundError: one was named.
    """
    try:
        said: dict[str, Any] = dict(store.selection(selection).config)
    except NotFoundError:
        if selection != VerifyConfig.selection:
            raise
        return QueryConfig()
    if said.get("like") or said.get("text"):
        say(f"verify: {selection!r} was asked for by a picture or by words; its methods ask for all failures")
    known = {field.name for field in fields(QueryConfig)} - set(_OWN)
    settings = {name: value for name, value in said.items() if name in known and value is not None}
    try:
        return QueryConfig.from_table(settings, where=f"selection {selection}")
    except InputError:
        say(f"verify: how {selection!r} was asked for is not known; its methods ask for all failures")
        return QueryConfig()
