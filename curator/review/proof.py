"""Proof: what verifications showed, as the report's tables, and the gallery that `verify` made of it.

Of the holdout nothing else is ever shown: a picture is served only if a verification's gallery names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from curator.page import Table
from curator.report.run_proof import proven_in, rounds, verifications
from curator.review.desk import Desk
from curator.review.images import picture
from store.errors import NotFoundError


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["proof"])
    store = desk.store

    def crops() -> Iterator[tuple[str, dict[str, Any]]]:
        for name in dict.fromkeys(trial.verification for trial in store.trials()):
            run = store.current_run("verify", name)
            for crop in run.facts.get("gallery", []) if run is not None else []:
                yield name, crop

    told: dict[str, Any] = {"of": None, "tables": []}  # intervals take seconds: made once per state

    def tables() -> list[Table]:
        state = [(t.verification, t.key) for t in store.trials()], [r.id for r in store.runs(stage="loop")]
        if told["of"] != state:
            told.update(of=state, tables=[*rounds(store), *verifications(store, proven_in(store))])
        return list(told["tables"])

    @own.get("/proof")
    def proof() -> dict[str, Any]:
        """Tables of all verifications and loops, and the gallery."""
        return {
            "tables": [
                {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [list(row) for row in table.rows],
                    "note": table.note,
                }
                for table in tables()
            ],
            "gallery": [
                {
                    "verification": name,
                    "arm": crop["arm"],
                    "kind": crop["kind"],
                    "class": crop["class"],
                    "blob": crop["blob"],
                    "box": crop["box"],
                    "before": crop["before"],
                    "after": crop["after"],
                    "seeds": crop["seeds"],
                    "trials": crop["trials"],
                }
                for name, crop in crops()
            ],
        }

    grouped: dict[str, Any] = {"of": None, "groups": []}

    @own.get("/proof/groups")
    def groups(category: Annotated[str, Query(alias="class")] = "", cause: str = "") -> dict[str, Any]:
        """How many missed objects of a class, and of a cause, each arm fixed on the holdout, where there are
        enough to tell."""
        from curator.prove.run_compared import groups_stored

        trials = store.trials()
        state = [trial.key for trial in trials]
        if grouped["of"] != state:
            found = [
                (name, group)
                for name in dict.fromkeys(trial.verification for trial in trials)
                for group in groups_stored(store, [t for t in trials if t.verification == name])
            ]
            grouped.update(of=state, groups=found)
        return {
            "groups": [
                {
                    "verification": name,
                    "kind": group.kind,
                    "name": group.name,
                    "missed": group.missed,
                    "arms": [
                        {"arm": arm, **figures["fn_fixed"].plain()}
                        for arm, figures in group.compared.arms.items()
                        if "fn_fixed" in figures
                    ],
                }
                for name, group in grouped["groups"]
                if (group.kind, group.name) in (("class", category), ("cause", cause))
            ]
        }

    @own.get("/gallery/{blob}", response_class=Response)
    def shown(blob: str) -> Response:
        """A crop that `verify` put into its gallery."""
        if blob not in {crop["blob"] for _, crop in crops()}:
            raise NotFoundError("no gallery holds this picture")
        return picture(store.blob(blob), "image/png")

    return own
