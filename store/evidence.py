"""Explanations: segmentations, attributions and regions.

In: arrays. Out: the same arrays, from compact rows: labels as 16-bit PNG, phi as float32, grids as float16
with their affine (DESIGN.md, rule 7). Readers see the attributions of one explain configuration.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Select, func, select

from store.errors import CorruptionError, NotFoundError
from store.findings import current_outcome_ids
from store.models import AttributionRow, RegionRow, SegmentationRow
from store.records import Attribution, AttributionKey, GridMap, Region, Segmentation, SegmentMap
from store.runs import config_key_of, current_run
from store.session import Database, chunks, put_by_key, table


def put_segmentation(database: Database, segmentation: Segmentation, run_id: int | None) -> int:
    """Store a segmentation by key."""
    row = {
        "image_id": segmentation.image_id,
        "png": _encode_labels(segmentation.labels),
        "key": segmentation.key,
        "run_id": run_id,
    }
    with database.writing() as connection:
        return put_by_key(connection, SegmentationRow, [row])[0]


def segmentation(database: Database, segmentation_id: int) -> Segmentation:
    """Read one segmentation.

    Raises:
        NotFoundError: unknown id. CorruptionError: undecodable labels.
    """
    with database.reading() as connection:
        row = connection.execute(
            select(table(SegmentationRow)).where(SegmentationRow.id == segmentation_id)
        ).one_or_none()
    if row is None:
        raise NotFoundError(
            f"no segmentation {segmentation_id} in this workspace; run `curator explain` first"
        )
    return Segmentation(image_id=row.image_id, labels=_decode_labels(row.png, row.id), key=row.key, id=row.id)


def _encode_labels(labels: NDArray[np.uint16]) -> bytes:
    if labels.ndim != 2 or labels.dtype != np.uint16 or 0 in labels.shape:
        raise ValueError(f"segmentation: expected labels (h, w) uint16, got {labels.shape} {labels.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _decode_labels(png: bytes, row_id: int) -> NDArray[np.uint16]:
    try:
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image).astype(np.uint16)
    except (OSError, ValueError, SyntaxError) as error:
        raise CorruptionError(
            f"segmentation {row_id} is damaged ({error}); run `curator explain` again"
        ) from error


# ---------------------------------------------------------------- attributions


def put_attributions(database: Database, run_id: int, attributions: Sequence[Attribution]) -> list[int]:
    """Store attributions by key, under the run's configuration."""
    config_key = config_key_of(database, run_id)
    rows = [
        {
            "outcome_id": item.outcome_id,
            "method": item.method,
            "segmentation_id": item.segmentation_id,
            "config_key": config_key,
            "key": item.key,
            "run_id": run_id,
            **_map_columns(item.map),
        }
        for item in attributions
    ]
    with database.writing() as connection:
        return put_by_key(connection, AttributionRow, rows)


def _map_columns(found: SegmentMap | GridMap) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "full": _or_null(found.full),
        "empty": _or_null(found.empty),
        "gap": _or_null(found.gap),
        "passes": int(found.passes),
        "evidence": bool(found.evidence),
        "extra": {name: _or_null(value) for name, value in found.extra.items()},
    }
    names = ("height", "width", "scale_x", "scale_y", "offset_x", "offset_y")
    if isinstance(found, SegmentMap):
        phi = np.asarray(found.phi, dtype="<f4")
        if phi.ndim != 1:
            raise ValueError(f"attribution: expected phi (M,), got {phi.shape}")
        return {**columns, "map": phi.tobytes(), **dict.fromkeys(names)}
    values = np.asarray(found.values)
    if values.ndim != 2:
        raise ValueError(f"attribution: expected values (h, w), got {values.shape}")
    affine = (*map(float, found.scale), *map(float, found.offset))
    packed = values.clip(-65504, 65504).astype("<f2").tobytes()
    return {**columns, "map": packed, **dict(zip(names, (*values.shape, *affine), strict=True))}


def attributions(
    database: Database, *, outcome_ids: Sequence[int] | None, config_key: str | None
) -> list[Attribution]:
    """Attributions of one configuration by outcome (see `attribution_keys`), with their maps."""
    chosen = attribution_keys(database, outcome_ids=outcome_ids, config_key=config_key)
    rows: dict[int, Any] = {}
    with database.reading() as connection:
        for part in chunks([found.id for found in chosen]):
            query = select(table(AttributionRow)).where(AttributionRow.id.in_(part))
            rows.update((row.id, row) for row in connection.execute(query))
    return [_attribution(rows[found.id]) for found in chosen]


