"""What of the current diagnosis and explanations is indexed: the part of the past that a query's key holds.

In: a `QueryConfig`, `Current` and the pool. Out: an `IndexState`. No vector is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.diagnose.current import Current
from curator.diagnose.run_current import culprits
from curator.errors import InputError
from curator.query.index_work import STAGE as INDEX
from curator.query.run_index import index_items, index_work, vector_space
from curator.query.settings import IndexConfig, QueryConfig
from store.keys import content_key

if TYPE_CHECKING:
    from store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """What of the current state is indexed.

    Attributes:
        space: name of the vector space. views: those to ask in.
        state: content key of all that is in it and current. missing: images that are not; of total images.
    """

    space: str
    views: tuple[str, ...]
    state: str
    missing: int
    total: int

    @property
    def warning(self) -> str:
        """A line for people."""
        return (
            f"{self.missing} of {self.total} mined and pool images are not indexed as they are diagnosed and "
            "explained now; run: curator index (it lists images that cannot be read)"
        )


def indexed(store: Store, config: QueryConfig, current: Current, pool: Sequence[int]) -> IndexState:
    """The vector space of the newest indexing of this model with this embedder, and the views to ask in."""
    for run in store.runs(stage=INDEX):
        made_for = run.scope in ("", current.model.fingerprint) and current.model.fingerprint in run.models
        if run.status == "failed" or not made_for or run.config.get("embedder") != config.embedder:
            continue
        made = IndexConfig.from_table(run.config, where="index")
        space = vector_space(made, current.model)
        known = store.views(space)
        if not known:
            break
        if config.view != "auto" and config.view not in known:
            raise InputError(f"--view: expected auto or one of {', '.join(known)}, got {config.view!r}")
        ids = sorted({*store.image_ids(role="mine"), *pool})
        work = index_work(made, current.model)
        keys = [work.key(item) for item in index_items(store, current, culprits(store, current), ids)]
        done = store.done_keys(INDEX, keys)
        return IndexState(
            space=space,
            views=tuple(known) if config.view == "auto" else (config.view,),
            state=content_key(space, sorted(done)),
            missing=len(keys) - len(done),
            total=len(keys),
        )
    raise InputError(
        f"query: this detector's failures and pool have no {config.embedder!r} vectors yet; "
        "run: curator index"
    )
