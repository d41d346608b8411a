"""Explain: attribute failures, and some successes beside them, to image regions; then group the failures.

In: an `ExplainConfig` and the current diagnosis. Out: per image a segmentation; per outcome an attribution
and its regions; the groups of the whole diagnosis. An item is one image with all its chosen outcomes, which
share masks and forward passes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from curator.config import ExplainConfig
from curator.detect.base import Detector
from curator.errors import InputError
from curator.explain.base import Attribution as AttributionMethod
from curator.explain.base import AttributionOptions, Fill, Target, TargetKind
from curator.explain.batches import fitting_batch, free_bytes, saved_bytes
from curator.explain.faithfulness.maps import segment_values
from curator.explain.fill import INPAINT, make_fill
from curator.explain.inpainting_fill import load_inpainter
from curator.explain.segments import VERSION as SEGMENTS_VERSION
from curator.explain.segments import slic_segments
from curator.explain.target import target_kind
from curator.groups import group_outcomes
from curator.jobs.base import Done, Executor
from curator.pipeline.detections import load_detector
from curator.pipeline.selectors import FailureSelector
from curator.pipeline.stage import StageResult, recorded_run, run_items
from curator.regions import RegionDraft, find_regions
from curator.registry import ATTRIBUTIONS, Spec
from curator.tensors import image_tensor, resolve_device
from store.images import read_pixels
from store.keys import content_key
from store.records import (
    LOG_ODDS,
    Attribution,
    GridMap,
    ImageRecord,
    ModelRecord,
    Outcome,
    Pin,
    Segmentation,
    SegmentMap,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from store.store import Store

STAGE = "explain"
STAGE_VERSION = 1
COMMITTED = 4  # images per transaction
_PINS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ExplainItem:
    """One image with the outcomes to explain on it."""

    image: ImageRecord
    pin: Pin
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """Segments, and per outcome a map and its regions."""

    labels: NDArray[np.uint16]
    maps: tuple[SegmentMap | GridMap, ...]
    regions: tuple[tuple[RegionDraft, ...], ...]


@dataclass(frozen=True, slots=True)
class ExplainState:
    """What explains, loaded once per worker; per input size the method with its batch size, and the unit."""

    detector: Detector
    fill: Fill
    config: ExplainConfig
    methods: dict[tuple[int, ...], AttributionMethod] = field(default_factory=dict)
    kinds: dict[tuple[int, ...], TargetKind] = field(default_factory=dict)

    def method(self, image: Tensor, pin: Pin) -> AttributionMethod:
        """The method for images x (3, h, w) of this size; a batch size of 0 is chosen from free memory."""
        size = tuple(image.shape)
        if size not in self.methods:
            wanted = self.config.batch_size or fitting_batch(
                saved_bytes(self.detector, image, pin), free_bytes(image.device), image.device
            )
            self.methods[size] = build_method(replace(self.config, batch_size=wanted))
        return self.methods[size]

    def kind(self, image: Tensor, pin: Pin) -> TargetKind:
        """Probability or log-odds, for images x (3, h, w) of this size."""
        size = tuple(image.shape)
        if size not in self.kinds:
            method = self.method(image, pin)
            self.kinds[size] = target_kind(self.config.target, self.detector, image, pin, [method])
        return self.kinds[size]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image in the input frame (3, h, w), its segments (h, w)."""

    image: Tensor
    labels: NDArray[np.uint16]