def attribution_keys(
    database: Database, *, outcome_ids: Sequence[int] | None, config_key: str | None
) -> list[AttributionKey]:
    """Which attribution each outcome has, ordered by outcome.

    Args:
        outcome_ids: None means those of the current diagnosis.
        config_key: None means the current explain run's.
    """
    if config_key is None:
        config_key = current_explanation(database)
        if config_key is None:
            return []
    newest = (
        select(func.max(AttributionRow.id))
        .where(AttributionRow.config_key == config_key)
        .group_by(AttributionRow.outcome_id)
    )
    columns = (
        AttributionRow.id,
        AttributionRow.outcome_id,
        AttributionRow.method,
        AttributionRow.key,
        AttributionRow.evidence,
        AttributionRow.segmentation_id,
    )
    parts: list[Select[Any]]
    if outcome_ids is None:
        parts = [newest.where(AttributionRow.outcome_id.in_(current_outcome_ids()))]
    else:
        wanted = sorted(set(outcome_ids))
        parts = [newest.where(AttributionRow.outcome_id.in_(part)) for part in chunks(wanted)]
    with database.reading() as connection:
        rows = [
            row
            for part in parts
            for row in connection.execute(select(*columns).where(AttributionRow.id.in_(part)))
        ]
    found = [
        AttributionKey(
            id=row.id,
            outcome_id=row.outcome_id,
            method=row.method,
            key=row.key,
            evidence=row.evidence,
            segmentation_id=row.segmentation_id,
        )
        for row in rows
    ]
    return sorted(found, key=lambda item: item.outcome_id)


def current_explanation(database: Database) -> str | None:
    """The configuration of the current explain run of the diagnosed model; None where there is none."""
    diagnosis = current_run(database, "diagnose", None)
    scope = diagnosis.models[0] if diagnosis is not None and diagnosis.models else ""
    run = current_run(database, "explain", scope)
    return None if run is None else run.config_key


def _attribution(row: Any) -> Attribution:
    common: dict[str, Any] = {
        "full": _or_nan(row.full),
        "empty": _or_nan(row.empty),
        "gap": _or_nan(row.gap),
        "passes": row.passes,
        "evidence": row.evidence,
        "extra": {name: _or_nan(value) for name, value in row.extra.items()},
    }
    found: SegmentMap | GridMap
    if row.height is None:
        found = SegmentMap(phi=np.frombuffer(row.map, "<f4").astype(np.float32), **common)
    else:
        values = np.frombuffer(row.map, "<f2").astype(np.float32)
        if values.size != row.height * row.width:
            raise CorruptionError(f"attribution {row.id} is damaged; run `curator explain` again")
        found = GridMap(
            values=values.reshape(row.height, row.width),
            scale=(row.scale_x, row.scale_y),
            offset=(row.offset_x, row.offset_y),
            **common,
        )
    return Attribution(
        outcome_id=row.outcome_id,
        method=row.method,
        map=found,
        key=row.key,
        segmentation_id=row.segmentation_id,
        id=row.id,
    )


def _or_null(value: float) -> float | None:
    # SQLite turns NaN into NULL by itself, JSON has none: do it alike everywhere.
    return None if math.isnan(value) else float(value)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


# ---------------------------------------------------------------- regions


def put_regions(database: Database, run_id: int, regions: Sequence[Region]) -> list[int]:
    """Store regions by key."""
    rows = []
    for region in regions:
        x1, y1, x2, y2 = map(float, region.box)
        rows.append(
            {
                "attribution_id": region.attribution_id,
                "outcome_id": region.outcome_id,
                "image_id": region.image_id,
                "kind": region.kind,
                "x1": x1,
                "y1": y1,
                "x2": x2,
                "y2": y2,
                "segments": [int(segment) for segment in region.segments],
                "weight": float(region.weight),
                "key": region.key,
                "run_id": run_id,
            }
        )
    with database.writing() as connection:
        return put_by_key(connection, RegionRow, rows)


def regions(database: Database, attribution_ids: Sequence[int]) -> list[Region]:
    """Regions of attributions, by attribution and id: those that were made last."""
    rows: list[Any] = []
    with database.reading() as connection:
        for part in chunks(sorted(set(attribution_ids))):
            query = select(table(RegionRow)).where(RegionRow.attribution_id.in_(part))
            rows += connection.execute(query)
    rows.sort(key=lambda row: (row.attribution_id, row.id))
    last = {row.attribution_id: row.run_id for row in rows}
    return [
        Region(
            attribution_id=row.attribution_id,
            outcome_id=row.outcome_id,
            image_id=row.image_id,
            kind=row.kind,
            box=(row.x1, row.y1, row.x2, row.y2),
            segments=tuple(row.segments),
            weight=row.weight,
            key=row.key,
            id=row.id,
        )
        for row in rows
        if last[row.attribution_id] == row.run_id
    ]
