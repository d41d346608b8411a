"""Synthesise: paint the conditions of failures into labelled scenes, and let a gate judge each result.

In: failures with their culprits, and scenes from the training set and a selection. Out: `Sample`s (PNG blobs)
with verdicts. Plans are numbered and depend on the seed and their number alone; they are worked off in order
until `budget` samples are accepted or `attempts * budget` plans are spent. A plan that finds no fitting place
in its scene is recorded as done without a sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from curator.config import require
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.synthesize.run_batch import Batch
from curator.synthesize.run_gate import calibrated
from curator.synthesize.run_prepared import prepared
from curator.synthesize.run_retrieve import retrieve_first
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import STAGE, Failure, context_of
from store.records import PERSON, Sample

if TYPE_CHECKING:
    from store.store import Store


def synthesize(store: Store, config: SynthesizeConfig, *, executor: Executor | None = None) -> StageResult:
    """Paint samples until `config.budget` are accepted.

    Returns:
        with the summary {"name", "inpainter", "strength", "gate", "context", "budget", "accepted",
        "rejected", "unplaced", "plans", "per_group", "per_recipe", "reasons", "without_explanation",
        "notes"}.

    Raises:
        InputError: no failure matches, no labelled scene, `builtin:` for any but the example's detector, or
            what `train_inpainter` refuses.
    """
    require(config.budget >= 1 and config.attempts >= 1, "budget, attempts: expected at least 1 each")
    ready = prepared(store, config, train=True)
    key, items = ready.work.config_key, ready.items
    gate, blob = calibrated(store, config, ready)
    work = replace(ready.work, gate=store.blob(blob))
    spec, strength = work.inpainter, work.strength
    with recorded_run(
        store,
        STAGE,
        config,
        models=ready.fingerprints,
        config_key=key,
        scope=config.name,
        facts={
            "budget": config.budget,
            "plans": len(items),
            "inpainter": spec,
            "strength": strength,
            "gate": gate.facts(),
            "gate_blob": blob,
            "context": context_of(work.context).facts(),
            "context_blob": ready.context_blob,
        },
    ) as (run_id, counts):
        batch = Batch(
            store,
            name=config.name,
            run_id=run_id,
            keys=[work.key(item) for item in items],
            stored=store.samples(config_key=key),
            gate=gate,
        )
        result = StageResult(stage=STAGE, run_id=run_id)
        upto = 0
        while batch.accepted < config.budget and upto < len(items):
            # As many plans as are still wanted, so that the budget is met and hardly overshot.
            start, upto = upto, min(upto + config.budget - batch.accepted, len(items))
            part = run_items(
                store,
                run_id,
                counts,
                stage=STAGE,
                work=work,
                items=items[start:upto],
                save=batch.save,
                image_id=lambda item: cast(int, item.scenes[0].image.id),
                describe=lambda item: f"plan {item.number} ({item.recipe})",
                device=config.device,
                executor=executor,
                in_order=True,  # a near-duplicate is one of those before it, and so many are accepted by then
            )
            batch.consider(upto)
            result = _together(result, part)
        counts.update(done=result.done, skipped=result.skipped, failed=result.failed)
    summary = _summary(config, ready.failures, batch.samples(upto), upto, batch.unplaced, result.failed)
    if batch.unreadable:
        summary["notes"].append(
            f"{len(batch.unreadable)} scenes could not be read and were passed over; the first: "
            f"{min(batch.unreadable)}"
        )
    summary["notes"] += retrieve_first(store, config.selection)
    told = {
        "explained_by": ready.current.explained_by,
        "inpainter": spec,
        "strength": strength,
        "gate": gate.facts(),
        "context": context_of(work.context).facts(),
    }
    if not config.inpainter and spec == "compose:":
        summary["notes"].append(
            "no inpainter named: real pixels were composed and blended; curator train-inpainter makes one of "
            "your images, which harmonises compositions (--inpainter curator:DIR --strength 0.3)"
        )
    return replace(result, summary={**summary, **told})


def _together(one: StageResult, two: StageResult) -> StageResult:
    return replace(
        one,
        done=one.done + two.done,
        skipped=one.skipped + two.skipped,
        failed=one.failed + two.failed,
        failures=one.failures + two.failures,
    )


def _summary(
    config: SynthesizeConfig,
    failures: Sequence[Failure],
    used: Sequence[Sample],
    plans: int,
    unplaced: Counter[str],
    failed: int,
) -> dict[str, Any]:
    accepted = [sample for sample in used if sample.passed]
    reasons = Counter(
        f"{v.check}: {v.reason}"
        for s in used
        for v in s.verdicts
        if v.check != PERSON and not v.accepted
    )
    bare = sum(failure.blamed is None for failure in failures)
    notes = []
    if bare:
        notes.append(
            f"{bare} of {len(failures)} failures have no culprit from `curator explain`; "
            "the recipe culprit leaves them out"
        )
    if len(accepted) < config.budget:
        notes.append(
            f"{len(accepted)} of {config.budget} wanted samples were accepted in {plans} plans; "
            "more --attempts, scenes or failures give more"
        )
    return {
        "name": config.name,
        "budget": config.budget,
        "accepted": len(accepted),
        "rejected": len(used) - len(accepted),
        "unplaced": plans - len(used) - failed,
        "plans": plans,
        "per_group": dict(sorted(Counter(s.group for s in accepted).items())),
        "per_recipe": dict(sorted(Counter(s.recipe for s in accepted).items())),
        "reasons": dict(reasons.most_common()),
        "unplaced_reasons": dict(unplaced.most_common(10)),
        "without_explanation": bare,
        "notes": notes,
    }
