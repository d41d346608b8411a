"""Evaluate explanations: which method to trust for this detector and this data.

In: an `EvaluateConfig` and the current diagnosis. Out: failures and successes drawn by seed, their reference
(antithetic permutation Shapley, once per image), every method's measures beside its cost: a table, JSON with
every target's numbers, and a plot. Nothing but the run itself is recorded in the workspace.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.diagnose.run_current import read_current
from curator.errors import InputError, StageError
from curator.explain.base import (
    EVIDENCE_FLOOR,
    AttributionMethod,
    AttributionOptions,
    Fill,
    Target,
    TargetKind,
)
from curator.explain.evaluation_output import check_outputs, summarise, write_outputs
from curator.explain.fills.fill import make_fill
from curator.explain.game import coalition_game
from curator.explain.measures.fidelity import (
    Reference,
    corrected,
    pearson,
    relative_error,
    shapley_reference,
)
from curator.explain.measures.localisation import box_mask, energy_inside, points_at_box
from curator.explain.measures.perturbation import deletion_insertion, hider
from curator.explain.segments import keyed_draws, slic_segments
from curator.explain.settings import EvaluateConfig, ExplainConfig
from curator.explain.target import refuse_impossible, scores_of, target_kind
from curator.explain.work import ExplainWork, build_method
from curator.jobs.stage import StageResult, recorded_run
from curator.precision import resolve_precision
from curator.progress import progress
from curator.represent.pixel_maps import map_pixels, segment_values, strongest_point
from curator.tensors import image_tensor, resolve_device
from store.errors import StoreError
from store.images import read_pixels
from store.keys import content_key
from store.records import GridMap, ImageRecord, Outcome, Pin, SegmentMap

if TYPE_CHECKING:
    from store.store import Store

STAGE = "evaluate-explanations"
KINDS = ("FN", "FP", "TP")


@dataclass(frozen=True, slots=True)
class Contender:
    """A method at a number of samples, ready to run."""

    name: str
    samples: int
    method: AttributionMethod
    fill: Fill


@dataclass(frozen=True, slots=True)
class Judged:
    """One drawn outcome.

    Attributes:
        phi: its reference (M,). reliability: R. evidence: some |phi| is above `EVIDENCE_FLOOR`.
        measures: by (method, samples) the numbers of this target; empty without evidence.
    """

    image: ImageRecord
    outcome: Outcome
    phi: NDArray[np.float64]
    reliability: float
    evidence: bool
    measures: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scene:
    """One image as all methods see it."""

    detector: Detector
    image: Tensor
    pin: Pin
    labels: NDArray[np.uint16]
    key: str


def evaluate_explanations(store: Store, config: EvaluateConfig) -> StageResult:
    """Measure every method of `config` on the same targets.

    Raises:
        InputError: nothing is diagnosed, the detector has changed, or an output cannot be written there.
        ConfigError, RegistryError: a method, setting or fill that is not understood or does not fit.
    """
    current = read_current(store, STAGE, config.detector)
    model, outcomes = current.model, current.outcomes
    config = replace(config, precision=resolve_precision(config.precision, resolve_device(config.device)))
    check_outputs(config)
    chosen = draw_targets(outcomes, config)
    plans = config.contenders()
    work = ExplainWork(
        spec=model.spec,
        fingerprint=model.fingerprint,
        config=_explain_config(config, *plans[0]),
    )
    detector = work.setup(config.device).detector
    contenders = [_contender(config, detector, name, samples) for name, samples in plans]
    judged: list[Judged] = []
    failures: list[tuple[str, str]] = []
    images = _by_image(chosen)
    records = {image.id: image for image in store.images(reader="explain", ids=sorted(images))}
    detections = store.detections(model.id, sorted(images), config_key=current.detections_key)
    pins = {i: found.pin for i, found in detections.items()}
    with recorded_run(store, STAGE, config, models=[model.fingerprint]) as (run_id, counts):
        with progress(STAGE, len(images)) as advance:
            for number, members in images.items():
                image = records[number]
                try:
                    stored = image_tensor(read_pixels(image.uri, image.sha256))
                except (StoreError, OSError) as error:
                    failures.append((image.uri, str(error)))
                else:
                    x = detector.prepare(stored, pins[number])
                    if config.target == "auto":
                        methods = [contender.method for contender in contenders]
                        kind = target_kind("auto", detector, x, pins[number], methods)
                        config = replace(config, target=kind)
                    labels = slic_segments(x, pins[number], config.segments)
                    scene = _Scene(detector, x, pins[number], labels, image.sha256)
                    here = _judge_image(scene, image, members, config, contenders, failures)
                    contenders = _different(contenders, here)
                    judged += here
                advance(1)
        counts.update(done=len({j.image.id for j in judged}), failed=len(failures))
        summary = summarise(config, model, judged)
        write_outputs(config, summary)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts["done"],
        failed=counts["failed"],
        failures=tuple(failures),
        summary=summary,
    )


def draw_targets(outcomes: Sequence[Outcome], config: EvaluateConfig) -> list[Outcome]:
    """Misses, false positives and successes in turn, in an order keyed by the seed.

    An image that was drawn gives up to `config.per_image` outcomes, of the rarer kinds first, since they
    share its reference; no kind takes more than a third in that way.

    Raises:
        InputError: there is no outcome.
    """
    if not outcomes:
        raise InputError(f"{STAGE}: expected outcomes, found none; run curator diagnose on more images")
    order = {outcome.key: content_key(config.seed, outcome.key) for outcome in outcomes}
    waiting = sorted(outcomes, key=lambda o: order[o.key])
    used: Counter[int] = Counter()
    drawn: Counter[str] = Counter()
    chosen: list[Outcome] = []
    share = math.ceil(config.targets / len(KINDS))
    while len(chosen) < config.targets:
        free = [o for o in waiting if used[o.image_id] < config.per_image]
        if not free:
            break
        last = chosen[-1].image_id if chosen else None
        here = [o for o in free if o.image_id == last and drawn[o.kind] < share]
        taken = min(here or free, key=lambda o: (drawn[o.kind], KINDS.index(o.kind), order[o.key]))
        chosen.append(taken)
        waiting.remove(taken)
        used[taken.image_id] += 1
        drawn[taken.kind] += 1
    return chosen


def _by_image(chosen: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    images: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in chosen:
        images[outcome.image_id].append(outcome)
    return dict(images)


def _explain_config(config: EvaluateConfig, method: str, samples: int) -> ExplainConfig:
    return ExplainConfig(
        method=method,
        samples=samples,
        segments=config.segments,
        target=config.target,
        fill=config.fill,
        precision=config.precision,
        batch_size=config.batch_size,
        seed=config.seed,
        device=config.device,
    )


def _contender(config: EvaluateConfig, detector: Detector, name: str, samples: int) -> Contender:
    method = build_method(_explain_config(config, name, samples))
    refuse_impossible(method, detector, config.target)
    return Contender(
        name, samples, method, make_fill(config.fill, detector, method=method.name, takes=method.takes)
    )


def _different(contenders: Sequence[Contender], judged: Sequence[Judged]) -> list[Contender]:
    """Without those that cost what the same method cost with fewer samples: it takes no notice of them."""
    kept: dict[tuple[str, float], Contender] = {}
    unknown = []
    for contender in contenders:
        key = (contender.name, contender.samples)
        passes = {j.measures[key]["passes"] for j in judged if key in j.measures}
        if passes:
            other = kept.setdefault((contender.name, min(passes)), contender)
            if other is not contender:
                for j in judged:
                    j.measures.pop(key, None)
        else:
            unknown.append(contender)
    return [c for c in contenders if c in unknown or c in kept.values()]


def _judge_image(
    scene: _Scene,
    image: ImageRecord,
    outcomes: Sequence[Outcome],
    config: EvaluateConfig,
    contenders: Sequence[Contender],
    failures: list[tuple[str, str]],
) -> list[Judged]:
    """The reference and every contender's measures for the outcomes of one image."""
    kind: TargetKind = "log_odds" if config.target == "log_odds" else "probability"
    targets = [
        Target(candidate=o.target.candidate, label=o.target.label, kind=kind, box=o.box) for o in outcomes
    ]
    reference = _reference(scene, targets, config)
    floor = EVIDENCE_FLOOR[kind]
    judged = [
        Judged(image, outcome, phi, float(reliability), bool(np.abs(phi).max() > floor))
        for outcome, phi, reliability in zip(outcomes, reference.phi, reference.reliability, strict=True)
    ]
    kept = [j for j in judged if j.evidence]
    explained = [target for target, j in zip(targets, judged, strict=True) if j.evidence]
    for contender in contenders if kept else ():
        start = time.perf_counter()
        try:
            maps = contender.method.explain(
                scene.detector,
                scene.image,
                scene.pin,
                scene.labels,
                contender.fill,
                explained,
                seed=config.seed,
                image_key=scene.key,
            )
        except StageError as error:
            failures.append((f"{image.uri} by {contender.name}@{contender.samples}", str(error)))
            continue
        seconds = (time.perf_counter() - start) / len(explained)
        measures = _measure(scene, explained, kept, maps, config, contender.fill)
        for j, found, numbers in zip(kept, maps, measures, strict=True):
            j.measures[contender.name, contender.samples] = {
                "passes": float(found.passes),
                "seconds": seconds,
                **numbers,
            }
    return judged


