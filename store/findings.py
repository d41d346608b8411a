"""Models, detections and outcomes (failures and successes).

In: records keyed by content. Out: the same records with ids. Readers see the outcomes of the current
diagnosis, and detections of the configuration that they name or that ran last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, and_, exists, func, insert, select

from store.errors import CorruptionError, NotFoundError
from store.models import DetectionRow, Item, Member, Model, OutcomeItem, OutcomeRow, Run
from store.records import (
    Detections,
    DetectionSet,
    ModelRecord,
    Outcome,
    OutcomeKind,
    Pin,
    TargetRecord,
)
from store.runs import config_key_of, last_id, wanted_runs
from store.session import Database, chunks, put_by_key, table, upsert


def put_model(database: Database, spec: str, fingerprint: str, classes: Sequence[str]) -> int:
    """Store a model by (spec, fingerprint)."""
    with database.writing() as connection:
        found = connection.scalar(
            select(Model.id).where(Model.spec == spec, Model.fingerprint == fingerprint)
        )
        if found is not None:
            return int(found)
        row = {"spec": spec, "fingerprint": fingerprint, "classes": list(classes)}
        return int(connection.execute(insert(table(Model)).returning(table(Model).c.id), row).scalar_one())


def models(database: Database, model_id: int | None = None) -> list[ModelRecord]:
    """Models, newest first.

    Raises:
        NotFoundError: for a `model_id` that is not stored.
    """
    query = select(table(Model)).order_by(Model.id.desc())
    if model_id is not None:
        query = query.where(Model.id == model_id)
    with database.reading() as connection:
        found = [
            ModelRecord(id=row.id, spec=row.spec, fingerprint=row.fingerprint, classes=tuple(row.classes))
            for row in connection.execute(query)
        ]
    if model_id is not None and not found:
        raise NotFoundError(f"no model {model_id} in this workspace; run `curator detect` first")
    return found


# ---------------------------------------------------------------- detections


def put_detections(database: Database, run_id: int, sets: Sequence[DetectionSet]) -> list[int]:
    """Store detection sets by key, under the run's configuration."""
    config_key = config_key_of(database, run_id)
    rows = [
        {
            "image_id": item.image_id,
            "model_id": item.model_id,
            "boxes": item.detections.boxes.astype("<f4").tobytes(),
            "scores": item.detections.scores.astype("<f4").tobytes(),
            "labels": item.detections.labels.astype("<i8").tobytes(),
            "candidates": item.detections.candidates.astype("<i8").tobytes(),
            "pin": item.pin.to_json(),
            "config_key": config_key,
            "key": item.key,
            "run_id": run_id,
        }
        for item in sets
    ]
    with database.writing() as connection:
        return put_by_key(connection, DetectionRow, rows)


def detections(
    database: Database, model_id: int, image_ids: Sequence[int], config_key: str | None
) -> dict[int, DetectionSet]:
    """The detection set of each image by a model's weights: of one configuration, or without `config_key` of
    the one that ran last."""
    order = _newest_run_of_configuration() if config_key is None else DetectionRow.id
    weights = select(Model.fingerprint).where(Model.id == model_id).scalar_subquery()
    alike = select(Model.id).where(Model.fingerprint == weights)
    found: dict[int, DetectionSet] = {}
    with database.reading() as connection:
        for part in chunks(sorted(set(image_ids))):
            place = func.row_number().over(
                partition_by=DetectionRow.image_id, order_by=(order.desc(), DetectionRow.id.desc())
            )
            ranked = select(DetectionRow.id, place.label("place")).where(
                DetectionRow.model_id.in_(alike), DetectionRow.image_id.in_(part)
            )
            if config_key is not None:
                ranked = ranked.where(DetectionRow.config_key == config_key)
            first = ranked.subquery()
            query = select(table(DetectionRow)).join(
                first, and_(first.c.id == DetectionRow.id, first.c.place == 1)
            )
            found.update((row.image_id, _detection_set(row)) for row in connection.execute(query))
    return {image_id: found[image_id] for image_id in image_ids if image_id in found}


def count_labels(
    database: Database, model_id: int, image_ids: Sequence[int], config_key: str
) -> dict[int, int]:
    """Label -> how many detections of the images have it; of each image the set that `detections` gives."""
    weights = select(Model.fingerprint).where(Model.id == model_id).scalar_subquery()
    query = (
        select(DetectionRow.image_id, DetectionRow.labels)
        .where(
            DetectionRow.model_id.in_(select(Model.id).where(Model.fingerprint == weights)),
            DetectionRow.config_key == config_key,
        )
        .order_by(DetectionRow.id)
    )
    total: Counter[int] = Counter()
    for part in chunks(image_ids):
        with database.reading() as connection:
            wanted = set(part)
            first, last = min(wanted), max(wanted)
            dense = last - first < 2 * len(wanted)  # then a range costs a third of a list
            own = DetectionRow.image_id.between(first, last) if dense else DetectionRow.image_id.in_(part)
            rows = connection.execute(query.where(own)).all()
        newest = {row[0]: row[1] for row in rows if row[0] in wanted}
        found = np.unique(np.frombuffer(b"".join(newest.values()), "<i8"), return_counts=True)
        total.update(dict(zip(found[0].tolist(), found[1].tolist(), strict=True)))
    return dict(total)


