"""`suspects`: which labels of the mined images more likely are wrong than the detector; queries, groups and
samples leave their failures out.

In: stored detections, annotations and outcomes of the mined images; neither pixels nor the index. Out: a list
of `Suspect`s, kept as a blob that the run's facts name, so that a run of the same labels finds it again.

What people say of suspects is a log: each `suspects --confirm|--clear` is a run whose facts hold what was
said then, the newest word on a box counts, and nothing is ever overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.run_forget import STAGE
from curator.diagnose.settings import SuspectsConfig
from curator.diagnose.suspect_evidence import Looked
from curator.diagnose.suspect_list import Suspect, Verdict, left_out, standing, suspects_of
from curator.diagnose.suspect_scale import scale_of, scaled
from curator.diagnose.suspects import FEWEST, judge
from curator.diagnose.work import image_result
from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run
from curator.matching import ClassMap
from curator.progress import progress
from store.keys import content_key
from store.records import AnnotationSet, DetectionSet, ImageRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from store.store import Store

STAGE_VERSION = 2  # 2: keeps what verdicts may raise above the minimum
FORGOTTEN = "forgotten"  # of a verdict that takes back what was said before
VERDICTS = "verdicts"  # scope of the runs that hold what people said
ROOM = 10.0  # times that verdicts may raise the odds before a new listing is needed
WORDS = {True: "confirmed", False: "cleared"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What a query mines.

    Attributes:
        current: without the failures that are left out; the very same object where nothing is.
        failures: those of the asked ones that ask. left_out: one line for people, None where none is.
        warnings: for people.
    """

    current: Current
    failures: list[Outcome]
    left_out: str | None = None
    warnings: tuple[str, ...] = ()


def suspects(store: Store, config: SuspectsConfig, *, executor: Executor | None = None) -> StageResult:
    """Judge the labels, or store what is said of suspects; the driver does it, `executor` is not used.

    Returns:
        with a summary: "suspects" (id, image, uri, box, kind, category, instead, probability, why, failures,
        verdict: confirmed, cleared or None), "suspects_found", "labels", "failures", "minimum", "rates" and
        "bounds" (mistake -> share of the labels), "scale" (by what verdicts multiply the odds), "notes".
    Raises:
        InputError: nothing is diagnosed, no labels, no success, or an id that is no listed suspect.
    """
    current = read_current(store, STAGE)
    if config.confirm or config.clear or config.forget:
        return _said(store, config, current)
    items = _items(store, current)
    key = content_key(
        STAGE,
        STAGE_VERSION,
        config.results(),
        _diagnosis(current),
        [category.name for category in store.categories()],
        [(image.sha256, labels.key, found.key) for image, labels, found in items],
    )
    known = next((run for run in _listings(store) if run.config_key == key), None)
    with recorded_run(
        store,
        STAGE,
        config,
        models=[current.model.fingerprint],
        config_key=key,
        scope=_diagnosis(current),
        facts=None if known is None else known.facts,
    ) as (run_id, counts):
        counts.update(done=int(known is None), skipped=int(known is not None), failed=0)
        if known is None:
            found, facts = _judged(store, config, current, items)
            plain = json.dumps([asdict(own) for own in found]).encode()
            facts["blob"] = store.put_blob(plain)
            store.describe_run(run_id, facts)
        else:
            facts = dict(known.facts)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts["done"],
        skipped=counts["skipped"],
        summary=_summary(store, current, facts),
    )


def without_suspects(
    store: Store, current: Current, failures: Sequence[Outcome], *, keep: bool, stage: str = "query"
) -> Trusted:
    """The asked failures without those that look like label errors, where `curator suspects` was run.

    Args:
        keep: take in what is suspected; what a person confirmed stays out all the same.
        stage: who asks, for the message.
    Raises:
        InputError: none is left of those that were asked for.
    """
    runs = store.runs(stage=STAGE)
    if not runs:
        return Trusted(current=current, failures=list(failures))
    newest = _listing(store, current)
    verdicts = _verdicts(runs)
    listed = _listed(store, current, newest.facts, verdicts).failures if newest else []
    judged = sorted({verdict.image_id for verdict in verdicts})
    labels = store.annotations(judged, reader="diagnose") if judged else {}
    now = {i: [(a.category, a.box) for a in own.annotations] for i, own in labels.items()}
    confirmed, suspected = left_out(current.outcomes, listed, standing(verdicts, now))
    gone = confirmed if keep else confirmed | suspected
    warnings: tuple[str, ...] = ()
    if not keep and newest is None and _listings(store):
        warnings = ("curator suspects judged another diagnosis; run it again to keep label errors out",)
    if not gone:
        return Trusted(current=current, failures=list(failures), warnings=warnings)
    trusted = [outcome for outcome in failures if outcome.id not in gone]
    fewer = len(failures) - len(trusted)
    line = (
        f"{fewer} of {len(failures)} failures look like label errors and were left out; see curator suspects"
    )
    if failures and not trusted:
        option = stage == "query" and not keep
        take = "; --keep-suspects takes in those that nobody confirmed" if option else ""
        raise InputError(f"{stage}: {line}; none is left{take}")
    return Trusted(
        current=replace(current, outcomes=tuple(o for o in current.outcomes if o.id not in gone)),
        failures=trusted,
        left_out=line if fewer else None,
        warnings=warnings,
    )