@dataclass
class ExplainWork:
    """Explains images; plain data, so that it can run on another machine (`jobs.base.Work`)."""

    spec: str
    fingerprint: str
    config: ExplainConfig
    fill_key: str = ""  # the fill's name with the inpainter's fingerprint, where it has one
    batch_size: int = COMMITTED

    def key(self, item: ExplainItem) -> str:
        """Content key of an image's explanations."""
        return content_key(
            STAGE,
            self._settings(),
            item.image.sha256,
            item.pin.to_json(),
            [outcome.key for outcome in item.outcomes],
        )

    def segmentation_key(self, item: ExplainItem) -> str:
        """Content key of the image's segments."""
        pin = item.pin
        return content_key(
            "segments",
            SEGMENTS_VERSION,
            item.image.sha256,
            pin.input_size,
            pin.scale,
            pin.offset,
            self.fingerprint,
            self.config.segments,
        )

    def attribution_key(self, item: ExplainItem, outcome: Outcome) -> str:
        """Content key of one outcome's attribution."""
        return content_key(
            "attribution", self._settings(), item.image.sha256, item.pin.to_json(), outcome.key
        )

    def _settings(self) -> tuple[object, ...]:
        c = self.config
        return (
            STAGE_VERSION,
            self.fingerprint,
            method_key(c.method),
            c.samples,
            c.segments,
            c.grid,
            c.target,
            self.fill_key or c.fill,
            c.precision,
            c.seed,
        )

    def setup(self, device: str) -> ExplainState:
        """Load the detector and the fill, and try the method's settings.

        Raises:
            InputError: the detector is no longer the one whose failures are stored.
            RegistryError, ConfigError: unknown method, or a fill that does not fit it.
        """
        c = self.config
        method = build_method(replace(c, batch_size=c.batch_size or 1))
        detector = load_detector(self.spec, device)
        if detector.fingerprint != self.fingerprint:
            raise InputError(
                f"{self.spec}: expected the weights whose failures are stored "
                f"({self.fingerprint[:12]}), got {detector.fingerprint[:12]}; run curator "
                f"detect and curator diagnose again"
            )
        fill = make_fill(c.fill, detector, method=method.name, takes=method.takes)
        return ExplainState(detector, fill, c)

    def process(self, state: ExplainState, batch: Sequence[ExplainItem]) -> list[ExplainedImage | Exception]:
        """Explain images one after the other; an image's own trouble is returned.

        The next image is read and cut into segments while one is explained.
        """
        results: list[ExplainedImage | Exception] = []
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._prepare, state.detector, item) for item in batch]
            for item, prepared in zip(batch, coming, strict=True):
                try:
                    results.append(self._explain(state, item, prepared.result()))
                except Exception as error:
                    results.append(error)
        return results

    def _prepare(self, detector: Detector, item: ExplainItem) -> Prepared:
        stored = image_tensor(read_pixels(item.image.uri, item.image.sha256))
        image = detector.prepare(stored, item.pin)
        return Prepared(image, slic_segments(image, item.pin, self.config.segments))

    def _explain(self, state: ExplainState, item: ExplainItem, prepared: Prepared) -> ExplainedImage:
        image, labels = prepared.image, prepared.labels
        kind = state.kind(image, item.pin)
        targets = [
            Target(candidate=o.target.candidate, label=o.target.label, kind=kind, box=o.box)
            for o in item.outcomes
        ]
        maps = state.method(image, item.pin).explain(
            state.detector,
            image,
            item.pin,
            labels,
            state.fill,
            targets,
            seed=self.config.seed,
            image_key=item.image.sha256,
        )
        regions = tuple(
            tuple(
                find_regions(
                    labels, over_segments(found, labels), item.pin, kind=outcome.kind, box=outcome.box
                )
            )
            for outcome, found in zip(item.outcomes, maps, strict=True)
        )
        return ExplainedImage(labels, tuple(with_unit(found, kind) for found in maps), regions)


def method_key(text: str) -> tuple[object, ...]:
    """What of `NAME?setting=value` changes results: a file or folder that is named counts by its content."""
    spec = Spec.of_method(text)
    return (spec.name, *((name, _content(value)) for name, value in sorted(spec.options.items())))


def _content(value: str) -> str:
    path = Path(value)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        named = [
            (str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files
        ]
        return content_key("folder", named)
    return value


def fill_key(text: str, device: str) -> str:
    """The fill's name; an inpainter's with its fingerprint, so that new weights are a new fill.

    Raises:
        ConfigError, RegistryError, InputError: an inpainter that cannot be loaded.
    """
    spec = Spec.of_method(text)
    if spec.name != INPAINT:
        return text
    return f"{text}#{load_inpainter(spec.options, resolve_device(device)).fingerprint}"


def with_unit(found: SegmentMap | GridMap, kind: TargetKind) -> SegmentMap | GridMap:
    """A map that says that its numbers are log-odds (`extra["log_odds"]`); one of probabilities as it is."""
    return replace(found, extra={**found.extra, LOG_ODDS: 1.0}) if kind == "log_odds" else found


def over_segments(found: SegmentMap | GridMap, labels: NDArray[np.uint16]) -> SegmentMap:
    """A map as one value per segment, from which regions are cut; a grid's is summed over each segment."""
    if isinstance(found, SegmentMap):
        return found
    return SegmentMap(
        phi=segment_values(found, labels).astype(np.float32),
        full=found.full,
        empty=found.empty,
        gap=found.gap,
        passes=found.passes,
        evidence=found.evidence,
        extra=found.extra,
    )


def build_method(config: ExplainConfig) -> AttributionMethod:
    """The method that `config.method` names, `NAME?setting=value&...`.

    Raises:
        RegistryError: an unknown name. ConfigError: settings that the method does not take.
    """
    spec = Spec.of_method(config.method)
    method: AttributionMethod = ATTRIBUTIONS.load(spec.name)(
        AttributionOptions(
            samples=config.samples,
            grid=config.grid,
            batch_size=config.batch_size,
            precision=config.precision,
            settings=spec.options,
        )
    )
    return method


def explain(store: Store, config: ExplainConfig, *, executor: Executor | None = None) -> StageResult:
    """Explain the failures `config.failures` names and up to `config.successes` true positives per class.

    Raises:
        InputError: nothing is diagnosed yet, or not with this detector.
        ConfigError: a selector, method or fill that is not understood.
    """
    selector = FailureSelector.parse(config.failures)
    model, outcomes = diagnosed(store, config.detector)
    chosen = [o for o in outcomes if selector.matches(o)] + choose_successes(outcomes, config)
    work = ExplainWork(
        spec=config.detector or model.spec,
        fingerprint=model.fingerprint,
        config=config,
        fill_key=fill_key(config.fill, config.device),
    )
    items = _items(store, model.id, chosen)

    with recorded_run(store, STAGE, config, models=[model.fingerprint]) as (run_id, counts):
        start = time.monotonic()
        explained = 0

        def save(result: Done) -> None:
            nonlocal explained
            _save(store, run_id, work, result.item, result.value)
            explained += len(result.item.outcomes)

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=items,
            save=save,
            image_id=lambda item: item.image.id,
            describe=lambda item: item.image.uri,
            device=config.device,
            executor=executor,
        )
        seconds = time.monotonic() - start
        groups = group_outcomes(outcomes)
        if groups != store.groups():
            store.put_groups(run_id, groups)
        result.summary.update(
            _summary(store, config, chosen),
            groups=len(groups),
            seconds=round(seconds, 3),
            seconds_per_outcome=round(seconds / explained, 4) if explained else None,
        )
    return result


