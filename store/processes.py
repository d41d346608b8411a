"""Which process executes a run, and whether it still lives.

In: this process, or a name that was stored. Out: "PID START", where START tells apart two processes that were
given the same number (Linux: its start in clock ticks since boot, from /proc; elsewhere nothing).
"""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """The name of the calling process."""
    return f"{os.getpid()} {_start(os.getpid())}".strip()


def is_gone(process: str | None) -> bool:
    """True where a process of this host has ended; one that was never named counts as ended."""
    number = (process or "").partition(" ")[0]
    if not number.isdecimal():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it lives, and belongs to somebody else
        pass
    return f"{number} {_start(int(number))}".strip() != process


def _start(number: int) -> str:
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return "" if fields[0] in "ZX" else fields[19]
