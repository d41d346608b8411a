"""Removing selections, samples, verifications, vector spaces and models.

In: names or ids, in a transaction. Out: rows by table, as in `store.removal`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, exists, not_, select, update

from store.models import (
    AttributionRow,
    DetectionRow,
    FeedbackRow,
    HitRow,
    IndexedImage,
    Item,
    Model,
    OutcomeItem,
    OutcomeRow,
    RegionRow,
    Run,
    SampleRow,
    SegmentationRow,
    SelectionRow,
    SpaceRow,
    TrialRow,
)
from store.removal import (
    BATCH,
    CHUNK,
    Part,
    count_parts,
    delete_parts,
    indexed_references,
    outdate_selections,
    sample_parts,
    unlink,
)
from store.session import Database, chunks, table

OF_MODEL = ("detect", "diagnose", "explain", "index")
"""Stages whose results are a model's own; selections, samples and trials outlive it."""


def selection_parts(name: str) -> list[Part]:
    """A selection with its hits and what was said of them."""
    own = SelectionRow.name == name
    return [
        (Item, and_(Item.stage == "query", Item.key.in_(select(SelectionRow.key).where(own)))),
        (HitRow, HitRow.selection_id.in_(select(SelectionRow.id).where(own))),
        (FeedbackRow, FeedbackRow.selection == name),
        (SelectionRow, own),
    ]


def samples_of(ids: Sequence[int] | None, name: str | None) -> list[Part]:
    """Samples of a batch, whatever its settings, or by id."""
    if name is not None:
        return sample_parts(SampleRow.name == name)
    return sample_parts(SampleRow.id.in_(ids or ()))


def verification_parts(name: str) -> list[Part]:
    """A verification's trials and their items."""
    own = TrialRow.verification == name
    return [
        (Item, and_(Item.stage == "verify", Item.key.in_(select(TrialRow.key).where(own)))),
        (TrialRow, own),
    ]


def remove_verification(connection: Connection, name: str) -> Counter[str]:
    """Trials, and what the verification's runs say of them and of their pictures."""
    gone = delete_parts(connection, verification_parts(name))
    own = and_(Run.stage == "verify", Run.scope == name)
    connection.execute(update(Run).where(own).values(facts={}))
    return +gone


def space_parts(ids: Sequence[int]) -> list[Part]:
    """Vector spaces, and what of the stage index is done for them."""
    names = select(SpaceRow.name).where(SpaceRow.id.in_(ids))
    return [
        (IndexedImage, IndexedImage.space_id.in_(ids)),
        (Item, and_(Item.stage == "index", Item.config_key.in_(names))),
        (SpaceRow, SpaceRow.id.in_(ids)),
    ]


# ---------------------------------------------------------------- models


def models_called(connection: Connection, said: str) -> list[tuple[int, str, str]]:
    """(id, spec, fingerprint) of the models of a spec or of a fingerprint (8 digits of it or more), and of
    those with equal weights, by id; of "" all."""
    rows = connection.execute(select(Model.id, Model.spec, Model.fingerprint).order_by(Model.id)).all()
    fingerprints = {
        row.fingerprint
        for row in rows
        if said in ("", row.spec) or (len(said) >= 8 and row.fingerprint.startswith(said))
    }
    return [(row.id, row.spec, row.fingerprint) for row in rows if row.fingerprint in fingerprints]


def runs_of(connection: Connection, fingerprints: set[str]) -> list[int]:
    """Runs of the stages whose results are these models' own."""
    query = select(Run.id, Run.models).where(Run.stage.in_(OF_MODEL))
    return [row.id for row in connection.execute(query) if fingerprints & set(row.models)]


def spaces_of(connection: Connection, runs: Sequence[int]) -> list[int]:
    """Vector spaces that some runs made."""
    known = set(runs)
    query = select(SpaceRow.id, SpaceRow.run_id).order_by(SpaceRow.id)
    return [row.id for row in connection.execute(query) if row.run_id in known]