def diagnosed(store: Store, spec: str | None) -> tuple[ModelRecord, list[Outcome]]:
    """The model and outcomes of the current diagnosis.

    Raises:
        InputError: there is none, or none with the detector `spec`.
    """
    outcomes = store.outcomes()
    known = {outcome.model_id for outcome in outcomes}
    for model in store.models():
        if model.id in known and spec in (None, model.spec):
            return model, [outcome for outcome in outcomes if outcome.model_id == model.id]
    named = f" of {spec}" if spec else ""
    raise InputError(f"explain: expected a stored diagnosis{named}, found none; run curator diagnose first")


def choose_successes(outcomes: Sequence[Outcome], config: ExplainConfig) -> list[Outcome]:
    """Up to `config.successes` true positives per class, from as many images as possible, keyed order."""
    order = {o.key: content_key(config.seed, o.key) for o in outcomes if o.kind == "TP"}
    by_class: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted((o for o in outcomes if o.kind == "TP"), key=lambda o: order[o.key]):
        by_class[outcome.category].append(outcome)
    chosen = []
    for _, members in sorted(by_class.items()):
        seen: Counter[int] = Counter()
        turns = []
        for outcome in members:
            turns.append(seen[outcome.image_id])
            seen[outcome.image_id] += 1
        ranked = sorted(zip(turns, members, strict=True), key=lambda pair: (pair[0], order[pair[1].key]))
        chosen += [outcome for _, outcome in ranked[: config.successes]]
    return chosen


def _items(store: Store, model_id: int, outcomes: Sequence[Outcome]) -> list[ExplainItem]:
    by_image: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_image[outcome.image_id].append(outcome)
    ids = sorted(by_image)
    items = []
    for start in range(0, len(ids), _PINS_AT_ONCE):
        part = ids[start : start + _PINS_AT_ONCE]
        images = {image.id: image for image in store.images(reader="explain", ids=part)}
        found = store.detections(model_id, part)
        items += [
            ExplainItem(images[i], found[i].pin, tuple(sorted(by_image[i], key=lambda o: o.key)))
            for i in part
        ]
    return items


def _save(store: Store, run_id: int, work: ExplainWork, item: ExplainItem, value: ExplainedImage) -> None:
    segmentation = store.put_segmentation(
        Segmentation(image_id=item.image.id, labels=value.labels, key=work.segmentation_key(item))
    )
    attributions = [
        Attribution(
            outcome_id=cast(int, outcome.id),
            method=work.config.method,
            map=explained,
            key=work.attribution_key(item, outcome),
            segmentation_id=segmentation if isinstance(explained, SegmentMap) else None,
        )
        for outcome, explained in zip(item.outcomes, value.maps, strict=True)
    ]
    ids = store.put_attributions(run_id, attributions)
    store.put_regions(
        run_id,
        [
            draft.stored(
                attribution_id=number,
                attribution_key=attribution.key,
                outcome_id=attribution.outcome_id,
                image_id=item.image.id,
            )
            for number, attribution, drafts in zip(ids, attributions, value.regions, strict=True)
            for draft in drafts
        ],
    )


def _summary(store: Store, config: ExplainConfig, chosen: Sequence[Outcome]) -> dict[str, Any]:
    """Figures over all chosen outcomes, whichever run explained them."""
    kinds = {outcome.id: outcome.kind for outcome in chosen}
    newest: dict[int, SegmentMap | GridMap] = {}
    ids = sorted(cast(int, i) for i in kinds)
    for attribution in store.attributions(outcome_ids=ids, method=config.method):
        newest.setdefault(attribution.outcome_id, attribution.map)
    gaps = np.array([abs(explained.gap) for explained in newest.values()])
    gaps = gaps[np.isfinite(gaps)]
    return {
        "method": config.method,
        "explained": dict(sorted(Counter(kinds[i] for i in newest).items())),
        "without_evidence": sum(not explained.evidence for explained in newest.values()),
        "gap_median": round(float(np.median(gaps)), 6) if len(gaps) else None,
        "gap_largest": round(float(gaps.max()), 6) if len(gaps) else None,
        "passes": sum(explained.passes for explained in newest.values()),
    }
