"""Synthesise: paint the conditions of failures into labelled scenes, and let a gate judge each result.

In: failures with their culprits, and scenes from the training set and a selection. Out: `Sample`s (PNG blobs)
with verdicts. Plans are numbered and depend on the seed and their number alone; they are worked off in order
until `budget` samples are accepted or `attempts * budget` plans are spent. A plan that finds no fitting place
in its scene is recorded as done without a sample.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from curator.config import SynthesizeConfig, require
from curator.errors import InputError, StageError
from curator.jobs.base import Done, Executor
from curator.pipeline.detections import load_detector
from curator.pipeline.selectors import FailureSelector
from curator.pipeline.stage import StageResult, recorded_run, run_items
from curator.registry import RECIPES, Spec
from curator.synthesize.backends import build_inpainter
from curator.synthesize.base import Exemplar, Inpainter, Plan, Recipe, Scene
from curator.synthesize.gate import (
    Bounds,
    Found,
    check_changed,
    check_detector,
    check_duplicate,
    check_seam,
    painted_hash,
)
from curator.tensors import image_pixels, image_tensor, resolve_device
from store.images import encode_png, read_bytes_as_pixels, read_pixels
from store.keys import content_key
from store.records import (
    BoxTuple,
    ImageRecord,
    ModelRecord,
    NewAnnotation,
    Outcome,
    Sample,
    SegmentMap,
    Verdict,
)

if TYPE_CHECKING:
    from curator.detect.base import Detector
    from store.store import Store

STAGE = "synthesize"
STAGE_VERSION = 1
SCORE_FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as the worker needs it; `blamed` holds the culprit's mask, one bit per pixel."""

    outcome: Outcome
    group: str
    image: ImageRecord
    blamed: bytes | None
    blamed_key: str


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A scene before it is decoded."""

    image: ImageRecord
    annotations: tuple[NewAnnotation, ...]
    version: str


@dataclass(frozen=True, slots=True)
class SynthesisItem:
    """One numbered plan."""

    number: int
    recipe: str
    failure: Failure
    scene: LabelledImage


@dataclass(frozen=True, slots=True)
class Painted:
    """A sample before the driver has compared it with the others; or the reason why there is none."""

    png: bytes | None = None
    painted: BoxTuple = (0.0, 0.0, 0.0, 0.0)
    annotations: tuple[NewAnnotation, ...] = ()
    seed: int = 0
    verdicts: tuple[Verdict, ...] = ()
    reason: str = ""


@dataclass
class SynthesisWork:
    """Paints plans; plain data (`jobs.base.Work`).

    Attributes:
        class_map: detector class -> data-set class.
    """

    name: str
    detector: str
    inpainter: str
    steps: int
    seed: int
    fingerprints: tuple[str, str]
    batch_size: int
    class_map: dict[str, str]

    def key(self, item: SynthesisItem) -> str:
        """Content key of one plan."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.name,
            item.number,
            item.recipe,
            item.failure.outcome.key,
            item.failure.blamed_key,
            item.failure.image.sha256,
            item.scene.image.sha256,
            item.scene.version,
            self.fingerprints,
            self.seed,
            self.class_map,
        )

    def setup(self, device: str) -> tuple[Detector, Inpainter, torch.device]:
        """Load the detector and the inpainter."""
        return (
            load_detector(self.detector, device),
            load_inpainter(self.inpainter, self.steps, device),
            resolve_device(device),
        )

    def process(
        self, state: tuple[Detector, Inpainter, torch.device], batch: Sequence[SynthesisItem]
    ) -> list[Painted | Exception]:
        """Plan, paint and judge; a plan that does not fit its scene gives a `Painted` without picture."""
        detector, inpainter, device = state
        results: list[Painted | Exception] = [Painted()] * len(batch)
        plans: dict[int, Plan] = {}
        for i, item in enumerate(batch):
            try:
                plans[i] = self._plan(item)
            except StageError as error:
                results[i] = Painted(reason=str(error))
            except Exception as error:  # a bad image must not stop its batch mates
                results[i] = error
        samples = paint(inpainter, plans)
        order = sorted(samples)
        found = detect(detector, [samples[i] for i in order], device, self.class_map)
        bounds = Bounds()
        for i, detections in zip(order, found, strict=True):
            plan, sample, outcome = plans[i], samples[i], batch[i].failure.outcome
            verdicts = (
                check_changed(plan, sample, bounds),
                check_seam(plan, sample, bounds),
                check_detector(plan, sample, detections, outcome.kind, outcome.category, bounds),
            )
            results[i] = Painted(
                png=encode_png(image_pixels(sample)),
                painted=plan.painted,
                annotations=plan.annotations,
                seed=plan.seed,
                verdicts=verdicts,
            )
        return results

    def _plan(self, item: SynthesisItem) -> Plan:
        failure, scene = item.failure, item.scene
        image = image_tensor(read_pixels(failure.image.uri, sha256=failure.image.sha256))
        blamed = None
        if failure.blamed is not None:
            bits = np.unpackbits(np.frombuffer(failure.blamed, np.uint8), count=image[0].numel())
            blamed = torch.from_numpy(bits.reshape(image.shape[1:]).astype(bool))
        exemplar = Exemplar(
            image_id=failure.image.id,
            outcome_id=failure.outcome.id,
            group=failure.group,
            kind=failure.outcome.kind,
            category=failure.outcome.category,
            image=image,
            box=failure.outcome.box,
            blamed=blamed,
        )
        recipe: Recipe = RECIPES.load(item.recipe)()
        pixels = image_tensor(read_pixels(scene.image.uri, sha256=scene.image.sha256))
        seed = int(content_key(self.seed, item.number)[:8], 16)
        return recipe.plan(
            exemplar, Scene(image_id=scene.image.id, image=pixels, annotations=scene.annotations), seed=seed
        )