def count_model(connection: Connection, models: Sequence[int], fingerprints: set[str]) -> Counter[str]:
    """Rows that `remove_model` takes; segmentations that only its explanations used are not foreseen."""
    outcomes = select(OutcomeRow.id).where(OutcomeRow.model_id.in_(models))
    attributions = select(AttributionRow.id).where(AttributionRow.outcome_id.in_(outcomes))
    runs = runs_of(connection, fingerprints)
    return count_parts(
        connection,
        [
            (RegionRow, RegionRow.attribution_id.in_(attributions)),
            (AttributionRow, AttributionRow.outcome_id.in_(outcomes)),
            (OutcomeRow, OutcomeRow.model_id.in_(models)),
            (DetectionRow, DetectionRow.model_id.in_(models)),
            *((m, part) for m, part in space_parts(spaces_of(connection, runs)) if m is not Item),
            (Model, Model.id.in_(models)),
        ],
    )


def remove_model(database: Database, models: Sequence[int], fingerprints: set[str]) -> Counter[str]:
    """Remove models with all that is theirs, in transactions of bounded size.

    The first lets none of their runs be current any more: a kill leaves results that no reader asks for, and
    the models, so that the same command goes on. Items go with what they made.
    """
    gone: Counter[str] = Counter()
    with database.writing() as connection:
        runs = runs_of(connection, fingerprints)
        for part in chunks(runs, CHUNK):
            connection.execute(update(Run).where(Run.id.in_(part)).values(aside=True))
    while found := _outcomes(database, models):
        with database.writing() as connection, indexed_references(connection, len(found)):
            for part in chunks(found, CHUNK):
                gone += _remove_outcomes(connection, part)
    while keys := _detections(database, models):
        with database.writing() as connection:
            for part in chunks(keys, CHUNK):
                done = and_(Item.stage == "detect", Item.key.in_(part))
                gone += delete_parts(connection, [(Item, done), (DetectionRow, DetectionRow.key.in_(part))])
    with database.writing() as connection:
        gone += delete_parts(connection, space_parts(spaces_of(connection, runs)))
        for part in chunks(runs, CHUNK):
            gone += delete_parts(connection, [(Item, and_(Item.stage.in_(OF_MODEL), Item.run_id.in_(part)))])
        gone += delete_parts(connection, [(Model, Model.id.in_(models))])
    return +gone


def _outcomes(database: Database, models: Sequence[int]) -> list[int]:
    query = select(OutcomeRow.id).where(OutcomeRow.model_id.in_(models)).limit(BATCH)
    with database.reading() as connection:
        return list(connection.scalars(query))


def _detections(database: Database, models: Sequence[int]) -> list[str]:
    query = select(DetectionRow.key).where(DetectionRow.model_id.in_(models)).limit(BATCH)
    with database.reading() as connection:
        return list(connection.scalars(query))


def _remove_outcomes(connection: Connection, ids: Sequence[int]) -> Counter[str]:
    """Up to `CHUNK` outcomes with their explanations; hits and samples stay and forget them."""
    outdate_selections(connection, HitRow.outcome_id.in_(ids))
    unlink(connection, HitRow, HitRow.outcome_id.in_(ids))
    unlink(connection, SampleRow, SampleRow.outcome_id.in_(ids))
    attributions = select(AttributionRow.id).where(AttributionRow.outcome_id.in_(ids))
    query = select(AttributionRow.segmentation_id).where(AttributionRow.outcome_id.in_(ids)).distinct()
    segmentations = [number for number in connection.scalars(query) if number is not None]
    items = select(OutcomeItem.item_key).where(OutcomeItem.outcome_id.in_(ids))
    gone = delete_parts(
        connection,
        [
            (RegionRow, RegionRow.attribution_id.in_(attributions)),
            (AttributionRow, AttributionRow.outcome_id.in_(ids)),
            (Item, and_(Item.stage == "diagnose", Item.key.in_(items))),
            (OutcomeItem, OutcomeItem.outcome_id.in_(ids)),
            (OutcomeRow, OutcomeRow.id.in_(ids)),
        ],
    )
    used = exists().where(AttributionRow.segmentation_id == SegmentationRow.id)
    unused = and_(SegmentationRow.id.in_(segmentations), not_(used))
    done = connection.execute(delete(SegmentationRow).where(unused))
    gone[table(SegmentationRow).name] += done.rowcount
    return gone
