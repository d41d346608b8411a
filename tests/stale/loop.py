"""What the tests of this folder share: tiny settings of every stage, executors, and what later stages read.

Every `read_*` gives rows without database ids, run ids and times, so that two workspaces can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.flowers import CLASSES
from curator.explain.settings import ExplainConfig
from curator.jobs.base import Done, Failed, Work
from curator.jobs.local import LocalExecutor
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from curator.synthesize.settings import SynthesizeConfig
from store.records import Outcome
from store.store import Store

NETWORK = "size=96&channels=8,8,16,16,16"
DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&{NETWORK}"
OTHER_DETECTOR = f"{DETECTOR}&seed=3"
SIZES = {"train": 6, "mine": 6, "pool": 12, "holdout": 4}


def detecting(**more: Any) -> DetectConfig:
    return DetectConfig(**{"detector": DETECTOR, "device": "cpu", "batch_size": 1, **more})


def diagnosing(**more: Any) -> DiagnoseConfig:
    return DiagnoseConfig(**{"score_threshold": 0.4, "device": "cpu", **more})


def explaining(**more: Any) -> ExplainConfig:
    defaults = {"samples": 2, "segments": 30, "successes": 2, "device": "cpu", "failures": "FN"}
    return ExplainConfig(**{**defaults, **more})


def indexing(**more: Any) -> IndexConfig:
    return IndexConfig(
        **{"candidates": 3, "windows": 11, "components": 8, "device": "cpu", "batch_size": 4, **more}
    )


def querying(**more: Any) -> QueryConfig:
    return QueryConfig(**{"budget": 4, "failures": "FN", **more})


def painting(inpainter: Path, **more: Any) -> SynthesizeConfig:
    defaults = {"budget": 3, "attempts": 4, "steps": 1, "batch_size": 1, "device": "cpu", "failures": "FN"}
    return SynthesizeConfig(**{**defaults, "inpainter": f"curator:{inpainter}", **more})


def training(out: Path, **more: Any) -> TrainConfig:
    return TrainConfig(
        **{"detector": DETECTOR, "out": out, "steps": 2, "batch_size": 2, "device": "cpu", **more}
    )


def verifying(**more: Any) -> VerifyConfig:
    defaults = {"arms": ("nothing", "random"), "budget": 2, "steps": 2, "batch_size": 2, "device": "cpu"}
    return VerifyConfig(**{**defaults, **more})


# ---------------------------------------------------------------- executors


@dataclass
class Stopping:
    """Runs some batches, then stops as Ctrl-C would."""

    batches: int

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        for batch in LocalExecutor("cpu").run(work, items):
            if self.batches == 0:
                raise KeyboardInterrupt
            self.batches -= 1
            yield batch


@dataclass
class Shuffling:
    """Finishes everything, then gives the results back one by one in another order."""

    seed: int = 0

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        results = [result for batch in LocalExecutor("cpu").run(work, items) for result in batch]
        order = np.random.default_rng(self.seed).permutation(len(results))[::-1]
        yield from ([results[place]] for place in order)


@dataclass
class Failing:
    """Fails on one image, as a broken file would."""

    image_id: int

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        for batch in LocalExecutor("cpu").run(work, items):
            yield [
                Failed(r.key, r.item, "broken") if r.item.image_id == self.image_id else r for r in batch
            ]


# ---------------------------------------------------------------- what later stages read


def sha256s(store: Store) -> dict[int, str]:
    """Image id -> sha256, of all images."""
    ids = sorted({membership.image_id for membership in store.memberships()})
    return {image.id: image.sha256 for image in store.images(reader="verify", ids=ids)}


def outcome_rows(store: Store) -> dict[int, tuple[Any, ...]]:
    """By id, the rows of the current diagnosis."""
    images = sha256s(store)
    return {o.id or 0: _outcome(o, images) for o in store.outcomes()}


def _outcome(outcome: Outcome, images: dict[int, str]) -> tuple[Any, ...]:
    return (
        images[outcome.image_id],
        outcome.kind,
        outcome.cause or "",
        outcome.category,
        outcome.box,
        outcome.score,
        outcome.target.candidate,
        outcome.key,
    )


def read_outcomes(store: Store) -> list[tuple[Any, ...]]:
    """The current diagnosis, with the detector's spec."""
    specs = {store.model(o.model_id).spec for o in store.outcomes()}
    return [(spec,) for spec in sorted(specs)] + sorted(outcome_rows(store).values())


def read_explanations(store: Store) -> list[tuple[Any, ...]]:
    """Attributions and regions of the current diagnosis."""
    outcomes = outcome_rows(store)
    maps = [
        ("map", *outcomes[a.outcome_id], a.method, a.key, np.asarray(a.map.phi).tobytes())  # type: ignore[union-attr]
        for a in store.attributions()
    ]
    regions = [("region", *outcomes[r.outcome_id], r.kind, r.key, r.box) for r in store.regions()]
    return sorted(maps, key=repr) + sorted(regions, key=repr)


def read_selection(store: Store, name: str = "query") -> list[tuple[Any, ...]]:
    """A selection's hits, best first, after how its queries were asked."""
    images, outcomes = sha256s(store), outcome_rows(store)
    selection = store.selection(name)
    groups = selection.config["groups"]
    asked = [(g["name"], g["failures"], g["kinds"], g["expected"]) for g in groups]
    return [tuple(asked)] + [
        (
            images[hit.image_id],
            hit.group,
            round(hit.score, 5),
            tuple(np.round(hit.box, 3)),
            outcomes[hit.outcome_id][-1] if hit.outcome_id else "",
        )
        for hit in selection.hits
    ]


def read_samples(store: Store, name: str = "synthesis") -> list[tuple[Any, ...]]:
    """The batch of samples, as export, train and verify read it."""
    images, outcomes = sha256s(store), outcome_rows(store)
    return [
        (
            s.blob,
            s.recipe,
            s.group,
            images[s.scene_image_id],
            outcomes[s.outcome_id or 0][-1],
            s.painted,
            s.annotations,
            s.seed,
            s.accepted,
            tuple((v.check, v.accepted, round(v.value, 6)) for v in s.verdicts),
        )
        for s in store.samples(name=name)
    ]


def read_trials(store: Store, name: str = "verify") -> list[tuple[Any, ...]]:
    """The trials of a verification, as the report reads them."""
    timeless = {"train_seconds", "predict_seconds"}
    return sorted(
        (t.arm, t.seed, t.key, repr(sorted((k, v) for k, v in t.metrics.items() if k not in timeless)))
        for t in store.trials(name)
    )