def listed_suspects(store: Store, current: Current) -> list[dict[str, Any]]:
    """What is listed of this diagnosis, as in the summary of `suspects`; [] where it was not run."""
    newest = _listing(store, current)
    return [] if newest is None else list(_summary(store, current, newest.facts)["suspects"])


def _items(store: Store, current: Current) -> list[tuple[ImageRecord, AnnotationSet, DetectionSet]]:
    """The mined images that people labelled and the diagnosed detector looked at."""
    images = store.images(reader="diagnose", role="mine")
    ids = [image.id for image in images]
    labels = {i: own for i, own in store.annotations(ids, reader="diagnose").items() if own.status == "human"}
    found = store.detections(current.model.id, ids, config_key=current.detections_key)
    return [(i, labels[i.id], found[i.id]) for i in images if i.id in labels and i.id in found]


def _diagnosis(current: Current) -> str:
    """Content key of what was diagnosed, whatever was explained since."""
    return content_key(
        current.model.fingerprint, dict(current.class_map), sorted(o.key for o in current.outcomes)
    )


def _judged(
    store: Store,
    config: SuspectsConfig,
    current: Current,
    items: Sequence[tuple[ImageRecord, AnnotationSet, DetectionSet]],
) -> tuple[list[Suspect], dict[str, Any]]:
    """Suspects, the likeliest first, and the facts of the run."""
    names = tuple(category.name for category in store.categories())
    classes = ClassMap.resolve(current.model.classes, names, dict(current.class_map))
    looked = [
        Looked(
            image_result(labels.annotations, found.detections, classes, labels.classes),
            (image.height, image.width),
            image.sha256,
        )
        for image, labels, found in items
    ]
    with progress("judge labels", len(looked)) as advance:
        judged = judge(looked, len(names), rate=config.rate, seed=config.seed, advance=advance)
    of_image: dict[int, list[Outcome]] = {}
    for outcome in current.outcomes:
        of_image.setdefault(outcome.image_id, []).append(outcome)
    listed = [
        own
        for (image, labels, found), seen, one in zip(items, looked, judged.images, strict=True)
        for own in suspects_of(
            seen,
            one,
            of_image.get(image.id, []),
            np.flatnonzero(classes.within(labels.classes).of_label[found.detections.labels] >= 0).tolist(),
            names,
            minimum=scaled(config.minimum, 1 / ROOM),
            sure=config.minimum,
        )
    ]
    return sorted(listed, key=lambda own: (-own.probability, own.id)), {
        "labels": sum(int((~seen.result.truth.ignored).sum()) for seen in looked),
        "minimum": config.minimum,
        "rates": judged.rates,
        "bounds": judged.bounds,
        "told": config.rate is not None,
        "unlearned": sorted(kind for kind, made in judged.made.items() if made < FEWEST),
    }


def _said(store: Store, config: SuspectsConfig, current: Current) -> StageResult:
    """Store verdicts."""
    newest = _listing(store, current)
    if newest is None:
        raise InputError("suspects: nothing is listed of this diagnosis yet; run first: curator suspects")
    known = {own.id: own for own in _read(store, newest.facts)}
    strange = sorted({*config.confirm, *config.clear, *config.forget} - set(known))
    if strange:
        raise InputError(
            f"suspects: expected ids of listed suspects, got {', '.join(map(str, strange))}; curator "
            "suspects lists them (--minimum P lists more)"
        )
    outcomes = {outcome.id: outcome for outcome in current.outcomes}
    said = [(known[i], True) for i in config.confirm]
    said += [(known[i], False) for i in (*config.clear, *config.forget)]
    verdicts = [
        Verdict(
            image_id=own.image_id,
            box=own.box,
            kind=own.kind,
            category=own.category,
            wrong=wrong,
            probability=own.probability,
            basis=_basis(current, newest.facts),
            failures=tuple(
                (failure.kind, failure.category, failure.box)
                for failure in (outcomes[i] for i in own.failures)
            ),
        )
        for own, wrong in said
    ]
    plain = [asdict(verdict) for verdict in verdicts]
    for taken_back in plain[len(plain) - len(config.forget) :]:
        taken_back[FORGOTTEN] = True
    facts = {"verdicts": plain}
    with recorded_run(store, STAGE, config, scope=VERDICTS, aside=True, facts=facts) as (run_id, counts):
        counts["done"] = len(verdicts)
    return StageResult(
        stage=STAGE, run_id=run_id, done=len(verdicts), summary=_summary(store, current, newest.facts)
    )


