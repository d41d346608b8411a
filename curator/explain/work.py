"""What a worker of `explain` does: cut images into segments, attribute their outcomes, find regions.

In: `ExplainItem`s, one image each with all its chosen outcomes, which share masks and forward passes. Out:
`ExplainedImage`s. Whatever changes results is in the keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curator.detect.base import Detector
from curator.detect.load import load_same
from curator.errors import StageError
from curator.explain.base import AttributionMethod, AttributionOptions, Fill, Target, TargetKind
from curator.explain.batches import fitting_batch, free_bytes, saved_bytes
from curator.explain.fills.fill import INPAINT, make_fill
from curator.explain.fills.inpainting import load_inpainter
from curator.explain.precision import faithful
from curator.explain.regions import RegionDraft, find_regions
from curator.explain.segments import VERSION as SEGMENTS_VERSION
from curator.explain.segments import slic_segments
from curator.explain.settings import ExplainConfig
from curator.explain.target import refuse_impossible, target_kind
from curator.precision import fast_bf16
from curator.registry import ATTRIBUTIONS, Spec
from curator.represent.pixel_maps import segment_values
from curator.tensors import image_tensor, resolve_device
from store.images import read_pixels
from store.keys import content_key
from store.records import (
    LOG_ODDS,
    GridMap,
    ImageRecord,
    Outcome,
    Pin,
    SegmentMap,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

STAGE = "explain"
STAGE_VERSION = 2  # 2: the precision is resolved before keys are made
COMMITTED = 4  # images per transaction
TRIED = 4  # outcomes of an image whose maps decide about `--precision auto`
MODEL = "model"
"""The setting of a method (`pda`, `vebi`) that names a file or folder."""


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

    @property
    def config_key(self) -> str:
        """Digest of all that changes attributions but what is explained."""
        return content_key(STAGE, self._settings)

    def key(self, item: ExplainItem) -> str:
        """Content key of an image's explanations."""
        return content_key(
            STAGE,
            self._settings,
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
        return content_key("attribution", self._settings, item.image.sha256, item.pin.to_json(), outcome.key)

    @cached_property
    def _settings(self) -> tuple[object, ...]:
        """What enters every key; files that settings name are read once."""
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

    def resolved(self, item: ExplainItem) -> ExplainWork:
        """This work with its precision decided: "auto" is bf16 where the device is fast in it and the item's
        maps are those of fp32.

        Every run decides by the same item, and by no stopwatch: the answer is part of the keys.
        """
        config, item = self.config, replace(item, outcomes=item.outcomes[:TRIED])
        fast = fast_bf16(resolve_device(config.device))
        if config.precision != "auto":
            return self
        exact = replace(self, config=replace(config, precision="fp32"))
        if not fast:
            return exact
        quick = replace(self, config=replace(config, precision="bf16"))
        try:
            maps = [work.process(work.setup(config.device), [item])[0] for work in (exact, quick)]
        except StageError:
            return exact
        slow, rapid = maps
        if isinstance(slow, Exception) or isinstance(rapid, Exception):
            return exact
        return quick if faithful(slow.maps, rapid.maps) else exact

    def setup(self, device: str) -> ExplainState:
        """Load the detector and the fill, and try the method's settings.

        Raises:
            InputError: the detector is no longer the one whose failures are stored.
            RegistryError, ConfigError: unknown method, or a fill or detector that does not fit it.
        """
        c = self.config
        method = build_method(replace(c, batch_size=c.batch_size or 1))
        detector = load_same(self.spec, self.fingerprint, device)
        refuse_impossible(method, detector, c.target)
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
    """What of `NAME?setting=value` changes results: a file or folder that is named counts by its content, a
    method whose numbers have changed since its first version by its version.

    Raises:
        RegistryError: an unknown name.
    """
    spec = Spec.of_method(text)
    version = getattr(ATTRIBUTIONS.load(spec.name), "version", 1)
    name = spec.name if version == 1 else f"{spec.name} {version}"
    settings = sorted(spec.options.items())
    return (name, *((key, _content(value) if key == MODEL else value) for key, value in settings))


def _content(value: str) -> str:
    path = Path(value)
    if not value:
        return value
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
            precision="bf16" if config.precision == "bf16" else "fp32",  # `resolved` has decided about "auto"
            settings=spec.options,
        )
    )
    return method
