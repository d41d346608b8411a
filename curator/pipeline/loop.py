"""The whole loop from one TOML file: every stage in order, skipping what is done.

In: a file such as docs/examples/vehicles.toml. Out: one `StageResult` per executed step. Tables bear the
stages' names ([detect], [query], ...; [[add]], [[query]], [[export]] may repeat); keys are the fields of the
stage's configuration. `seed` and `device` at the top are every stage's defaults. In texts, `{here}` stands
for the file's folder and `{workspace}` for the workspace; relative paths count from the file's folder.
"""

from __future__ import annotations

import dataclasses
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator import pipeline
from curator.config import StageConfig, read_toml, require
from curator.errors import ConfigError
from curator.jobs.stage import StageResult

if TYPE_CHECKING:
    from store.store import Store

ORDER = (
    "add",
    "train",
    "detect",
    "diagnose",
    "suspects",
    "explain",
    "index",
    "query",
    "synthesize",
    "export",
    "verify",
    "report",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage with its configuration."""

    stage: str
    config: StageConfig


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What a file asks for: the workspace (None: the command line's) and the steps in order."""

    workspace: Path | None
    steps: tuple[Step, ...]


def read_plan(path: Path, *, workspace: Path | None = None) -> LoopPlan:
    """Read and validate a whole file before anything runs.

    Args:
        workspace: overrides the file's `workspace`.
    Raises:
        ConfigError: unknown table or key, a value outside its range; the message names file and table.
    """
    table = read_toml(path)
    here = path.resolve().parent
    unknown = sorted(set(table) - {*ORDER, "workspace", "seed", "device"})
    require(not unknown, f"{path}: unknown table {', '.join(unknown)}; known: {', '.join(ORDER)}")
    if workspace is None and "workspace" in table:
        require(isinstance(table["workspace"], str), f"{path}: workspace: expected a text")
        workspace = here / str(table["workspace"]).replace("{here}", str(here))
    names = {"here": str(here), "workspace": str(workspace or "")}
    defaults: dict[str, Any] = {key: table[key] for key in ("seed", "device") if key in table}
    steps = []
    for stage in ORDER:
        entries = table.get(stage, [])
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            where = f"{path}: [{stage}]" + (f" number {number + 1}" if isinstance(entries, list) else "")
            require(isinstance(entry, Mapping), f"{where}: expected a table, got {entry!r}")
            steps.append(Step(stage, _config(stage, {**defaults, **entry}, names, here, where)))
    require(bool(steps), f"{path}: no stage; expected at least one of [{'], ['.join(ORDER)}]")
    return LoopPlan(workspace, tuple(steps))


PLACES = (Path, Path | None, str | Path, str | Path | None)
"""Types of settings that are paths, those that may be URIs too: in a file they begin at its folder."""


def _config(
    stage: str, entry: Mapping[str, Any], names: Mapping[str, str], here: Path, where: str
) -> StageConfig:
    kind: type[StageConfig] = getattr(pipeline, f"{stage.capitalize()}Config")
    filled = {key: _fill(value, names) for key, value in entry.items()}
    result = kind.from_table(filled, where=where)
    hints = typing.get_type_hints(kind)
    paths: dict[str, Any] = {
        name: here / value
        for name, value in ((f.name, getattr(result, f.name)) for f in dataclasses.fields(result))
        if isinstance(value, Path) and hints[name] in PLACES
    }
    return dataclasses.replace(result, **paths)


def _fill(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, list):
        return [_fill(item, names) for item in value]
    if isinstance(value, Mapping):
        return {key: _fill(item, names) for key, item in value.items()}
    return value


def run_steps(
    store: Store,
    steps: tuple[Step, ...],
    *,
    announce: Callable[[Step, StageResult, float], None] | None = None,
) -> list[StageResult]:
    """Run steps in order; failed items do not stop the loop, an error does.

    Args:
        announce: called after each step with its result and seconds.
    """
    results = []
    for step in steps:
        start = time.monotonic()
        result: StageResult = getattr(pipeline, step.stage)(store, step.config)
        results.append(result)
        if announce:
            announce(step, result, time.monotonic() - start)
    return results


def run_config(
    path: Path,
    *,
    workspace: Path | None = None,
    announce: Callable[[Step, StageResult, float], None] | None = None,
) -> list[StageResult]:
    """Run every stage of a TOML file; the workspace is made when absent.

    Raises:
        ConfigError: the file is wrong, or names no workspace and none is given.
    """
    from store.store import Store

    plan = read_plan(path, workspace=workspace)
    if plan.workspace is None:
        raise ConfigError(f'{path}: no workspace; write workspace = "FOLDER" at its top or give -w FOLDER')
    exists = (plan.workspace / "workspace.json").exists()
    with Store.open(plan.workspace) if exists else Store.create(plan.workspace) as store:
        return run_steps(store, plan.steps, announce=announce)
