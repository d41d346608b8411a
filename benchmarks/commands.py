"""Commands as a user gives them, for the benchmarks that go by the command line alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CURATOR = [sys.executable, "-m", "curator.cli"]


def shell(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command in a folder to its end; its stdout. One that fails ends the benchmark.

    Args:
        environment: variables besides those of this process.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    print(f"{seconds:7.1f} s  rc {done.returncode}  {' '.join(command)[:150]}", flush=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout
