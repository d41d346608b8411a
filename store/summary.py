"""Rows by noun: what a workspace holds."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select

from store.findings import current_outcome_ids
from store.models import (
    AnnotationRow,
    AnnotationVersion,
    AttributionRow,
    DetectionRow,
    HitRow,
    Image,
    IndexedImage,
    Member,
    Model,
    OutcomeRow,
    RegionRow,
    Run,
    SampleRow,
    SegmentationRow,
    SelectionRow,
    TrialRow,
    VersionRow,
)
from store.records import ROLES
from store.session import Database, table

_TABLES = {
    "images": Image,
    "annotation_versions": AnnotationVersion,
    "annotations": AnnotationRow,
    "models": Model,
    "detections": DetectionRow,
    "outcomes": OutcomeRow,
    "segmentations": SegmentationRow,
    "attributions": AttributionRow,
    "regions": RegionRow,
    "indexed_images": IndexedImage,
    "selections": SelectionRow,
    "hits": HitRow,
    "samples": SampleRow,
    "versions": VersionRow,
    "trials": TrialRow,
    "runs": Run,
}


def counts(database: Database) -> Mapping[str, int]:
    """Rows by noun. `images_ROLE` counts images of a role; `failures_KIND` and `successes` count the current
    diagnosis; all other names are tables."""
    roles = select(Member.role, func.count(func.distinct(Member.image_id))).group_by(Member.role)
    kinds = (
        select(OutcomeRow.kind, func.count())
        .where(OutcomeRow.id.in_(current_outcome_ids()))
        .group_by(OutcomeRow.kind)
    )
    totals = select(
        *(select(func.count()).select_from(table(model)).scalar_subquery() for model in _TABLES.values())
    )
    with database.reading() as connection:
        by_table = dict(zip(_TABLES, connection.execute(totals).one(), strict=True))
        by_role = {row[0]: row[1] for row in connection.execute(roles)}
        by_kind = {row[0]: row[1] for row in connection.execute(kinds)}
        boxes = connection.scalar(select(func.coalesce(func.sum(IndexedImage.boxes), 0)))
    found = {"images": by_table.pop("images")}
    found |= {f"images_{role}": by_role.get(role, 0) for role in ROLES}
    found |= {
        "failures_FN": by_kind.get("FN", 0),
        "failures_FP": by_kind.get("FP", 0),
        "successes": by_kind.get("TP", 0),
    }
    return {**found, **by_table, "boxes": int(boxes or 0)}
