"""Is a thousand failures explained in one run, in flat memory, although the run is killed on the way?

    python benchmarks/explain_many.py [--quick] [--seed N] [--out FILE.json]

Renders scenes with planted gaps, runs the built-in detector over them and diagnoses, with default thresholds.
Then `curator explain` starts as a process of its own; it is killed (SIGKILL) once 150 failures are stored and
started again. Twenty times a second the benchmark reads the process's VmRSS from /proc and the number of
stored explanations from the database. Memory "at n" is the largest VmRSS seen while the process itself had
stored n to n + 50 failures; "at the end" it is the largest from 50 failures before the last until the process
is gone, its summary included. Linux alone; nothing else running.
--quick: 100 failures, killed at 30, read at 20 with windows of 10.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import machine, versions

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from store.store import Store

PER_SCENE = 0.9  # failures that a scene of the role mine yields at least, measured with room to spare
POLL = 0.05  # s
FLAT = 1.10
MEBIBYTE = 1024  # VmRSS is given in KiB


@dataclass(frozen=True)
class Plan:
    """How many failures, and where memory is read.

    Attributes:
        failures: wanted at least. kill_at: stored failures at which the first process is killed.
        first: failures a process has stored when its memory is first read. window: length of a reading.
    """

    failures: int
    kill_at: int
    first: int
    window: int

    @property
    def scenes(self) -> int:
        """Scenes that yield enough failures."""
        return math.ceil(self.failures / PER_SCENE)


@dataclass(frozen=True)
class Poll:
    """One look: seconds since the start, failures stored by this process, VmRSS in MiB."""

    seconds: float
    stored: int
    rss: float


def prepare(folder: Path, plan: Plan, seed: int) -> tuple[Path, dict[str, int]]:
    """A diagnosed workspace; returns its folder and the number of failures by kind."""
    path = folder / "workspace"
    data = write_dataset(folder / "scenes", sizes={"mine": plan.scenes}, seed=seed)
    with Store.create(path) as store:
        pipeline.add(store, AddConfig(format="coco", path=data["mine"], role="mine"))
        pipeline.detect(store, DetectConfig(detector="builtin:"))
        pipeline.diagnose(store, DiagnoseConfig())
        kinds = [outcome.kind for outcome in store.outcomes()]
    return path, {kind: kinds.count(kind) for kind in ("FN", "FP")}


def ask(workspace: Path, query: str) -> int:
    """One number from the workspace's database, which another process writes."""
    connection = sqlite3.connect(f"file:{workspace / 'curator.db'}?mode=ro", uri=True, timeout=30)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def stored(workspace: Path) -> int:
    """Failures explained so far; successes are not explained here."""
    return ask(workspace, "SELECT COUNT(DISTINCT outcome_id) FROM attributions")


def images_done(workspace: Path) -> int:
    """Images of which all failures are explained."""
    return ask(workspace, "SELECT COUNT(*) FROM items WHERE stage = 'explain' AND status = 'done'")


