"""Run a `curator` command in a process of its own and SIGKILL it in the middle.

Usage: python removal_child.py WORKSPACE KILL_AT WORD...  An *event* is a statement or a commit of SQL, or a
file that is renamed, removed or synced; the process kills itself in the KILL_AT-th, before its effect. A
removal takes one image a transaction, so that there are several.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

import curator.cli
import curator.pipeline.removing
import store.removal


def main() -> None:
    """Run the command and die in the chosen event."""
    workspace, kill_at, *words = sys.argv[1:]
    count = 0

    def happens(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            happens()
            return original(*args, **kwargs)

        return wrapped

    event.listen(Engine, "before_cursor_execute", happens)
    event.listen(Engine, "commit", happens)
    for owner, name in ((os, "rename"), (Path, "unlink"), (shutil, "rmtree"), (os, "fsync")):
        setattr(owner, name, counted(getattr(owner, name)))
    for module in (store.removal, curator.pipeline.removing):
        module.BATCH = 1  # type: ignore[attr-defined]
    store.removal.FEW = 0
    sys.argv = ["curator", "-q", "-w", workspace, *words]
    curator.cli.main()


if __name__ == "__main__":
    main()
