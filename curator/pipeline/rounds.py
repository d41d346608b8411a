"""`loop`: failures -> fixes -> retrain -> new failures, round by round, until nothing more is gained.

In: a detector, labelled training and mined images, a labelled pool. Out: a detector per round, the chosen
images as the selections NAME-1, NAME-2, ... and NAME (all of them), and the history as facts of the run.
Every round queries what the last detector fails on, and trains the first one anew on the training images and
all that was chosen. Whether a round gained anything is read on the mined images, which no training sees; the
holdout stays for `verify --selection NAME`. Every step is a stage: a killed loop continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.diagnose.current import Current
from curator.diagnose.run import diagnose
from curator.diagnose.run_current import read_current
from curator.diagnose.settings import DiagnoseConfig
from curator.jobs.stage import StageResult, recorded_run
from curator.pipeline.settings import LoopConfig
from curator.progress import say
from curator.prove.run_rounds import (
    COLUMNS,
    STAGE,
    count_failures,
    difference,
    facts_of,
    round_rows,
)
from curator.prove.run_train import train, trains_here
from curator.query.run import query
from curator.query.run_index import index
from curator.query.settings import IndexConfig
from curator.synthesize.run import synthesize
from store.keys import content_key
from store.records import Selection

if TYPE_CHECKING:
    from store.store import Store


def loop_rounds(store: Store, config: LoopConfig) -> StageResult:
    """Mend a detector round by round.

    Returns:
        with the summary {"rounds" (facts of each), "columns", "rows", "detector" (spec of the best one),
        "selection", "stopped" (why), "next"}.
    Raises:
        InputError: nothing is diagnosed, a chosen image is unlabelled, or what a stage says.
    """
    current = _begin(store, config)
    base, images = current.model.spec, store.image_ids(role="mine")
    asked = _asked(config, current)
    suffix = ".safetensors" if trains_here(store, config.train(base, config.out / "round", ())) else ""
    before = count_failures(current.outcomes, images)
    history: list[dict[str, Any]] = [facts_of(0, base, 0, before, None)]
    stopped, best = f"all {config.rounds} rounds are done", 0
    with recorded_run(store, STAGE, config, models=(current.model.fingerprint,), scope=config.name) as (
        run_id,
        counts,
    ):
        facts = {"base": base, "asked": asked_facts(asked), "rounds": history}
        store.describe_run(run_id, facts)
        for number in range(1, config.rounds + 1):
            say(f"loop: round {number} of {config.rounds}")
            chosen = [f"{config.name}-{k}" for k in range(1, number + 1)]
            if not before.missed + before.false:
                stopped = "nothing fails on the mined images"
                break
            if not _left(store, chosen[:-1]):
                stopped = "the pool is used up"
                break
            index(store, IndexConfig(device=config.device))
            query(store, config.query(chosen[-1], tuple(chosen[:-1])))
            samples = chosen if config.samples else []
            if config.samples:
                synthesize(store, config.synthesize(chosen[-1]))
            out = config.out / f"round-{number}{suffix}"
            trained = train(store, config.train(base, out, tuple(chosen), tuple(samples)))
            if trained.failed:
                return replace(trained, stage=STAGE, run_id=run_id)
            spec = str(trained.summary["detector"])
            after = count_failures(_diagnosed(store, asked, spec).outcomes, images)
            change = difference(before, after, _groups(store))
            history.append(facts_of(number, spec, trained.summary["added"], after, change))
            store.describe_run(run_id, facts)
            counts["done"] = number
            if not change.high < 0:
                stopped = f"round {number} gained no more than chance on the mined images"
                break
            before, best = after, number
        _put_union(store, run_id, config, best)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts.get("done", 0),
        summary={
            "rounds": history,
            "columns": list(COLUMNS),
            "rows": [list(row) for row in round_rows(history)],
            "detector": history[best]["detector"],
            "selection": config.name if best else None,
            "stopped": stopped,
            "next": f"curator verify --selection {config.name} --detector '{base}'" if best else None,
        },
    )


def _begin(store: Store, config: LoopConfig) -> Current:
    """The diagnosis that the loop begins with. An earlier run of it left its last detector diagnosed.

    Raises:
        InputError: nothing is diagnosed.
    """
    earlier = store.current_run(STAGE, config.name)
    known = {} if earlier is None else dict(earlier.facts)
    if config.detector in (None, known.get("base")) and known:
        return _diagnosed(store, DiagnoseConfig(**known["asked"], device=config.device), known["base"])
    if config.detector is not None:
        return _diagnosed(store, DiagnoseConfig(device=config.device, **_given(config)), config.detector)
    current = read_current(store, STAGE)
    if config.score_threshold is None and not config.class_map:
        return current
    return _diagnosed(store, _asked(config, current), current.model.spec)


def _given(config: LoopConfig) -> dict[str, Any]:
    given: dict[str, Any] = {"class_map": config.class_map}
    return given if config.score_threshold is None else {**given, "score_threshold": config.score_threshold}


def _asked(config: LoopConfig, current: Current) -> DiagnoseConfig:
    """How every round is diagnosed: as the first detector was, where the settings say nothing else."""
    asked = {
        "score_threshold": current.criteria.score,
        "iou_threshold": current.criteria.iou,
        "class_map": dict(current.class_map),
        **{name: value for name, value in _given(config).items() if value},
    }
    return DiagnoseConfig(**asked, device=config.device)


def _diagnosed(store: Store, asked: DiagnoseConfig, spec: str) -> Current:
    """Make a detector the diagnosed one."""
    detect(store, DetectConfig(detector=spec, device=asked.device))
    diagnose(store, replace(asked, detector=spec))
    return read_current(store, STAGE)


def _left(store: Store, chosen: Sequence[str]) -> set[int]:
    """Pool images that no earlier round chose."""
    return set(store.image_ids(role="pool")) - {i for name in chosen for i in store.selection(name).image_ids}


def _groups(store: Store) -> dict[int, str]:
    """Mined image -> its video, where it has one."""
    members = store.memberships(store.image_ids(role="mine"))
    return {m.image_id: m.group_key for m in members if m.role == "mine" and m.group_key is not None}


def asked_facts(asked: DiagnoseConfig) -> dict[str, Any]:
    """What `_begin` needs to diagnose so again."""
    return {
        "score_threshold": asked.score_threshold,
        "iou_threshold": asked.iou_threshold,
        "class_map": dict(asked.class_map),
    }


def _put_union(store: Store, run_id: int, config: LoopConfig, rounds: int) -> None:
    """All that gainful rounds chose, as one selection."""
    parts = [store.selection(f"{config.name}-{number}") for number in range(1, rounds + 1)]
    if not parts:
        return
    hits = {hit.image_id: hit for part in parts for hit in part.hits}
    ranked = tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits.values(), start=1))
    store.put_selection(
        run_id,
        Selection(
            name=config.name,
            arm=parts[0].arm,
            hits=ranked,
            key=content_key(STAGE, [part.key for part in parts]),
            config={**parts[0].config, "rounds": [part.name for part in parts]},
        ),
    )
