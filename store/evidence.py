"""Explanations: segmentations, attributions, regions and groups.

In: arrays. Out: the same arrays, from compact rows: labels as 16-bit PNG, phi as float32, grids as float16
with their affine (DESIGN.md, rule 7). Readers see the newest per (outcome, method).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import and_, func, insert, select

from store.errors import CorruptionError, NotFoundError
from store.findings import current_outcome_ids
from store.keys import content_key
from store.models import (
    AttributionRow,
    CurrentItem,
    GroupMember,
    GroupRow,
    RegionRow,
    SegmentationRow,
)
from store.records import Attribution, GridMap, Group, Region, Segmentation, SegmentMap
from store.runs import set_current
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
    """Store attributions by key."""
    rows = [
        {
            "outcome_id": item.outcome_id,
            "method": item.method,
            "segmentation_id": item.segmentation_id,
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
    database: Database, *, outcome_ids: Sequence[int] | None, method: str | None
) -> list[Attribution]:
    """The newest attribution per (outcome, method), newest first; without ids, of the current diagnosis."""
    newest = select(func.max(AttributionRow.id)).group_by(AttributionRow.outcome_id, AttributionRow.method)
    if method is not None:
        newest = newest.where(AttributionRow.method == method)
    with database.reading() as connection:
        if outcome_ids is None:
            parts = [newest.where(AttributionRow.outcome_id.in_(current_outcome_ids()))]
        else:
            wanted = sorted(set(outcome_ids))
            parts = [newest.where(AttributionRow.outcome_id.in_(part)) for part in chunks(wanted)]
        rows = [
            row
            for part in parts
            for row in connection.execute(select(table(AttributionRow)).where(AttributionRow.id.in_(part)))
        ]
    return [_attribution(row) for row in sorted(rows, key=lambda row: -row.id)]


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


def regions(database: Database, outcome_ids: Sequence[int] | None) -> list[Region]:
    """Regions by id: of each (outcome, method) those that were made last."""
    query = select(table(RegionRow), AttributionRow.method).join(
        AttributionRow, AttributionRow.id == RegionRow.attribution_id
    )
    with database.reading() as connection:
        if outcome_ids is None:
            parts = [query.where(RegionRow.outcome_id.in_(current_outcome_ids()))]
        else:
            wanted = sorted(set(outcome_ids))
            parts = [query.where(RegionRow.outcome_id.in_(part)) for part in chunks(wanted)]
        rows = sorted((row for part in parts for row in connection.execute(part)), key=lambda row: row.id)
    last = {(row.outcome_id, row.method): (row.attribution_id, row.run_id) for row in rows}
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
        if last[row.outcome_id, row.method] == (row.attribution_id, row.run_id)
    ]


# ---------------------------------------------------------------- groups


def put_groups(database: Database, run_id: int, groups: Sequence[Group]) -> None:
    """Store groups by their content and make them the current ones."""
    keys = [content_key("group", group) for group in groups]
    with database.writing() as connection:
        known = set(connection.scalars(select(GroupRow.key).where(GroupRow.key.in_(keys))))
        rows = [
            {
                "name": group.name,
                "kind": group.kind,
                "cause": group.cause,
                "category": group.category,
                "key": key,
                "run_id": run_id,
            }
            for group, key in zip(groups, keys, strict=True)
        ]
        ids = put_by_key(connection, GroupRow, rows)
        members = [
            {"group_id": group_id, "success": success, "position": position, "outcome_id": outcome_id}
            for group, key, group_id in zip(groups, keys, ids, strict=True)
            if key not in known
            for success, part in ((False, group.outcome_ids), (True, group.success_ids))
            for position, outcome_id in enumerate(part)
        ]
        if members:
            connection.execute(insert(table(GroupMember)), members)
        set_current(database, "groups", keys, run_id=run_id)


def groups(database: Database) -> list[Group]:
    """Groups of the newest grouping run, by id."""
    current = and_(CurrentItem.stage == "groups", CurrentItem.key == GroupRow.key)
    members: dict[tuple[int, bool], list[int]] = {}
    with database.reading() as connection:
        rows = connection.execute(
            select(table(GroupRow)).join(CurrentItem, current).order_by(GroupRow.id)
        ).all()
        for part in chunks([row.id for row in rows]):
            found = connection.execute(
                select(table(GroupMember))
                .where(GroupMember.group_id.in_(part))
                .order_by(GroupMember.position)
            )
            for row in found:
                members.setdefault((row.group_id, row.success), []).append(row.outcome_id)
    return [
        Group(
            name=row.name,
            kind=row.kind,
            cause=row.cause,
            category=row.category,
            outcome_ids=tuple(members.get((row.id, False), ())),
            success_ids=tuple(members.get((row.id, True), ())),
        )
        for row in rows
    ]
