"""`verify` with arms that are query methods: each is asked what the verified selection asked, then proven."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult
from curator.progress import say
from curator.prove import run_verify
from curator.prove.run_arms import check_names, load_arms
from curator.prove.settings import VerifyConfig
from curator.query.run import query
from curator.query.run_pool import ArmOf
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
    image-similarity and crop-similarity (cosine of whole images, of objects).

    Raises:
        InputError: as there, and what the query says.
        NotFoundError: an unknown selection; nothing is made then.
    """
    methods = [arm for arm in config.arms if arm in (*RANKERS.names(), *VIEWS) and arm not in ARMS.names()]
    asked = {arm: f"{config.name}-{arm}" for arm in methods}
    check_names(store, config, load_arms(config.arms, asked).values(), asked.values())
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
    return run_verify.verify(store, config, asked=asked, executor=executor)


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