def rss(pid: int) -> float | None:
    """VmRSS in MiB; None once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) / MEBIBYTE if found else None


def explain(workspace: Path, seed: int, kill_at: int | None) -> tuple[list[Poll], dict[str, Any] | None]:
    """Run `curator explain`, watch it, and kill it once `kill_at` failures are stored.

    Returns:
        what was seen, and the JSON that the command printed; None where it was killed.
    """
    command = [str(Path(sys.executable).with_name("curator")), "-q", "-w", str(workspace), "explain"]
    command += ["--successes", "0", "--device", "cpu", "--seed", str(seed), "--json"]
    before, polls, start = stored(workspace), [], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            size, now = rss(process.pid), stored(workspace)
            if size is not None:
                polls.append(Poll(time.perf_counter() - start, now - before, size))
            if kill_at is not None and now >= kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return polls, None
            time.sleep(POLL)
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        sys.exit(f"curator explain ended with exit code {process.returncode}")
    return polls, json.loads(printed)


def largest(polls: Sequence[Poll], low: int, high: float) -> float | None:
    """Largest VmRSS while low <= stored < high, in MiB."""
    return max((poll.rss for poll in polls if low <= poll.stored < high), default=None)


def row(name: str, polls: Sequence[Poll], plan: Plan, before: int, count: int) -> dict[str, Any]:
    """What one process did: failures, seconds for each, memory on the way.

    Args:
        before, count: failures stored before it started, and by it.
    """
    middle = plan.failures // 2
    working = [poll for poll in polls if poll.stored]
    at = {
        f"rss_at_{number}": largest(polls, number, number + plan.window)
        for number in (plan.first, middle)
        if number + plan.window <= count
    }
    return {
        "process": name,
        "stored_before": before,
        "explained": count,
        "seconds": round(polls[-1].seconds, 2),
        # From the first commit on: without the start of the process and the loading of the detector.
        "seconds_per_failure": seconds_each(working),
        **at,
        "rss_at_end": largest(polls, max(1, count - plan.window), math.inf),
        "rss_largest": max(poll.rss for poll in polls),
        "curve": thinned(polls),
    }


def seconds_each(working: Sequence[Poll]) -> float | None:
    """Seconds per failure between the first and the last commit that was seen; None if they are one."""
    last = next(poll for poll in working if poll.stored == working[-1].stored)
    explained = last.stored - working[0].stored
    return (last.seconds - working[0].seconds) / explained if explained else None


def thinned(polls: Sequence[Poll], most: int = 60) -> list[tuple[int, float]]:
    """(stored, VmRSS) at most so many times, for a plot."""
    step = math.ceil(len(polls) / most)
    return [(poll.stored, round(poll.rss, 1)) for poll in polls[::step]]


def claims(
    plan: Plan, workspace: Path, failures: int, killed_at: int, repeated: int, again: dict[str, Any]
) -> list[dict[str, Any]]:
    """Acceptance line 6 of the issue, from this run.

    Args:
        failures: in the workspace. killed_at: how many were stored then. repeated: images that the second
            process explained although the first had stored them. again: the row of the second process.
    """
    found: list[dict[str, Any]] = []

    def claim(text: str, target: str, value: float, ok: bool) -> None:
        found.append({"claim": text, "target": target, "value": round(value, 3), "ok": bool(ok)})

    explained = stored(workspace)
    claim("failures to explain", f">= {plan.failures}", failures, failures >= plan.failures)
    in_time = plan.kill_at <= killed_at < failures // 2
    claim("stored when the first process was killed", f"{plan.kill_at} to half", killed_at, in_time)
    claim("all failures explained after the kill", f"== {failures}", explained, explained == failures)
    twice = ask(workspace, "SELECT COUNT(*) FROM attributions") - explained + repeated
    claim("nothing explained twice: rows and images too many", "== 0", twice, twice == 0)
    first, end = again.get(f"rss_at_{plan.first}"), again["rss_at_end"]
    ratio = end / first if first else math.nan
    claim(f"RSS at the end over RSS at {plan.first}", f"<= {FLAT:.2f}", ratio, ratio <= FLAT)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100 failures instead of 1,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan = Plan(100, 30, 20, 10) if options.quick else Plan(1000, 150, 100, 50)
    with tempfile.TemporaryDirectory(prefix="explain-many-") as folder:
        workspace, kinds = prepare(Path(folder), plan, options.seed)
        failures = sum(kinds.values())
        print(f"{plan.scenes} scenes, {failures} failures {kinds}", file=sys.stderr, flush=True)
        first, _ = explain(workspace, options.seed, plan.kill_at)
        killed_at, kept = stored(workspace), images_done(workspace)
        print(f"killed with {killed_at} stored", file=sys.stderr, flush=True)
        second, printed = explain(workspace, options.seed, None)
        assert printed is not None
        rows = [
            row("killed", first, plan, 0, killed_at),
            row("resumed", second, plan, killed_at, stored(workspace) - killed_at),
        ]
        acceptance = claims(plan, workspace, failures, killed_at, kept - printed["skipped"], rows[1])
    for found in rows:
        memory = ", ".join(
            f"{name.removeprefix('rss_').replace('_', ' ')} {value:.0f}"
            for name, value in found.items()
            if name.startswith("rss_") and value is not None
        )
        each = found["seconds_per_failure"]
        print(
            f"{found['process']:8s} {found['explained']} explained in {found['seconds']:.1f} s"
            + (f", {each:.3f} s each" if each else "")
            + f"; MiB {memory}"
        )
    for claim in acceptance:
        print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']} ({claim['target']})")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps(
                {
                    "benchmark": "explain_many",
                    "quick": options.quick,
                    "seed": options.seed,
                    "machine": machine(),
                    "versions": versions(),
                    "scenes": plan.scenes,
                    "failures": kinds,
                    "killed_at": killed_at,
                    "rows": rows,
                    "acceptance": acceptance,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
