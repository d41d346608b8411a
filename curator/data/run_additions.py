"""What may be trained on, and what an export adds: selected pool images and accepted samples.

In: names of selections and of batches of samples. Out: `Addition`s in a fixed order, each image once, with
its lineage: which failure asked for it, through which query or recipe. `left_out` reads the Store for the
one rule of `curator.data.additions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curator.data.additions import LeftOut, refused_images, refused_samples
from curator.data.settings import ExportConfig
from curator.errors import InputError
from curator.matching import ClassMap
from store.appearance import appearance
from store.errors import CorruptionError, ImageError, NotFoundError
from store.images import read_bytes_as_pixels
from store.records import (
    AnnotationSet,
    BoxTuple,
    DetectionSet,
    Hit,
    ImageRecord,
    Leak,
    ModelRecord,
    NewAnnotation,
    Sample,
)

if TYPE_CHECKING:
    from store.store import Store

_TOGETHER = 64  # samples decoded at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """One added image.

    Attributes:
        name: file stem, unique and the same on every machine.
        image: the pool image, or None; then `sample` is set.
        pre_annotated: `annotations` are a detector's and wait for a human.
    """

    name: str
    image: ImageRecord | None
    sample: Sample | None
    annotations: tuple[NewAnnotation, ...]
    pre_annotated: bool
    lineage: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """All added images.

    Attributes:
        left_out: (image, reason) of what must not be added. without: the same by id, training images too.
        facts: counts for the summary.
    """

    items: tuple[Addition, ...]
    left_out: tuple[tuple[str, str], ...]
    without: LeftOut
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreAnnotator:
    """The model whose detections stand in for labels, and how its classes map to the data set's."""

    model: ModelRecord
    classes: ClassMap


def file_stem(source: str | None, sha256: str) -> str:
    """A file stem, safe on every system and unique by the hash; it does not grow from export to export."""
    stem = (source or "image").replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    stem = re.sub(r"-[0-9a-f]{12}$", "", re.sub(r"[^A-Za-z0-9_.-]+", "_", stem))
    return f"{stem.strip('._-')[:80] or 'image'}-{sha256[:12]}"


def plain(annotations: AnnotationSet) -> tuple[NewAnnotation, ...]:
    """Stored annotations without their ids."""
    return tuple(
        NewAnnotation(
            category=a.category,
            box=a.box,
            crowd=a.crowd,
            difficult=a.difficult,
            polygon=a.polygon,
            attributes=dict(a.attributes),
        )
        for a in annotations.annotations
    )


def left_out(store: Store, selections: Iterable[str], samples: Iterable[str]) -> LeftOut:
    """Find what the rule of `curator.data.additions` leaves out; no label and no holdout pixel is read here.

    Raises:
        NotFoundError: unknown selection.
    """
    batches = {name: store.samples(name=name, accepted=True) for name in samples}
    made_from = {
        image
        for batch in batches.values()
        for sample in batch
        for image in (sample.scene_image_id, sample.exemplar_image_id)
        if image is not None
    }
    sources = store.leaks(sorted(made_from), roles=("holdout",))
    return LeftOut(
        originals=refused_images(store.leaks(store.image_ids(role="train"), roles=("holdout",))),
        selected={
            name: refused_images(store.leaks(list(store.selection(name).image_ids))) for name in selections
        },
        samples={
            name: refused_samples(batch, sources, _pixel_leaks(store, batch))
            for name, batch in batches.items()
        },
    )


def _pixel_leaks(store: Store, batch: Sequence[Sample]) -> list[tuple[Leak, ...]]:
    """Per sample the protected images that its picture nearly equals; one that is damaged fails later."""
    found: list[tuple[Leak, ...]] = [()] * len(batch)
    for start in range(0, len(batch), _TOGETHER):
        pictures, places = [], []
        for place, sample in enumerate(batch[start : start + _TOGETHER], start):
            try:
                pictures.append(appearance(read_bytes_as_pixels(store.blob(sample.blob), where=sample.blob)))
                places.append(place)
            except (ImageError, CorruptionError, NotFoundError):
                continue
        for place, leaks in zip(places, store.picture_leaks(pictures), strict=True):
            found[place] = leaks
    return found


def gather(store: Store, config: ExportConfig, annotator: PreAnnotator | None) -> Additions:
    """Collect the additions that `config` names.

    Args:
        annotator: labels what no human has labelled; None leaves it without boxes.
    Raises:
        NotFoundError: unknown selection.
        InputError: a batch of samples without any accepted sample, or an unknown name.
    """
    without = left_out(store, config.selections, config.samples)
    selected, refused, facts = _selected(store, config, annotator, without)
    samples, refused_too = _samples(store, config, without)
    facts["samples"] = len(samples)
    return Additions(
        items=(*selected, *samples),
        left_out=(*_originals(store, without), *refused, *refused_too),
        without=without,
        facts=facts,
    )


def _originals(store: Store, without: LeftOut) -> list[tuple[str, str]]:
    images = store.images(reader="export", ids=list(without.originals)) if without.originals else []
    return [(image.uri.rsplit("/", 1)[-1], f"leak: {without.originals[image.id]}") for image in images]


