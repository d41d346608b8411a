"""Long work that the page starts: commands of their own, one at a time, with progress and an end.

In: a workspace and the words of a command. Out: what is known of it: running, how far, its last lines, how it
ended. A job is the very command line, as a child process: the same keys, locks and exit codes as if a person
had typed it. What it has stored when it is cancelled stays, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from store.errors import ConflictError, NotFoundError

KEPT = 20  # ended jobs that are remembered
LINES = 12
PATIENCE = 20.0  # seconds from the wish to stop until it is made to
_FAR = re.compile(r"^([\w ,:.'-]+?): (\d+)/(\d+)\b")
_WHOLE = re.compile(r"^([\w ,:.'-]+?): (\d+) in [\d.]+ s")
State = Literal["running", "done", "partly", "stopped", "failed"]
_ENDS: dict[int, State] = {0: "done", 3: "partly", 130: "stopped", -signal.SIGINT: "stopped"}


@dataclass
class Job:
    """One command.

    Attributes:
        kind: the command's name. about: what it does, for people. leads: the page that shows what came of it.
        log: file of what it says; answer: of its JSON.
    """

    number: int
    kind: str
    about: str
    leads: str
    words: Sequence[str]
    log: Path
    answer: Path
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    state: State = "running"
    cancelled: bool = False

    def lines(self) -> list[str]:
        """The last lines that it said."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 8000))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-LINES:]

    def told(self) -> dict[str, Any]:
        """What the page shows of it."""
        lines = self.lines()
        return {
            "number": self.number,
            "kind": self.kind,
            "about": self.about,
            "leads": self.leads,
            "command": f"curator {shlex.join(self.words)}",
            "state": self.state,
            "said": _said(self.state, lines),
            "progress": _progress(lines) if self.state == "running" else None,
            "log": lines,
            "seconds": round((self.ended or time.monotonic()) - self.began, 1),
        }


class Jobs:
    """The jobs of a workspace; they end with the server."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._folder = tempfile.TemporaryDirectory(prefix="curator-jobs-")
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def start(self, kind: str, words: Sequence[str], *, about: str, leads: str) -> Job:
        """Start `curator KIND WORDS`.

        Raises:
            ConflictError: another job is running.
        """
        with self._lock:
            running = next((job for job in self._jobs if job.state == "running"), None)
            if running is not None:
                raise ConflictError(f"{running.about} is still running; wait, or cancel it")
            number = self._jobs[-1].number + 1 if self._jobs else 1
            log, answer = (Path(self._folder.name) / f"{number}.{end}" for end in ("log", "json"))
            said = ["-w", str(self._workspace), kind, "--json", *words]
            with log.open("wb") as errors, answer.open("wb") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "curator.cli", *said],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env={name: value for name, value in os.environ.items() if name != "CURATOR_QUIET"},
                    start_new_session=True,
                )
            shown = ["-w", str(self._workspace), kind, *words]
            job = Job(number, kind, about, leads, shown, log, answer, process)
            self._jobs = [*self._jobs, job][-KEPT:]
        threading.Thread(target=self._wait, args=(job,), daemon=True, name=f"job {number}").start()
        return job

    def told(self) -> list[dict[str, Any]]:
        """All that are remembered, the newest first."""
        return [job.told() for job in reversed(self._jobs)]

    def cancel(self, number: int) -> Job:
        """Ask a job to stop; it is killed where it does not within `PATIENCE`.

        Raises:
            NotFoundError: no such job. ConflictError: it has ended already.
        """
        job = next((job for job in self._jobs if job.number == number), None)
        if job is None:
            raise NotFoundError(f"no job {number} here")
        if job.state != "running":
            raise ConflictError(f"{job.about} has ended already")
        job.cancelled = True
        _send(job, signal.SIGINT)
        threading.Thread(target=_insist, args=(job,), daemon=True).start()
        return job

    def close(self) -> None:
        """Stop what runs, and wait until it is gone."""
        for job in self._jobs:
            if job.state == "running":
                job.cancelled = True
                _send(job, signal.SIGINT)
                _insist(job)
        self._folder.cleanup()

    def _wait(self, job: Job) -> None:
        code = job.process.wait()
        job.ended = time.monotonic()
        state = _ENDS.get(code, "failed")
        job.state = "stopped" if job.cancelled and state == "failed" else state


def _send(job: Job, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.process.pid, number)


def _insist(job: Job) -> None:
    try:
        job.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        _send(job, signal.SIGKILL)
        job.process.wait()


def _progress(lines: Sequence[str]) -> dict[str, Any] | None:
    """How far it is, from its newest line that says so."""
    for line in reversed(lines):
        if found := _FAR.match(line):
            return {"what": found[1], "done": int(found[2]), "total": int(found[3])}
        if found := _WHOLE.match(line):
            return {"what": found[1], "done": int(found[2]), "total": int(found[2])}
    return None


def _said(state: State, lines: Sequence[str]) -> str:
    """Its end in one line."""
    if state == "failed":
        told = next((line for line in reversed(lines) if line.startswith("error: ")), "")
        return told.removeprefix("error: ") or (lines[-1] if lines else "it ended without a word")
    words = {
        "running": "",
        "done": "done",
        "partly": "done, but for some items (see its lines)",
        "stopped": "stopped; given again, it goes on where it was",
    }
    return words[state]