def _listings(store: Store) -> list[RunRecord]:
    """Runs that listed suspects, newest first."""
    return [run for run in store.runs(stage=STAGE) if run.status != "failed" and "blob" in run.facts]


def _listing(store: Store, current: Current) -> RunRecord | None:
    """The newest list of this diagnosis; None where there is none."""
    scope = _diagnosis(current)
    return next((run for run in _listings(store) if run.scope == scope), None)


def _read(store: Store, facts: Mapping[str, Any]) -> list[Suspect]:
    return [
        Suspect(**{**own, "box": tuple(own["box"]), "failures": tuple(own["failures"])})
        for own in json.loads(store.blob(facts["blob"]))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A listing after what people said.

    Attributes:
        shown: suspects that reach the minimum, and those of which somebody spoke. factor: by how much
            verdicts multiply the odds. said: the verdicts that tell it, wrong or not.
        failures: ids of failures of the suspects that reach the minimum and that nobody cleared.
    """

    shown: list[Suspect]
    factor: float
    said: list[bool]
    failures: list[int]


def _listed(
    store: Store, current: Current, facts: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> _Listed:
    found = _read(store, facts)
    by_image: dict[int, list[Suspect]] = {}
    for own in found:
        by_image.setdefault(own.image_id, []).append(own)
    basis, said, word = _basis(current, facts), [], {}
    for verdict in verdicts:
        now = next((own for own in by_image.get(verdict.image_id, ()) if verdict.about(own)), None)
        if now is not None:
            word[now.id] = verdict.wrong
            said.append((now.probability, verdict.wrong))
        elif verdict.probability is not None and verdict.basis == basis:  # a label that was mended since
            said.append((verdict.probability, verdict.wrong))
    factor = 1.0 if facts["told"] else scale_of(said)
    every = [replace(own, probability=scaled(own.probability, factor)) for own in found]
    counted = [own for own in every if own.probability >= facts["minimum"] and word.get(own.id) is not False]
    return _Listed(
        shown=[own for own in every if own.probability >= facts["minimum"] or own.id in word],
        factor=factor,
        said=[wrong for _, wrong in said] if factor != 1.0 else [],
        failures=[i for own in counted for i in own.failures],
    )


def _basis(current: Current, facts: Mapping[str, Any]) -> str:
    """What probabilities rest on: the detector and whether the rate was told."""
    return content_key(current.model.fingerprint, facts["told"])


def _verdicts(runs: Sequence[RunRecord]) -> list[Verdict]:
    """What people said last of each box.

    Args:
        runs: of this stage, newest first.
    """
    found: list[tuple[Verdict, bool]] = []
    for run in runs:
        for plain in run.facts.get("verdicts", ()) if run.status != "failed" else ():
            failures = tuple((kind, category, tuple(box)) for kind, category, box in plain["failures"])
            said = {name: value for name, value in plain.items() if name != FORGOTTEN}
            own = Verdict(**{**said, "box": tuple(plain["box"]), "failures": failures})
            if not any(newer.about(own) for newer, _ in found if newer.image_id == own.image_id):
                found.append((own, plain.get(FORGOTTEN, False)))
    return [own for own, forgotten in found if not forgotten]


def _summary(store: Store, current: Current, facts: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = _verdicts(store.runs(stage=STAGE))
    found = _listed(store, current, facts, verdicts)
    ids = sorted({own.image_id for own in found.shown})
    uris = {image.id: image.uri for image in store.images(reader="diagnose", ids=ids)} if ids else {}

    def verdict(own: Suspect) -> str | None:
        return next((WORDS[said.wrong] for said in verdicts if said.about(own)), None)

    whole = sum(facts["rates"].values())
    grown = found.factor / (1 + (found.factor - 1) * whole)
    rates = {kind: rate * grown for kind, rate in facts["rates"].items()}
    notes = [f"not judged, too few labels to learn from: {', '.join(facts['unlearned'])}"]
    notes = notes if facts["unlearned"] else []
    if not facts["told"]:
        notes.append(
            f"about {sum(rates.values()):.1%} of the labels "
            + (
                f"are wrong, as {len(found.said)} verdicts tell ({sum(found.said)} confirmed); that is taken"
                if found.said
                else "at most are wrong, as far as these data tell; that is taken; twenty verdicts "
                "(--confirm, --clear) tell more"
            )
            + "; if you know better: --rate SHARE"
        )
    return {
        "suspects": [
            {
                **{("image" if name == "image_id" else name): value for name, value in asdict(own).items()},
                "box": list(own.box),
                "failures": list(own.failures),
                "uri": uris.get(own.image_id, ""),
                "verdict": verdict(own),
            }
            for own in found.shown
        ],
        "suspects_found": sum(own.probability >= facts["minimum"] for own in found.shown),
        "labels": facts["labels"],
        "failures": sum(o.kind != "TP" for o in current.outcomes),
        "minimum": facts["minimum"],
        "rates": rates,
        "scale": found.factor,
        "bounds": dict(facts["bounds"]),
        "notes": notes,
    }