def _selected(
    store: Store, config: ExportConfig, annotator: PreAnnotator | None, without: LeftOut
) -> tuple[list[Addition], list[tuple[str, str]], dict[str, Any]]:
    hits: dict[int, list[tuple[str, Hit]]] = {}
    for name in config.selections:
        for hit in store.selection(name).hits:
            hits.setdefault(hit.image_id, []).append((name, hit))
    facts: dict[str, Any] = {
        "selected": 0,
        "pre_annotated": 0,
        "without_detections": 0,
        "already_in_training": 0,
    }
    if not hits:
        return [], [], facts
    parts: dict[int, str] = {}
    training: set[int] = set()
    for membership in store.memberships(list(hits)):
        parts.setdefault(
            membership.image_id, f"{membership.dataset}/{membership.source or membership.image_id}"
        )
        if membership.role == "train":
            training.add(membership.image_id)
    refused = {image: why for images in without.selected.values() for image, why in images.items()}
    named = [(parts[image_id], f"leak: {refused[image_id]}") for image_id in hits if image_id in refused]
    ids = [image_id for image_id in hits if image_id not in refused and image_id not in training]
    facts["already_in_training"] = len(training - set(refused))
    images = {image.id: image for image in store.images(reader="export", ids=ids)} if ids else {}
    labels = store.annotations(ids, reader="export") if ids else {}
    unlabelled = [image_id for image_id in ids if image_id not in labels]
    found = store.detections(annotator.model.id, unlabelled) if annotator and unlabelled else {}
    failures = _failures(store, [hit.outcome_id for entries in hits.values() for _, hit in entries])
    additions = []
    for image_id in ids:
        image, known = images[image_id], labels.get(image_id)
        if known is not None:
            annotations, waiting = plain(known), known.status == "pre-annotation"
        else:
            facts["without_detections"] += image_id not in found
            annotations = _boxes(found.get(image_id), annotator, config.score_threshold)
            waiting = True
        facts["pre_annotated"] += waiting
        lineage: dict[str, Any] = {
            "role": "pool",
            "source": parts[image_id],
            "source_sha256": image.sha256,
            "hits": [
                {
                    "query": name,
                    "rank": hit.rank,
                    "group": hit.group,
                    "score": hit.score,
                    "box": list(hit.box),
                    "failure": failures.get(hit.outcome_id),
                }
                for name, hit in hits[image_id]
            ],
        }
        if waiting:
            lineage["labels_by"] = annotator.model.fingerprint if annotator and known is None else None
        additions.append(
            Addition(
                name=file_stem(parts[image_id], image.sha256),
                image=image,
                sample=None,
                annotations=annotations,
                pre_annotated=waiting,
                lineage=lineage,
            )
        )
    facts["selected"] = len(additions)
    return additions, named, facts


def _boxes(
    found: DetectionSet | None, annotator: PreAnnotator | None, threshold: float
) -> tuple[NewAnnotation, ...]:
    """Detections at or above the threshold, of classes that the data set has."""
    if found is None or annotator is None:
        return ()
    classes = annotator.classes
    d, boxes = found.detections, []
    for box, score, label in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True):
        place = int(classes.of_label[label])
        if score >= threshold and place >= 0:
            corners: BoxTuple = (box[0], box[1], box[2], box[3])
            category = classes.categories[place]
            boxes.append(NewAnnotation(category=category, box=corners, attributes={"score": round(score, 4)}))
    return tuple(boxes)


def _samples(
    store: Store, config: ExportConfig, without: LeftOut
) -> tuple[list[Addition], list[tuple[str, str]]]:
    samples: dict[str, Sample] = {}
    for name in config.samples:
        batch = store.samples(name=name)
        accepted = [sample for sample in batch if sample.accepted]
        if not accepted:
            known = ", ".join(sorted({sample.name for sample in store.samples()})) or "none"
            raise InputError(
                f"samples {name!r}: {len(batch)} stored, none of them accepted; stored batches: {known}"
            )
        for sample in accepted:
            samples.setdefault(sample.blob, sample)
    refused = {blob: why for blobs in without.samples.values() for blob, why in blobs.items()}
    named = [
        (file_stem(f"sample-{sample.recipe}", blob), f"leak: {refused[blob]}")
        for blob, sample in samples.items()
        if blob in refused
    ]
    samples = {blob: sample for blob, sample in samples.items() if blob not in refused}
    if not samples:
        return [], named
    ids = {
        image
        for s in samples.values()
        for image in (s.scene_image_id, s.exemplar_image_id)
        if image is not None
    }
    sources = {
        m.image_id: f"{m.dataset}/{m.source or m.image_id}" for m in reversed(store.memberships(sorted(ids)))
    }
    failures = _failures(store, [sample.outcome_id for sample in samples.values()])
    additions = [
        Addition(
            name=file_stem(f"sample-{sample.recipe}", sample.blob),
            image=None,
            sample=sample,
            annotations=sample.annotations,
            pre_annotated=False,
            lineage={
                "role": "sample",
                "source_sha256": sample.blob,
                "batch": sample.name,
                "recipe": sample.recipe,
                "group": sample.group,
                "scene": sources.get(sample.scene_image_id),
                "exemplar": sources.get(sample.exemplar_image_id or -1),
                "painted": list(sample.painted),
                "seed": sample.seed,
                "failure": failures.get(sample.outcome_id),
                "verdicts": [{"check": v.check, "value": v.value, "bound": v.bound} for v in sample.verdicts],
            },
        )
        for sample in samples.values()
    ]
    return additions, named


def _failures(store: Store, ids: Sequence[int | None]) -> dict[int | None, dict[str, Any]]:
    """Failures by id, as the manifest names them."""
    wanted = sorted({outcome_id for outcome_id in ids if outcome_id is not None})
    outcomes = store.outcomes(ids=wanted) if wanted else []
    sources = (
        {
            m.image_id: f"{m.dataset}/{m.source or m.image_id}"
            for m in reversed(store.memberships(sorted({o.image_id for o in outcomes})))
        }
        if outcomes
        else {}
    )
    return {
        o.id: {
            "kind": o.kind,
            "cause": o.cause,
            "category": o.category,
            "image": sources.get(o.image_id),
            "box": list(o.box),
            "key": o.key,
        }
        for o in outcomes
    }
