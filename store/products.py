"""What the loop produces: selections, synthetic samples, data set versions and trials.

In: records keyed by content. Out: the same records with ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from store.access import check_selectable
from store.errors import NotFoundError
from store.models import (
    HitRow,
    SampleRow,
    SelectionRow,
    TrialRow,
    VerdictRow,
    VersionRow,
)
from store.records import DatasetVersion, Hit, NewAnnotation, Sample, Selection, Trial, Verdict
from store.runs import config_key_of, current_run, last_id
from store.session import Database, chunks, put_by_key, table


def put_selection(database: Database, run_id: int, selection: Selection) -> int:
    """Store a selection, or replace the one of its name.

    Raises:
        AccessError: a chosen image is in the holdout. ValueError: no key.
    """
    if not selection.key:
        raise ValueError("selection: expected a content key, got an empty one")
    values = {"arm": selection.arm, "config": dict(selection.config), "key": selection.key, "run_id": run_id}
    with database.writing() as connection:
        check_selectable(connection, selection.image_ids)
        query = select(SelectionRow.id, SelectionRow.key).where(SelectionRow.name == selection.name)
        old = connection.execute(query).one_or_none()
        if old is not None and old.key == selection.key:
            return int(old.id)
        if old is not None:
            selection_id = int(old.id)
            connection.execute(delete(HitRow).where(HitRow.selection_id == selection_id))
            connection.execute(update(SelectionRow).where(SelectionRow.id == selection_id).values(**values))
        else:
            target = table(SelectionRow)
            made = connection.execute(
                insert(target).returning(target.c.id), {"name": selection.name, **values}
            )
            selection_id = int(made.scalar_one())
        rows = [_hit_row(selection_id, position, hit) for position, hit in enumerate(selection.hits)]
        if rows:
            connection.execute(insert(table(HitRow)), rows)
    return selection_id


def _hit_row(selection_id: int, position: int, hit: Hit) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, hit.box)
    return {
        "selection_id": selection_id,
        "position": position,
        "rank": int(hit.rank),
        "image_id": int(hit.image_id),
        "outcome_id": None if hit.outcome_id is None else int(hit.outcome_id),
        "group_name": hit.group,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "score": float(hit.score),
        "reason": hit.reason,
    }


def selections(database: Database, name: str | None = None) -> list[Selection]:
    """Selections by id, or the one called `name`.

    Raises:
        NotFoundError: names the selections that exist.
    """
    query = select(table(SelectionRow)).order_by(SelectionRow.id)
    hits: dict[int, list[Hit]] = {}
    with database.reading() as connection:
        rows = connection.execute(query if name is None else query.where(SelectionRow.name == name)).all()
        if name is not None and not rows:
            known = connection.scalars(select(SelectionRow.name).order_by(SelectionRow.id)).all()
            raise NotFoundError(
                f"no selection called {name!r}; there are: {', '.join(known) or 'none (run `curator query`)'}"
            )
        for part in chunks([row.id for row in rows]):
            found = select(table(HitRow)).where(HitRow.selection_id.in_(part)).order_by(HitRow.position)
            for row in connection.execute(found):
                hits.setdefault(row.selection_id, []).append(
                    Hit(
                        rank=row.rank,
                        image_id=row.image_id,
                        outcome_id=row.outcome_id,
                        group=row.group_name,
                        box=(row.x1, row.y1, row.x2, row.y2),
                        score=row.score,
                        reason=row.reason,
                    )
                )
    return [
        Selection(
            name=row.name,
            arm=row.arm,
            hits=tuple(hits.get(row.id, ())),
            config=row.config,
            key=row.key,
            id=row.id,
        )
        for row in rows
    ]


# ---------------------------------------------------------------- samples


def put_sample(database: Database, run_id: int, sample: Sample) -> int:
    """Store a sample by key, with its verdicts if it has any."""
    x1, y1, x2, y2 = map(float, sample.painted)
    row = {
        "name": sample.name,
        "blob": sample.blob,
        "width": int(sample.width),
        "height": int(sample.height),
        "recipe": sample.recipe,
        "group_name": sample.group,
        "scene_image_id": sample.scene_image_id,
        "exemplar_image_id": sample.exemplar_image_id,
        "outcome_id": sample.outcome_id,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "annotations": sample.annotations,
        "seed": int(sample.seed),
        "number": int(sample.number),
        "config_key": config_key_of(database, run_id),
        "key": sample.key,
        "run_id": run_id,
    }
    with database.writing() as connection:
        sample_id = put_by_key(connection, SampleRow, [row], last=partial(last_id, connection, SampleRow))[0]
        judged = connection.scalar(
            select(VerdictRow.position).where(VerdictRow.sample_id == sample_id).limit(1)
        )
        if sample.verdicts and judged is None:
            _replace_verdicts(connection, run_id, sample_id, sample.verdicts)
    return sample_id


def put_verdicts(database: Database, run_id: int, sample_key: str, verdicts: Sequence[Verdict]) -> None:
    """Replace a sample's verdicts.

    Raises:
        NotFoundError: no sample has the key.
    """
    with database.writing() as connection:
        sample_id = connection.scalar(select(SampleRow.id).where(SampleRow.key == sample_key))
        if sample_id is None:
            raise NotFoundError(f"no sample with key {sample_key[:12]}; run `curator synthesize` first")
        _replace_verdicts(connection, run_id, sample_id, verdicts)


def _replace_verdicts(
    connection: Connection, run_id: int, sample_id: int, verdicts: Sequence[Verdict]
) -> None:
    rows = [
        {
            "sample_id": sample_id,
            "position": position,
            "check": verdict.check,
            "accepted": bool(verdict.accepted),
            "value": None if math.isnan(verdict.value) else float(verdict.value),
            "bound": None if math.isnan(verdict.bound) else float(verdict.bound),
            "reason": verdict.reason,
            "run_id": run_id,
        }
        for position, verdict in enumerate(verdicts)
    ]
    connection.execute(delete(VerdictRow).where(VerdictRow.sample_id == sample_id))
    if rows:
        connection.execute(insert(table(VerdictRow)), rows)


def samples(
    database: Database, *, name: str | None, accepted: bool | None, config_key: str | None = None
) -> list[Sample]:
    """Samples by batch and plan, of one batch or all, perhaps only the accepted or the rejected ones.

    A batch holds the samples of one configuration at a time, that of its current run: the plans in their
    order until the run's budget is accepted. What other settings painted under the name stays stored. With
    `config_key`: all that this configuration ever painted.
    """
    query = select(table(SampleRow)).order_by(SampleRow.number, SampleRow.id)
    if name is not None:
        query = query.where(SampleRow.name == name)
    if config_key is not None:
        query = query.where(SampleRow.config_key == config_key)
    verdicts: dict[int, list[Verdict]] = {}
    with database.reading() as connection:
        rows = connection.execute(query).all()
        for part in chunks([row.id for row in rows]):
            found = (
                select(table(VerdictRow)).where(VerdictRow.sample_id.in_(part)).order_by(VerdictRow.position)
            )
            for row in connection.execute(found):
                verdicts.setdefault(row.sample_id, []).append(
                    Verdict(
                        check=row.check,
                        accepted=row.accepted,
                        value=math.nan if row.value is None else row.value,
                        bound=math.nan if row.bound is None else row.bound,
                        reason=row.reason,
                    )
                )
    batches: dict[str, list[Any]] = {}
    for row in rows:
        batches.setdefault(row.name, []).append((row.config_key, _sample(row, verdicts.get(row.id, []))))
    chosen = [
        sample
        for batch, members in sorted(batches.items())
        for sample in _of_current_run(database, batch, members, config_key)
    ]
    return [sample for sample in chosen if accepted is None or sample.accepted == accepted]


def _of_current_run(
    database: Database, name: str, members: Sequence[tuple[str, Sample]], config_key: str | None
) -> list[Sample]:
    """Of (configuration, sample) by plan, those of the batch."""
    run = current_run(database, "synthesize", name)
    if config_key is not None or run is None:
        return [sample for _, sample in members]
    budget, plans = run.facts.get("budget", math.inf), run.facts.get("plans", math.inf)
    found: list[Sample] = []
    accepted = 0
    for key, sample in members:
        if key == run.config_key and sample.number < plans and accepted < budget:
            found.append(sample)
            accepted += sample.passed  # a person's word changes no batch's length
    return found


def _sample(row: Any, verdicts: Sequence[Verdict]) -> Sample:
    return Sample(
        name=row.name,
        blob=row.blob,
        width=row.width,
        height=row.height,
        recipe=row.recipe,
        group=row.group_name,
        scene_image_id=row.scene_image_id,
        exemplar_image_id=row.exemplar_image_id,
        outcome_id=row.outcome_id,
        painted=(row.x1, row.y1, row.x2, row.y2),
        annotations=tuple(_new_annotation(raw) for raw in row.annotations),
        seed=row.seed,
        key=row.key,
        number=row.number,
        verdicts=tuple(verdicts),
        id=row.id,
    )


def _new_annotation(raw: dict[str, Any]) -> NewAnnotation:
    polygon = raw["polygon"]
    x1, y1, x2, y2 = raw["box"]
    return NewAnnotation(
        category=raw["category"],
        box=(x1, y1, x2, y2),
        crowd=raw["crowd"],
        difficult=raw["difficult"],
        polygon=None if polygon is None else tuple(tuple(ring) for ring in polygon),
        attributes=raw["attributes"],
    )


def sample_blobs(database: Database) -> set[str]:
    """The blobs of all samples."""
    with database.reading() as connection:
        return set(connection.scalars(select(SampleRow.blob)))


# ---------------------------------------------------------------- versions and trials


def put_version(database: Database, run_id: int, version: DatasetVersion) -> int:
    """Store a data set version by (name, key)."""
    if not version.key:
        raise ValueError("version: expected a content key, got an empty one")
    target = table(VersionRow)
    with database.writing() as connection:
        found = connection.scalar(
            select(target.c.id).where(target.c.name == version.name, target.c.key == version.key)
        )
        if found is not None:
            return int(found)
        row = {
            "name": version.name,
            "image_ids": list(version.image_ids),
            "sample_ids": list(version.sample_ids),
            "manifest": dict(version.manifest),
            "key": version.key,
            "run_id": run_id,
        }
        return int(connection.execute(insert(target).returning(target.c.id), row).scalar_one())


def versions(database: Database, name: str | None = None) -> list[DatasetVersion]:
    """Versions by id, or those called `name`.

    Raises:
        NotFoundError: no version of that name.
    """
    query = select(table(VersionRow)).order_by(VersionRow.id)
    with database.reading() as connection:
        rows = connection.execute(query if name is None else query.where(VersionRow.name == name)).all()
    if name is not None and not rows:
        raise NotFoundError(f"no data set version called {name!r}; `curator export --version NAME` makes one")
    return [
        DatasetVersion(
            name=row.name,
            image_ids=tuple(row.image_ids),
            sample_ids=tuple(row.sample_ids),
            manifest=row.manifest,
            key=row.key,
            id=row.id,
            run_id=row.run_id,
        )
        for row in rows
    ]


def put_trial(database: Database, run_id: int, trial: Trial) -> int:
    """Store a trial by key."""
    row = {
        "verification": trial.verification,
        "arm": trial.arm,
        "seed": int(trial.seed),
        "metrics": dict(trial.metrics),
        "key": trial.key,
        "run_id": run_id,
    }
    with database.writing() as connection:
        return put_by_key(connection, TrialRow, [row])[0]


def trials(database: Database, verification: str | None) -> list[Trial]:
    """Trials by verification: those of its current run in the run's order, or where none is known the newest
    per (arm, seed), by arm and seed."""
    query = select(table(TrialRow)).order_by(TrialRow.verification, TrialRow.arm, TrialRow.seed, TrialRow.id)
    if verification is not None:
        query = query.where(TrialRow.verification == verification)
    by_name: dict[str, list[Any]] = {}
    with database.reading() as connection:
        for row in connection.execute(query):
            by_name.setdefault(row.verification, []).append(row)
    found = []
    for name, rows in by_name.items():
        run = current_run(database, "verify", name)
        keys = None if run is None else run.facts.get("trials")
        if keys is not None:
            stored = {row.key: row for row in rows}
            chosen = [stored[key] for key in keys if key in stored]
        else:
            chosen = list({(row.arm, row.seed): row for row in rows}.values())
        found += [_trial(row) for row in chosen]
    return found


def _trial(row: Any) -> Trial:
    return Trial(
        verification=row.verification,
        arm=row.arm,
        seed=row.seed,
        metrics=row.metrics,
        key=row.key,
        id=row.id,
    )
