"""Workspaces: make one, open one, say what it holds.

In: a folder, perhaps a PostgreSQL URL. Out: an open `Store`, or plain figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curator.prove.run_rounds import loops
from store.store import Store


def init_workspace(path: Path | str, url: str | None = None) -> Store:
    """Make a workspace and open it.

    Args:
        path: a new or empty folder.
        url: of a PostgreSQL database; None puts SQLite into the folder.
    Raises:
        WorkspaceError: the folder holds something already, or the database cannot be used.
    """
    return Store.create(path, url=url)


def open_workspace(path: Path | str) -> Store:
    """Open a workspace.

    Raises:
        WorkspaceError: no workspace there. SchemaError: its schema is older or newer than this code.
    """
    return Store.open(path)


def status(store: Store) -> dict[str, Any]:
    """What a workspace holds, as plain JSON.

    Returns:
        "workspace" (its folder), "counts" (rows by noun, see `Store.counts`), "models" (spec and number of
        classes, newest first), "selections" (name, arm, images), "loops" (the rounds of
        each `curator loop`), "near_duplicates" (how
        unlike two images may be that count as one), "stages" (the newest run of each stage: id, status,
        counts, started).
    """
    newest: dict[str, dict[str, Any]] = {}
    for run in store.runs():
        newest.setdefault(
            run.stage,
            {
                "run": run.id,
                "status": run.status,
                "counts": dict(run.counts),
                "started": run.started_at.isoformat(),
            },
        )
    return {
        "workspace": str(store.path),
        "counts": dict(store.counts()),
        "models": [{"spec": model.spec, "classes": len(model.classes)} for model in store.models()],
        "selections": [
            {"name": selection.name, "arm": selection.arm, "images": len(selection.hits)}
            for selection in store.selections()
        ],
        "loops": loops(store),
        "near_duplicates": store.near_threshold,
        "stages": newest,
    }
