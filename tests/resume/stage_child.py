"""Run one stage in a process of its own and SIGKILL it in the middle.

Usage: python stage_child.py WORKSPACE STAGE CONFIG.json KILL_AT. An *event* is a write through the Store or
an optimiser step; the process kills itself in the KILL_AT-th event, before its effect. Also imported by the
test for `counted`, so that parent and child count alike.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curator import pipeline
from curator.config import StageConfig
from curator.jobs.stage import StageResult
from store.store import Store

WRITES = [name for name in dir(Store) if name.startswith(("put_", "record_items", "add_images"))]


@contextmanager
def counted(on_event: Callable[[int], None]) -> Iterator[None]:
    """Call `on_event(n)` before the n-th event (from 1) of the block."""
    import torch

    count = 0
    originals: list[tuple[Any, str, Any]] = [(Store, name, getattr(Store, name)) for name in WRITES]
    originals.append((torch.optim.AdamW, "step", torch.optim.AdamW.step))

    def wrap(original: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            on_event(count)
            return original(*args, **kwargs)

        return wrapped

    for owner, name, original in originals:
        setattr(owner, name, wrap(original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def run_stage(workspace: Path, stage: str, fields: dict[str, Any]) -> StageResult:
    """Open the workspace and run one stage with the configuration's fields."""
    kind: type[StageConfig] = getattr(pipeline, f"{stage.capitalize()}Config")
    with Store.open(workspace) as store:
        result: StageResult = getattr(pipeline, stage)(store, kind.from_table(fields, where=stage))
    return result


def main() -> None:
    """Run the stage and die in the chosen event."""
    workspace, stage, fields, kill_at = sys.argv[1:]

    def die(event: int) -> None:
        if event == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    with counted(die):
        run_stage(Path(workspace), stage, json.loads(Path(fields).read_text()))


if __name__ == "__main__":
    main()
