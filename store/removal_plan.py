"""What a removal would take away, and what stays behind that named it.

In: what is to be removed. Out: a `RemovalPlan`; nothing is changed. Versions are read one by one, as each may
hold millions of ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, func, or_, select

from store.models import (
    AnnotationRow,
    Dataset,
    FeedbackRow,
    HitRow,
    Image,
    IndexedImage,
    Item,
    Member,
    OutcomeRow,
    SampleRow,
    SelectionRow,
    SpaceRow,
    Tag,
    TrialRow,
    VersionRow,
)
from store.records import MembershipFilter, RemovalPlan, StaleVersion
from store.removal import CHUNK, count_parts, derived, meant, without_others
from store.removal_products import (
    count_model,
    samples_of,
    selection_parts,
    space_parts,
    verification_parts,
)
from store.session import chunks, table

HIDDEN = (table(AnnotationRow).name, table(Tag).name)
"""Tables that are not counted: their numbers would tell of labels that are hidden."""


def plan_images(connection: Connection, ids: Sequence[int], which: MembershipFilter) -> RemovalPlan:
    """Removing memberships of images, and images without another one."""
    counts: Counter[str] = Counter()
    hits: Counter[int] = Counter()
    out: set[int] = set()
    samples: set[int] = set()
    kept, unlinked, roles = 0, 0, set[str]()
    for part in chunks(ids, CHUNK):
        theirs = Member.image_id.in_(part), meant(which)
        roles |= set(connection.scalars(select(Member.role).where(*theirs).distinct()))
        going = without_others(connection, part, which)
        parts = [(model, chosen) for model, chosen in derived(going) if model is not Member]
        counts += count_parts(connection, parts) if going else Counter()
        number = connection.scalar(select(func.count()).select_from(table(Member)).where(*theirs))
        counts[table(Member).name] += number or 0
        indexed = select(func.count()).where(IndexedImage.image_id.in_(going))
        counts[table(IndexedImage).name] += connection.scalar(indexed) or 0
        concerned = set(connection.scalars(select(Member.image_id).where(*theirs).distinct()))
        kept += len(concerned - set(going))
        outcomes = select(OutcomeRow.id).where(OutcomeRow.image_id.in_(going))
        lost = select(HitRow.selection_id, func.count()).where(HitRow.image_id.in_(going))
        hits.update({row[0]: row[1] for row in connection.execute(lost.group_by(HitRow.selection_id))})
        loose = HitRow.outcome_id.in_(outcomes), HitRow.image_id.not_in(going)
        unlinked += connection.scalar(select(func.count()).select_from(table(HitRow)).where(*loose)) or 0
        made = or_(
            SampleRow.scene_image_id.in_(going),
            SampleRow.exemplar_image_id.in_(going),
            SampleRow.outcome_id.in_(outcomes),
        )
        samples.update(connection.scalars(select(SampleRow.id).where(made)))
        out.update(going)
    held = "holdout" in roles
    fitted = select(SpaceRow.name).order_by(SpaceRow.name)
    return RemovalPlan(
        counts=_shown(counts),
        kept=kept,
        selections=_named(connection, hits),
        unlinked=unlinked,
        versions=_versions(connection, out, samples),
        verifications=tuple(
            connection.scalars(
                select(TrialRow.verification).distinct().order_by(TrialRow.verification)
            )
        )
        if held
        else (),
        spaces=tuple(connection.scalars(fitted)) if "mine" in roles else (),
    )


def plan_selection(connection: Connection, name: str) -> RemovalPlan:
    """Removing a selection."""
    return RemovalPlan(counts=_shown(count_parts(connection, selection_parts(name))))


def plan_samples(connection: Connection, ids: Sequence[int] | None, name: str | None) -> RemovalPlan:
    """Removing samples of a batch, or by id."""
    parts = samples_of(ids, name)
    going = set(connection.scalars(select(SampleRow.id).where(parts[-1][1])))
    return RemovalPlan(
        counts=_shown(count_parts(connection, parts)), versions=_versions(connection, set(), going)
    )


def plan_verification(connection: Connection, name: str) -> RemovalPlan:
    """Removing a verification."""
    return RemovalPlan(counts=_shown(count_parts(connection, verification_parts(name))))


def plan_spaces(connection: Connection, ids: Sequence[int]) -> RemovalPlan:
    """Removing vector spaces."""
    return RemovalPlan(counts=_shown(count_parts(connection, space_parts(ids))))


def plan_model(connection: Connection, models: Sequence[int], fingerprints: set[str]) -> RemovalPlan:
    """Removing models."""
    outcomes = select(OutcomeRow.id).where(OutcomeRow.model_id.in_(models))
    loose = [
        connection.scalar(select(func.count()).select_from(table(model)).where(column.in_(outcomes))) or 0
        for model, column in ((HitRow, HitRow.outcome_id), (SampleRow, SampleRow.outcome_id))
    ]
    return RemovalPlan(
        counts=_shown(count_model(connection, models, fingerprints)), unlinked=sum(loose)
    )


def known_names(connection: Connection) -> Mapping[str, list[str]]:
    """What there is to remove, by kind."""
    queries = {
        "dataset": select(Dataset.name).order_by(Dataset.id),
        "selection": select(SelectionRow.name).order_by(SelectionRow.id),
        "feedback": select(FeedbackRow.selection).distinct().order_by(FeedbackRow.selection),
        "samples": select(SampleRow.name).distinct().order_by(SampleRow.name),
        "verification": select(TrialRow.verification).distinct().order_by(TrialRow.verification),
        "index": select(SpaceRow.name).order_by(SpaceRow.name),
    }
    return {kind: list(connection.scalars(query)) for kind, query in queries.items()}


def known_images(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of some ids that are images, by id."""
    found: list[int] = []
    for part in chunks(sorted(set(ids))):
        found += connection.scalars(select(Image.id).where(Image.id.in_(part)).order_by(Image.id))
    return found


