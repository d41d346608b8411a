"""`loop`: failures -> fixes -> retrain -> new failures, round by round, until nothing more is gained.

In: a detector, labelled training and mined images, a labelled pool. Out: a detector per round, the chosen
images as the selections NAME-1, NAME-2, ... and NAME (all that paid), and the history as facts of the run.
Every round queries what the last detector fails on, and trains the first one anew on the training images and
all that was chosen. Whether a round gained anything is read on the mined images, which no training sees; the
holdout stays for `verify --selection NAME`. At the end the first detector is the diagnosed one again. Every
step is a stage: a loop that was stopped continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curator.detect.run import detect
from curator.diagnose.current import Current
from curator.diagnose.run import diagnose
from curator.diagnose.run_current import read_current
from curator.errors import InputError
from curator.jobs.stage import StageResult, recorded_run
from curator.pipeline.round_parts import (
    asks,
    judged_images,
    left_over,
    proof,
    put_union,
    spare_base,
    videos,
)
from curator.pipeline.round_settings import Asked, LoopConfig, asked_of
from curator.progress import say
from curator.prove.run_rounds import COLUMNS, STAGE, count_failures, difference, facts_of, round_rows
from curator.prove.run_train import train, trains_here
from curator.query.run import query
from curator.query.run_index import index
from curator.query.settings import IndexConfig
from curator.synthesize.painting import choose_inpainter
from curator.synthesize.run import synthesize

if TYPE_CHECKING:
    from store.store import Store


def loop_rounds(store: Store, config: LoopConfig) -> StageResult:
    """Mend a detector round by round.

    Returns:
        with the summary {"rounds" (facts of each), "columns", "rows", "detector" (spec of the best one),
        "selection" (None where no round gained), "stopped" (why), "next", "warnings"}.
    Raises:
        InputError: nothing is diagnosed, a chosen image is unlabelled, or what a stage says.
    """
    current, asked = _begin(store, config)
    base = current.model.spec
    first = config.train(base, config.out / "round", asked.class_map)
    suffix = ".safetensors" if trains_here(store, first) else ""
    spare_base(base, config, suffix)
    if config.samples:
        synthesis = config.synthesize(config.name).with_trained(store.path)
        choose_inpainter(synthesis, current.model.classes)  # refused now or never
    before, judged = count_failures(current.outcomes), judged_images(store, current)
    history = [facts_of(0, base, 0, before, len(judged), None)]
    made: list[str] = []  # detectors, known before they are diagnosed
    facts: dict[str, Any] = {"base": base, "asked": asked.plain(), "rounds": history, "made": made}
    best, failed, warnings = 0, tuple[tuple[str, str], ...](), list[str]()
    stopped = f"all {config.rounds} rounds are done"
    with recorded_run(
        store, STAGE, config, models=(current.model.fingerprint,), scope=config.name, facts=facts
    ) as (run_id, counts):
        samples: list[str] = []
        for number in range(1, config.rounds + 1):
            say(f"loop: round {number} of {config.rounds}")
            chosen = [f"{config.name}-{k}" for k in range(1, number + 1)]
            if not asks(store, config, current):
                stopped = "nothing of what was asked fails on the mined images"
                break
            if not left_over(store, chosen[:-1]):
                stopped = "the pool is used up"
                break
            index(store, IndexConfig(embedder=config.embedder, device=config.device))
            query(store, config.query(chosen[-1], tuple(chosen[:-1])))
            if not store.selection(chosen[-1]).image_ids:
                stopped = "the pool holds nothing more that may be chosen"
                break
            if config.samples:
                accepted = synthesize(store, config.synthesize(chosen[-1])).summary["accepted"]
                samples += chosen[-1:] if accepted else []
                warnings += [] if accepted else [f"round {number}: no sample was accepted"]
            out = config.out / f"round-{number}{suffix}"
            trained = train(store, config.train(base, out, asked.class_map, tuple(chosen), tuple(samples)))
            if trained.failed:
                failed = trained.failures
                counts["failed"] = len(failed)
                stopped = f"the training of round {number} failed"
                break
            spec = str(trained.summary["detector"])
            made.append(spec)
            store.describe_run(run_id, facts)
            current = _diagnosed(store, config, asked, spec)
            looked = judged_images(store, current)
            after = count_failures(current.outcomes)
            change = difference(before, after, judged & looked, videos(store))
            history.append(facts_of(number, spec, trained.summary["added"], after, len(looked), change))
            store.describe_run(run_id, facts)
            counts["done"] = number
            if not change.high < 0:
                stopped = f"round {number} gained no more than chance on the mined images"
                break
            before, judged, best = after, looked, number
            put_union(store, run_id, config, best)
        if not best:
            put_union(store, run_id, config, best)
        _diagnosed(store, config, asked, base)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts.get("done", 0),
        failed=len(failed),
        failures=failed,
        summary={
            "rounds": history,
            "columns": list(COLUMNS),
            "rows": [list(row) for row in round_rows(history)],
            "detector": history[best]["detector"],
            "selection": config.name if best else None,
            "stopped": stopped,
            "next": proof(config, asked, base, len(store.selection(config.name).hits)) if best else None,
            "warnings": warnings,
        },
    )


def _begin(store: Store, config: LoopConfig) -> tuple[Current, Asked]:
    """The diagnosis that the loop begins with, and how every round is diagnosed.

    A loop that was stopped left one of its own detectors diagnosed; it begins where it began. Otherwise the
    diagnosed detector, or the named one, is the first.

    Raises:
        InputError: nothing is diagnosed.
    """
    try:
        current = read_current(store, STAGE)
    except InputError:
        if config.detector is None:
            raise
        asked = config.asked(Asked())
        return _diagnosed(store, config, asked, config.detector), asked
    earlier = next((r for r in store.runs(stage=STAGE) if r.scope == config.name and "made" in r.facts), None)
    base, known = current.model.spec, asked_of(store, current)
    if earlier is not None and base in earlier.facts["made"]:
        base, known = str(earlier.facts["base"]), Asked.from_plain(earlier.facts["asked"])
    asked = config.asked(known)
    return _diagnosed(store, config, asked, config.detector or base), asked


def _diagnosed(store: Store, config: LoopConfig, asked: Asked, spec: str) -> Current:
    """Make a detector the diagnosed one."""
    detect(store, asked.detect(spec, config.device))
    diagnose(store, asked.diagnose(spec, config.device))
    return read_current(store, STAGE)
