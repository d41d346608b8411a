"""What the page can start: queries, explanations, samples, exports, trainings, verifications.

Each request becomes the settings of a stage, which refuse what is wrong in one line, and then the command's
own words. Files are written beside the workspace, under a plain name; nothing else of a request reaches a
path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import BaseModel, Field

from curator.config import StageConfig
from curator.data.settings import WRITTEN, ExportConfig
from curator.errors import InputError
from curator.explain.settings import ExplainConfig
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import QueryConfig
from curator.registry import ARMS, ATTRIBUTIONS, FORMATS, RANKERS, RECIPES
from curator.review.desk import Desk
from curator.review.failures import find
from curator.review.jobs import Job, Jobs
from curator.synthesize.settings import SynthesizeConfig
from store.errors import ConflictError

Failures = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^-\s\x00-\x1f][^\x00-\x1f]*$")]
FileName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Names = Annotated[list[Name], Field(max_length=20)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Ask(BaseModel):
    """A query."""

    failures: Failures = ""
    budget: Count = 40
    method: Annotated[str, Field(max_length=80)] = "predictor"
    name: Name


class Explain(BaseModel):
    """One failure by another method; later stages keep the explanations that they use."""

    failure: int
    method: Annotated[str, Field(max_length=200)]


class Paint(BaseModel):
    """A batch of samples."""

    failures: Failures = ""
    budget: Annotated[int, Field(ge=1, le=10_000)] = 10
    selection: Name | None = None
    recipes: Names = Field(default_factory=list)
    name: Name


class Write(BaseModel):
    """An export into a new folder beside the workspace."""

    format: Annotated[str, Field(max_length=40)]
    folder: FileName
    selections: Names = Field(default_factory=list)
    samples: Names = Field(default_factory=list)


class Prove(BaseModel):
    """A verification."""

    arms: Names
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(min_length=1, max_length=20)]
    budget: Count = 100
    steps: Count = 200
    selection: Name = "query"
    samples: Name = "synthesis"
    name: Name = "verify"


class Train(BaseModel):
    """A training; the weights lie beside the workspace."""

    file: FileName
    steps: Count = 200
    selections: Names = Field(default_factory=list)
    samples: Names = Field(default_factory=list)


class Cancel(BaseModel):
    """Stop a job."""

    number: int


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["jobs"])
    store = desk.store
    jobs = Jobs(store.path)
    desk.on_close(jobs.close)

    def start(kind: str, config: StageConfig, about: str, leads: str) -> dict[str, Any]:
        job: Job = jobs.start(kind, config.words(), about=about, leads=leads)
        return {"said": f"{about}: started", "job": job.told()}

    @own.get("/jobs")
    def told() -> dict[str, Any]:
        """The jobs of this server, the newest first."""
        return {"jobs": jobs.told()}

    @own.get("/jobs/choices")
    def choices() -> dict[str, Any]:
        """What can be asked for."""
        diagnosed = {(kind, cause, name) for kind, cause, name, _ in store.outcome_counts() if kind != "TP"}
        return {
            "methods": RANKERS.names(),
            "explanations": ATTRIBUTIONS.names(),
            "recipes": RECIPES.names(),
            "formats": list(WRITTEN),
            "arms": ARMS.names(),
            "selections": [selection.name for selection in store.selections()],
            "samples": sorted({sample.name for sample in store.samples()}),
            "verifications": sorted({trial.verification for trial in store.trials()}),
            "failures": _selectors(diagnosed),
        }

    @own.post("/jobs/query")
    def query(asked: Ask) -> dict[str, Any]:
        """Ask the pool."""
        config = QueryConfig(
            failures=asked.failures, budget=asked.budget, method=asked.method, name=asked.name
        )
        if asked.name in {selection.name for selection in store.selections()}:
            raise ConflictError(f"there is a selection {asked.name!r} already; choose another name")
        about = f"query {asked.name!r} for {asked.failures or 'all failures'}"
        return start("query", config, about, f"/queries?name={quote(asked.name)}")

    @own.post("/jobs/explain")
    def explain(asked: Explain) -> dict[str, Any]:
        """Explain one failure by another method."""
        outcome = find(desk, asked.failure)
        ATTRIBUTIONS.load(asked.method.partition("?")[0])
        current = desk.current()
        made = None if current is None or current.explanation is None else current.explanation.run_id
        run = next((run for run in store.runs(stage="explain") if run.id == made), None)
        known = {f.name for f in dataclasses.fields(ExplainConfig)} - {"device", "batch_size"}
        kept = {k: v for k, v in (run.config if run is not None else {}).items() if k in known}
        kept.update(failures=f"id={outcome.id}", method=asked.method, aside=True, successes=0)
        config = ExplainConfig.from_table(kept, where="explain")
        return start("explain", config, f"{asked.method} of failure {outcome.id}", f"/failures/{outcome.id}")

    @own.post("/jobs/synthesize")
    def synthesize(asked: Paint) -> dict[str, Any]:
        """Make samples."""
        if asked.name in {sample.name for sample in store.samples()}:
            raise ConflictError(f"there is a batch {asked.name!r} already; choose another name")
        config = SynthesizeConfig(
            failures=asked.failures, budget=asked.budget, selection=asked.selection, name=asked.name
        )
        if asked.recipes:
            config = dataclasses.replace(config, recipes=tuple(asked.recipes))
        about = f"{asked.budget} samples {asked.name!r}"
        return start("synthesize", config, about, f"/samples?batch={quote(asked.name)}")

    @own.post("/jobs/export")
    def export(asked: Write) -> dict[str, Any]:
        """Write the augmented training set."""
        out = _beside(store.path, asked.folder)
        if out.exists():
            raise ConflictError(f"{out} is there already; choose another name")
        config = ExportConfig(
            format=asked.format, out=out, selections=tuple(asked.selections), samples=tuple(asked.samples)
        )
        FORMATS.load(asked.format)
        return start("export", config, f"export to {out}", "/")

    @own.post("/jobs/verify")
    def verify(asked: Prove) -> dict[str, Any]:
        """Train every arm and read the holdout."""
        config = VerifyConfig(
            arms=tuple(asked.arms),
            seeds=tuple(asked.seeds),
            budget=asked.budget,
            steps=asked.steps,
            selection=asked.selection,
            samples=asked.samples,
            name=asked.name,
        )
        about = f"verification {asked.name!r}, {len(asked.arms)} arms, {len(asked.seeds)} seeds"
        return start("verify", config, about, "/proof")

    @own.post("/jobs/train")
    def train(asked: Train) -> dict[str, Any]:
        """Train the diagnosed detector on the augmented set."""
        current = desk.current()
        if current is None:
            raise InputError("train: nothing is diagnosed yet; run curator detect and diagnose")
        out = _beside(store.path, asked.file)
        if out.exists():
            raise ConflictError(f"{out} is there already; choose another name")
        config = TrainConfig(
            detector=current.model.spec,
            out=out,
            steps=asked.steps,
            selections=tuple(asked.selections),
            samples=tuple(asked.samples),
        )
        return start("train", config, f"training of {out.name}", "/")

    @own.post("/jobs/cancel")
    def cancel(asked: Cancel) -> dict[str, Any]:
        """Stop a job; what it has stored stays."""
        return {"said": f"{jobs.cancel(asked.number).about}: stopping"}

    return own


def _beside(workspace: Path, name: str) -> Path:
    """A new file or folder next to the workspace."""
    if name.startswith(".") or Path(name).name != name:
        raise InputError(f"expected a plain name, without a path, got {name!r}")
    return workspace.absolute().parent / name


def _selectors(diagnosed: Iterable[tuple[str, str | None, str]]) -> list[str]:
    """Selectors that match something: of a kind, a cause, a class."""
    rows = list(diagnosed)
    kinds = {kind for kind, _, _ in rows}
    causes = {f"{kind}:{cause}" for kind, cause, _ in rows if cause}
    classes = {f"{kind},class={name}" for kind, _, name in rows if not {",", ";"} & set(name)}
    return [*sorted(kinds), *sorted(causes), *sorted(classes)]