def _reference(scene: _Scene, targets: Sequence[Target], config: EvaluateConfig) -> Reference:
    """Antithetic permutation Shapley of all targets, by draws that no method shares."""
    fill = make_fill(config.fill, scene.detector, method="the reference", takes=("continuous", "hole"))
    game = coalition_game(
        scores_of(scene.detector, scene.pin, targets),
        scene.detector,
        scene.image,
        scene.labels,
        fill,
        seed=config.seed,
        options=AttributionOptions(batch_size=config.batch_size),
    )
    draws = keyed_draws(scene.labels, config.reference_pairs, "reference", config.seed, scene.key)
    return shapley_reference(game, np.argsort(draws, axis=1, kind="stable"))


def _measure(
    scene: _Scene,
    targets: Sequence[Target],
    judged: Sequence[Judged],
    maps: Sequence[SegmentMap | GridMap],
    config: EvaluateConfig,
    fill: Fill,
) -> list[dict[str, float]]:
    """Every measure of the maps of all targets of an image."""
    size = (scene.labels.shape[0], scene.labels.shape[1])
    hide = hider(fill, scene.image, scene.detector, seed=config.seed)
    shown = [
        replace(target, kind="probability") for target in targets
    ]  # areas in [0, 1], whatever is explained
    scores = scores_of(scene.detector, scene.pin, shown)
    curves = deletion_insertion(scores, hide, maps, scene.labels, batch_size=config.batch_size)
    rows = []
    for j, found, (deletion, insertion) in zip(judged, maps, curves, strict=True):
        phi = segment_values(found, scene.labels)
        x1, y1, x2, y2 = map(float, scene.pin.to_input(np.array(j.outcome.box)))
        box = (x1, y1, x2, y2)
        correlation = pearson(phi, j.phi)
        rows.append(
            {
                "r": correlation,
                "r_corrected": corrected(correlation, j.reliability),
                # a map that claims no completeness is in no unit that could be compared
                "relative_error": math.nan if math.isnan(found.gap) else relative_error(phi, j.phi),
                "deletion": deletion.area,
                "insertion": insertion.area,
                "pointing": float(points_at_box(strongest_point(found, scene.labels), box)),
                "energy": energy_inside(map_pixels(found, scene.labels, size), box_mask(box, size)),
            }
        )
    return rows