def image_places(connection: Connection) -> Iterator[tuple[int, str]]:
    """(id, URI) of all images, by id."""
    query = select(Image.id, Image.uri).order_by(Image.id).execution_options(yield_per=5000)
    return ((number, uri) for number, uri in connection.execute(query))


def known_samples(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of some ids that are samples, by id."""
    query = select(SampleRow.id).order_by(SampleRow.id)
    return [i for part in chunks(ids) for i in connection.scalars(query.where(SampleRow.id.in_(part)))]


def has_item(connection: Connection, stage: str, beginning: str) -> bool:
    """Has an item of a stage a key that begins so (hexadecimal digits)?"""
    query = select(Item.key).where(Item.stage == stage, Item.key.between(beginning, f"{beginning}g"))
    return connection.scalar(query.limit(1)) is not None


def _shown(counts: Counter[str]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number and name not in HIDDEN}


def _named(connection: Connection, hits: Mapping[int, int]) -> dict[str, int]:
    query = select(SelectionRow.id, SelectionRow.name).order_by(SelectionRow.id)
    return {name: hits[number] for number, name in connection.execute(query) if hits.get(number)}


def _versions(connection: Connection, images: set[int], samples: set[int]) -> tuple[StaleVersion, ...]:
    """Versions that name some of these."""
    if not images and not samples:
        return ()
    found = []
    for number in connection.scalars(select(VersionRow.id).order_by(VersionRow.id)).all():
        query = select(VersionRow.name, VersionRow.image_ids, VersionRow.sample_ids)
        row = connection.execute(query.where(VersionRow.id == number)).one()
        named = len(images.intersection(row.image_ids)), len(samples.intersection(row.sample_ids))
        if any(named):
            found.append(StaleVersion(number=number, name=row.name, images=named[0], samples=named[1]))
    return tuple(found)