def paint(inpainter: Inpainter, plans: dict[int, Plan]) -> dict[int, torch.Tensor]:
    """Sample (3, H, W), in 8-bit steps, for every plan; plans of one image size are painted together."""
    samples = {i: plan.rendered for i, plan in plans.items() if plan.rendered is not None}
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, plan in plans.items():
        if plan.rendered is None:
            by_size[tuple(plan.scene.image.shape)].append(i)
    for members in by_size.values():
        # Exemplars differ in size: the seam takes one tensor, so they are brought to a common square.
        exemplars = torch.stack(
            [
                torch.nn.functional.interpolate(
                    plans[i].exemplar[None], (64, 64), mode="bilinear", antialias=True
                )[0]
                for i in members
            ]
        )
        painted = inpainter.inpaint(
            torch.stack([plans[i].scene.image for i in members]),
            torch.stack([plans[i].mask for i in members]),
            prompts=[plans[i].prompt or "" for i in members],
            exemplars=exemplars,
            seeds=[plans[i].seed for i in members],
        )
        samples.update(zip(members, painted, strict=True))
    return {i: image_tensor(image_pixels(sample)) for i, sample in samples.items()}


def detect(
    detector: Detector, images: Sequence[torch.Tensor], device: torch.device, class_map: dict[str, str]
) -> list[Found]:
    """Detections down to `SCORE_FLOOR` by data-set class name, one list per image."""
    if not images:
        return []
    names = [class_map.get(name, name) for name in detector.classes]
    found = detector.predict([image.to(device) for image in images], score_threshold=SCORE_FLOOR)
    return [
        [
            (names[int(label)], float(score), cast(BoxTuple, tuple(map(float, box))))
            for label, score, box in zip(d.labels, d.scores, d.boxes, strict=True)
        ]
        for d, _ in found
    ]


