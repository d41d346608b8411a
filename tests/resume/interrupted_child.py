"""Run a command of curator and interrupt it (SIGINT, as Ctrl-C does) at a chosen moment.

Usage: python interrupted_child.py WHEN OPTIONS... WHEN is `step:N`, within the N-th optimiser step, or
`holdout:FOLDER`, when a picture under FOLDER is opened after a training has written its weights.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from curator.cli.app import main


def at_step(number: int) -> None:
    """Interrupt when the `number`-th step has changed the weights, before the rest of the training knows."""
    steps = 0

    def after(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGINT)

    register_optimizer_step_post_hook(after)


def at_holdout(folder: str, workspace: Path) -> None:
    """Interrupt once, at the first picture of the holdout that is read after a training."""
    sent: list[str] = []

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or sent or not str(arguments[0]).startswith(folder):
            return
        if list(workspace.glob("training/*/weights.safetensors")):
            sent.append(str(arguments[0]))
            os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(opened)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background start with it ignored
    kind, _, value = sys.argv.pop(1).partition(":")
    if kind == "step":
        at_step(int(value))
    else:
        at_holdout(value, Path(sys.argv[sys.argv.index("--workspace") + 1]))
    main()