def _newest_run_of_configuration() -> Any:
    """SQL: the newest run that a detection's configuration was wanted by, 0 for none."""
    wanted = wanted_runs("detect").order_by(None).subquery()
    newest = select(func.max(wanted.c.id)).where(wanted.c.config_key == DetectionRow.config_key)
    return func.coalesce(newest.scalar_subquery(), 0)


def _detection_set(row: Any) -> DetectionSet:
    try:
        values = Detections(
            boxes=_array(row.boxes, "<f4").reshape(-1, 4),
            scores=_array(row.scores, "<f4"),
            labels=_array(row.labels, "<i8"),
            candidates=_array(row.candidates, "<i8"),
        )
    except ValueError as error:
        raise CorruptionError(
            f"detections {row.id} are damaged ({error}); run `curator detect` again"
        ) from error
    return DetectionSet(
        image_id=row.image_id,
        model_id=row.model_id,
        detections=values,
        pin=Pin.from_json(row.pin),
        key=row.key,
        id=row.id,
        run_id=row.run_id,
    )


def _array(data: bytes, dtype: str) -> NDArray[Any]:
    return np.frombuffer(data, dtype=dtype).copy()


# ---------------------------------------------------------------- outcomes


def put_outcomes(
    database: Database, run_id: int, image_id: int, outcomes: Sequence[Outcome], *, item_key: str
) -> list[int]:
    """Store an image's outcomes by key and tie them to the item that made them.

    Raises:
        ValueError: an outcome of another image, or without a key.
    """
    if not item_key:
        raise ValueError("outcomes: expected the item's key, got an empty one")
    rows = []
    for outcome in outcomes:
        if outcome.image_id != image_id:
            raise ValueError(f"outcomes: expected image {image_id}, got image {outcome.image_id}")
        x1, y1, x2, y2 = outcome.box
        rows.append(
            {
                "image_id": image_id,
                "model_id": outcome.model_id,
                "kind": outcome.kind,
                "cause": outcome.cause,
                "category": outcome.category,
                "x1": float(x1),
                "y1": float(y1),
                "x2": float(x2),
                "y2": float(y2),
                "score": float(outcome.score),
                "iou": float(outcome.iou),
                "target_candidate": int(outcome.target.candidate),
                "target_label": int(outcome.target.label),
                "target_rule": outcome.target.rule,
                "target_score": float(outcome.target.score),
                "target_iou": float(outcome.target.iou),
                "annotation_id": outcome.annotation_id,
                "detection_index": None if outcome.detection_index is None else int(outcome.detection_index),
                "key": outcome.key,
                "run_id": run_id,
            }
        )
    with database.writing() as connection:
        ids = put_by_key(connection, OutcomeRow, rows, last=partial(last_id, connection, OutcomeRow))
        links = [{"item_key": item_key, "outcome_id": outcome_id, "run_id": run_id} for outcome_id in ids]
        upsert(connection, OutcomeItem, links, unique=("item_key", "outcome_id"), update=())
    return ids


def current_outcome_ids() -> Select[int]:
    """SQL: ids of the outcomes of the current diagnosis: of the current run's configuration, of each mined
    image the item that was made last (its labels may have changed since)."""
    config_key = wanted_runs("diagnose").with_only_columns(Run.config_key).limit(1).scalar_subquery()
    mined = exists(select(Member.id).where(Member.image_id == Item.image_id, Member.role == "mine"))
    place = func.rank().over(partition_by=Item.image_id, order_by=Item.run_id.desc())
    items = (
        select(Item.key, Item.status, place.label("place"))
        .where(Item.stage == "diagnose", Item.config_key == config_key, mined)
        .subquery()
    )
    newest = and_(items.c.key == OutcomeItem.item_key, items.c.place == 1, items.c.status == "done")
    return select(OutcomeItem.outcome_id).join(items, newest)


def outcomes(
    database: Database,
    *,
    run_id: int | None,
    model_id: int | None,
    kind: OutcomeKind | None,
    cause: str | None,
    category: str | None,
    ids: Sequence[int] | None,
) -> list[Outcome]:
    """Outcomes by image and id; without `run_id` and `ids` those of the current diagnosis."""
    query = select(table(OutcomeRow))
    for column, value in (
        (OutcomeRow.run_id, run_id),
        (OutcomeRow.model_id, model_id),
        (OutcomeRow.kind, kind),
        (OutcomeRow.cause, cause),
        (OutcomeRow.category, category),
    ):
        if value is not None:
            query = query.where(column == value)
    if run_id is None and ids is None:
        query = query.where(OutcomeRow.id.in_(current_outcome_ids()))
    with database.reading() as connection:
        parts = (
            [query]
            if ids is None
            else [query.where(OutcomeRow.id.in_(part)) for part in chunks(sorted(set(ids)))]
        )
        found = [outcome_record(row) for part in parts for row in connection.execute(part)]
    return sorted(found, key=lambda outcome: (outcome.image_id, outcome.id))


def outcome_record(row: Any) -> Outcome:
    """A row of the outcomes as a record."""
    return Outcome(
        image_id=row.image_id,
        model_id=row.model_id,
        kind=row.kind,
        cause=row.cause,
        category=row.category,
        box=(row.x1, row.y1, row.x2, row.y2),
        score=row.score,
        iou=row.iou,
        target=TargetRecord(
            candidate=row.target_candidate,
            label=row.target_label,
            rule=row.target_rule,
            score=row.target_score,
            iou=row.target_iou,
        ),
        annotation_id=row.annotation_id,
        detection_index=row.detection_index,
        key=row.key,
        id=row.id,
    )