def load_inpainter(spec: str, steps: int, device: str = "auto") -> Inpainter:
    """Build the inpainter that `spec` names, once per process and state of its files."""
    folder = Path(Spec.parse(spec).name)
    state = (
        tuple(sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*.safetensors")))
        if Spec.parse(spec).name and folder.is_dir()
        else ()
    )
    return _load_inpainter(spec, steps, str(resolve_device(device)), state)


@lru_cache(maxsize=2)
def _load_inpainter(spec: str, steps: int, device: str, state: tuple[Any, ...]) -> Inpainter:
    return build_inpainter(spec, steps=steps, device=device)


def synthesize(store: Store, config: SynthesizeConfig, *, executor: Executor | None = None) -> StageResult:
    """Paint samples until `config.budget` are accepted.

    Returns:
        with the summary {"name", "budget", "accepted", "rejected", "unplaced", "plans", "per_group",
        "per_recipe", "reasons", "without_explanation", "notes"}.

    Raises:
        InputError: no failure matches, or no labelled scene.
    """
    require(config.budget >= 1 and config.attempts >= 1, "budget, attempts: expected at least 1 each")
    model = _model(store, config)
    failures = _failures(store, config, model)
    scenes = _scenes(store, config)
    inpainter = load_inpainter(config.inpainter, config.steps, config.device)
    class_map = _class_map(store, model)
    work = SynthesisWork(
        name=config.name,
        detector=config.detector or model.spec,
        inpainter=config.inpainter,
        steps=config.steps,
        seed=config.seed,
        fingerprints=(model.fingerprint, inpainter.fingerprint),
        batch_size=config.batch_size,
        class_map=class_map,
    )
    items = plan_items(failures, scenes, config)
    keys = [work.key(item) for item in items]
    stored = {sample.key: sample for sample in store.samples(name=config.name)}
    accepted: list[Sample] = []
    hashes: list[Any] = []
    unplaced: Counter[str] = Counter()

    with recorded_run(store, STAGE, config, models=(model.fingerprint, inpainter.fingerprint)) as (
        run_id,
        counts,
    ):
        position = 0

        def reconsider(upto: int) -> None:
            """Count what is stored of the plans before `upto`, in their order."""
            nonlocal position
            for key in keys[position:upto]:
                sample = stored.get(key)
                if sample is not None and sample.accepted:
                    accepted.append(sample)
                    hashes.append(_crop_hash(store, sample))
            position = upto

        def save(done: Done) -> None:
            nonlocal position
            item, value = cast(SynthesisItem, done.item), cast(Painted, done.value)
            reconsider(item.number)
            position = item.number + 1
            if value.png is None:
                unplaced[value.reason] += 1
                return
            pixels = read_bytes_as_pixels(value.png)
            crop_hash = painted_hash(image_tensor(pixels), value.painted)
            verdicts = (*value.verdicts, check_duplicate(crop_hash, hashes, Bounds()))
            sample = Sample(
                name=config.name,
                blob=store.put_blob(value.png),
                width=pixels.shape[1],
                height=pixels.shape[0],
                recipe=item.recipe,
                group=item.failure.group,
                scene_image_id=item.scene.image.id,
                exemplar_image_id=item.failure.image.id,
                outcome_id=item.failure.outcome.id,
                painted=value.painted,
                annotations=value.annotations,
                seed=value.seed,
                key=done.key,
                verdicts=verdicts,
            )
            store.put_sample(run_id, sample)
            stored[done.key] = sample
            if sample.accepted:
                accepted.append(sample)
                hashes.append(crop_hash)

        result = StageResult(stage=STAGE, run_id=run_id)
        upto = 0
        while len(accepted) < config.budget and upto < len(items):
            # As many plans as are still wanted, so that the budget is met and hardly overshot.
            start, upto = upto, min(upto + max(config.budget - len(accepted), 1), len(items))
            part = run_items(
                store,
                run_id,
                counts,
                stage=STAGE,
                work=work,
                items=items[start:upto],
                save=save,
                image_id=lambda item: cast(int, item.scene.image.id),
                describe=lambda item: f"plan {item.number} ({item.recipe})",
                device=config.device,
                executor=executor,
            )
            reconsider(upto)
            result = replace(
                result,
                done=result.done + part.done,
                skipped=result.skipped + part.skipped,
                failed=result.failed + part.failed,
                failures=result.failures + part.failures,
            )
        store.set_current(f"{STAGE}:{config.name}", keys[:upto], run_id=run_id)
        counts.update(done=result.done, skipped=result.skipped, failed=result.failed)
    used = [stored[key] for key in keys[:upto] if key in stored]
    return replace(result, summary=_summary(config, failures, used, upto, unplaced))


def plan_items(
    failures: Sequence[Failure], scenes: Sequence[LabelledImage], config: SynthesizeConfig
) -> list[SynthesisItem]:
    """Numbered plans: groups in turn, within a group the failures in turn, recipes that answer them in turn.

    Raises:
        InputError: no recipe answers any of the failures, or no scene suits.
    """
    recipes: dict[str, Recipe] = {name: RECIPES.load(name)() for name in config.recipes}
    by_group: dict[str, list[Failure]] = defaultdict(list)
    for failure in sorted(failures, key=lambda f: content_key(config.seed, f.outcome.key)):
        by_group[failure.group].append(failure)
    choices: dict[tuple[str, str], tuple[int, ...]] = {}
    queues = []
    for group in sorted(by_group):
        pairs = []
        for name, recipe in recipes.items():
            for failure in by_group[group]:
                outcome = failure.outcome
                if outcome.kind not in recipe.kinds or (recipe.causes and outcome.cause not in recipe.causes):
                    continue
                if (name, outcome.category) not in choices:
                    choices[name, outcome.category] = tuple(
                        i
                        for i, scene in enumerate(scenes)
                        if recipe.suits(outcome.category, scene.annotations)
                    )
                if choices[name, outcome.category]:
                    pairs.append((by_group[group].index(failure), name, failure))
        pairs.sort(key=lambda pair: pair[0])
        if pairs:
            queues.append(cycle([(name, failure) for _, name, failure in pairs]))
    if not queues:
        raise InputError(
            f"synthesize: none of the recipes {', '.join(recipes)} answers these failures in these scenes "
            f"(recipes: {', '.join(RECIPES.names())})"
        )
    items = []
    for number in range(config.budget * config.attempts):
        name, failure = next(queues[number % len(queues)])
        suitable = choices[name, failure.outcome.category]
        rng = np.random.default_rng([config.seed, number])
        items.append(SynthesisItem(number, name, failure, scenes[suitable[int(rng.integers(len(suitable)))]]))
    return items


def _model(store: Store, config: SynthesizeConfig) -> ModelRecord:
    models = store.models()
    if config.detector is not None:
        models = [model for model in models if model.spec == config.detector]
    if not models:
        raise InputError(
            "synthesize: expected a detector that ran in this workspace, got none; run: curator detect"
        )
    return models[0]


def _failures(store: Store, config: SynthesizeConfig, model: ModelRecord) -> list[Failure]:
    selector = FailureSelector.parse(config.failures)
    outcomes = [o for o in store.outcomes(model_id=model.id) if selector.matches(o)]
    if not outcomes:
        raise InputError(
            f"synthesize: no failure matches {config.failures!r}; `curator diagnose` finds and lists them"
        )
    images = {i.id: i for i in store.images(reader="synthesize", ids=sorted({o.image_id for o in outcomes}))}
    groups = {i: group.name for group in store.groups() for i in group.outcome_ids}
    masks = _culprits(store, outcomes, images, model)
    return [
        Failure(
            o,
            groups.get(cast(int, o.id), f"{o.kind}:{o.cause}:{o.category}"),
            images[o.image_id],
            *masks.get(cast(int, o.id), (None, "")),
        )
        for o in outcomes
    ]


def _culprits(
    store: Store, outcomes: Sequence[Outcome], images: dict[int, ImageRecord], model: ModelRecord
) -> dict[int, tuple[bytes, str]]:
    """Per explained outcome the union of its culprit segments in the stored image, packed, and the regions'
    keys."""
    ids = [cast(int, o.id) for o in outcomes]
    newest: dict[int, tuple[int, int]] = {}
    for attribution in store.attributions(outcome_ids=ids):
        if attribution.segmentation_id is not None and isinstance(attribution.map, SegmentMap):
            newest.setdefault(
                attribution.outcome_id, (cast(int, attribution.id), attribution.segmentation_id)
            )
    segments: dict[int, list[int]] = defaultdict(list)
    region_keys: dict[int, list[str]] = defaultdict(list)
    for region in store.regions(outcome_ids=ids):
        chosen = newest.get(region.outcome_id)
        if region.kind == "culprit" and chosen is not None and region.attribution_id == chosen[0]:
            segments[region.outcome_id] += region.segments
            region_keys[region.outcome_id].append(region.key)
    image_of = {cast(int, o.id): o.image_id for o in outcomes}
    pins = {
        i: found.pin
        for i, found in store.detections(model.id, sorted({image_of[i] for i in segments})).items()
    }
    masks: dict[int, tuple[bytes, str]] = {}
    labels_id, labels = -1, np.zeros((1, 1), np.uint16)
    for outcome_id in sorted(segments, key=lambda i: newest[i][1]):
        image, pin = images[image_of[outcome_id]], pins.get(image_of[outcome_id])
        if pin is None:
            continue
        if newest[outcome_id][1] != labels_id:
            labels_id = newest[outcome_id][1]
            labels = store.segmentation(labels_id).labels
        rows = np.clip(
            ((np.arange(image.height) + 0.5) * pin.scale[1] + pin.offset[1]).astype(int),
            0,
            labels.shape[0] - 1,
        )
        columns = np.clip(
            ((np.arange(image.width) + 0.5) * pin.scale[0] + pin.offset[0]).astype(int),
            0,
            labels.shape[1] - 1,
        )
        mask = np.isin(labels, segments[outcome_id])[rows][:, columns]
        masks[outcome_id] = np.packbits(mask).tobytes(), content_key(sorted(region_keys[outcome_id]))
    return masks


def _scenes(store: Store, config: SynthesizeConfig) -> list[LabelledImage]:
    """Human-labelled images of the training set and of the selection."""
    ids = set(store.image_ids(role="train"))
    if config.selection is not None:
        ids |= set(store.selection(config.selection).image_ids)
    scenes = []
    ordered = sorted(ids)
    for start in range(0, len(ordered), 1000):
        part = ordered[start : start + 1000]
        labels = store.annotations(part, reader="synthesize")
        for image in store.images(reader="synthesize", ids=part):
            found = labels.get(image.id)
            if found is not None and found.status == "human":
                scenes.append(
                    LabelledImage(
                        image,
                        tuple(
                            NewAnnotation(
                                category=a.category,
                                box=a.box,
                                crowd=a.crowd,
                                difficult=a.difficult,
                                polygon=a.polygon,
                            )
                            for a in found.annotations
                        ),
                        found.key,
                    )
                )
    if not scenes:
        raise InputError(
            "synthesize: expected labelled images to paint on, got none; add a training set "
            "(curator add coco PATH --role train) or name a --selection with labels"
        )
    return scenes


def _class_map(store: Store, model: ModelRecord) -> dict[str, str]:
    """The class map of the newest diagnosis, which its failures' class names went through."""
    for run in store.runs(stage="diagnose"):
        if model.fingerprint in run.models and run.config.get("class_map"):
            return dict(run.config["class_map"])
    return {}


def _crop_hash(store: Store, sample: Sample) -> Any:
    return painted_hash(image_tensor(read_bytes_as_pixels(store.blob(sample.blob))), sample.painted)


def _summary(
    config: SynthesizeConfig,
    failures: Sequence[Failure],
    used: Sequence[Sample],
    plans: int,
    unplaced: Counter[str],
) -> dict[str, Any]:
    accepted = [sample for sample in used if sample.accepted]
    reasons = Counter(f"{v.check}: {v.reason}" for s in used for v in s.verdicts if not v.accepted)
    bare = sum(failure.blamed is None for failure in failures)
    notes = []
    if bare:
        notes.append(
            f"{bare} of {len(failures)} failures have no culprit from `curator explain`; "
            "their own boxes serve as exemplars"
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
        "unplaced": plans - len(used),
        "plans": plans,
        "per_group": dict(sorted(Counter(s.group for s in accepted).items())),
        "per_recipe": dict(sorted(Counter(s.recipe for s in accepted).items())),
        "reasons": dict(reasons.most_common()),
        "unplaced_reasons": dict(unplaced.most_common(10)),
        "without_explanation": bare,
        "notes": notes,
    }
