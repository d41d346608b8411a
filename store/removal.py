"""Removing images: their memberships, and where none is left all that is derived of them alone.

In: ids of images, in a transaction. Out: rows by table. Files of the user are never touched. What each table
loses is said once (`derived`), for counting before and for deleting; children come before their parents.

Foreign keys whose columns have no index would cost a scan of their table for every row that goes.
`indexed_references` gives them one while a large removal lasts, in its transaction: images go far too seldom
for indexes that every stage would have to keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, and_, delete, func, not_, or_, select, text, true, update

from store.keys import content_key
from store.models import (
    AnnotationRow,
    AnnotationVersion,
    AppearanceRow,
    AttributionRow,
    Base,
    Category,
    ClassList,
    ComparisonRow,
    Dataset,
    DetectionRow,
    FeedbackRow,
    HitRow,
    Image,
    Item,
    ListedImage,
    Member,
    OutcomeItem,
    OutcomeRow,
    RegionRow,
    SampleRow,
    SegmentationRow,
    SelectionRow,
    Tag,
    VerdictRow,
)
from store.records import MembershipFilter
from store.session import chunks, table
from store.vectors.spaces import Spaces

BATCH = 20_000
"""Images that one transaction removes: each leaves a consistent workspace."""
CHUNK = 1000  # of them in one statement
FEW = 16  # rows up to which a scan each is cheaper than an index
UNINDEXED = (
    (Item, "image_id"),
    (SampleRow, "scene_image_id"),
    (SampleRow, "exemplar_image_id"),
    (SampleRow, "outcome_id"),
    (HitRow, "outcome_id"),
    (OutcomeRow, "annotation_id"),
    (AttributionRow, "segmentation_id"),
)
"""References to what is removed in large numbers, by columns without an index."""

Part = tuple[type[Base], ColumnElement[bool]]


@contextmanager
def indexed_references(connection: Connection, rows: int) -> Iterator[None]:
    """Indexes for `UNINDEXED` while the block lasts, where `rows` are to go."""
    wanted = [(table(model).name, column) for model, column in UNINDEXED if rows > FEW]
    for name, column in wanted:
        connection.execute(text(f"CREATE INDEX removal_{name}_{column} ON {name} ({column})"))
    yield
    for name, column in wanted:
        connection.execute(text(f"DROP INDEX removal_{name}_{column}"))


def derived(ids: Sequence[int]) -> list[Part]:
    """What is derived of images, them last, in the order in which it goes; boxes of vector spaces apart."""
    outcomes = select(OutcomeRow.id).where(OutcomeRow.image_id.in_(ids))
    attributions = select(AttributionRow.id).where(AttributionRow.outcome_id.in_(outcomes))
    versions = select(AnnotationVersion.id).where(AnnotationVersion.image_id.in_(ids))
    made = or_(
        SampleRow.scene_image_id.in_(ids),
        SampleRow.exemplar_image_id.in_(ids),
        SampleRow.outcome_id.in_(outcomes),
    )
    return [
        *sample_parts(made),
        (HitRow, HitRow.image_id.in_(ids)),
        (FeedbackRow, FeedbackRow.image_id.in_(ids)),
        (RegionRow, RegionRow.attribution_id.in_(attributions)),
        (AttributionRow, AttributionRow.outcome_id.in_(outcomes)),
        (SegmentationRow, SegmentationRow.image_id.in_(ids)),
        (OutcomeItem, OutcomeItem.outcome_id.in_(outcomes)),
        (OutcomeRow, OutcomeRow.image_id.in_(ids)),
        (DetectionRow, DetectionRow.image_id.in_(ids)),
        (Item, Item.image_id.in_(ids)),
        (AnnotationRow, AnnotationRow.version_id.in_(versions)),
        (AnnotationVersion, AnnotationVersion.image_id.in_(ids)),
        (Tag, Tag.image_id.in_(ids)),
        (ListedImage, ListedImage.image_id.in_(ids)),
        (AppearanceRow, AppearanceRow.image_id.in_(ids)),
        (ComparisonRow, or_(ComparisonRow.image_a.in_(ids), ComparisonRow.image_b.in_(ids))),
        (Member, Member.image_id.in_(ids)),
        (Image, Image.id.in_(ids)),
    ]


def sample_parts(chosen: ColumnElement[bool]) -> list[Part]:
    """Samples with their verdicts, and their items: what is not stored must not count as done."""
    keys = select(SampleRow.key).where(chosen)
    return [
        (VerdictRow, VerdictRow.sample_id.in_(select(SampleRow.id).where(chosen))),
        (Item, and_(Item.stage == "synthesize", Item.key.in_(keys))),
        (SampleRow, chosen),
    ]


def delete_parts(connection: Connection, parts: Sequence[Part]) -> Counter[str]:
    """Delete rows, in the order given; returns how many by table."""
    gone: Counter[str] = Counter()
    for model, chosen in parts:
        gone[table(model).name] += connection.execute(delete(table(model)).where(chosen)).rowcount
    return gone


def count_parts(connection: Connection, parts: Sequence[Part]) -> Counter[str]:
    """How many rows `delete_parts` would delete."""
    found: Counter[str] = Counter()
    for model, chosen in parts:
        number = connection.scalar(select(func.count()).select_from(table(model)).where(chosen))
        found[table(model).name] += number or 0
    return found


# ---------------------------------------------------------------- images


def meant(which: MembershipFilter) -> ColumnElement[bool]:
    """SQL: the memberships that are meant."""
    parts: list[ColumnElement[bool]] = [true()]
    if which.role is not None:
        parts.append(Member.role == which.role)
    if which.dataset is not None:
        named = select(Dataset.id).where(Dataset.name == which.dataset).scalar_subquery()
        parts.append(Member.dataset_id == named)
    return and_(*parts)


def members(connection: Connection, which: MembershipFilter) -> list[int]:
    """Images that have such a membership, by id."""
    query = select(Member.image_id).where(meant(which)).distinct()
    return list(connection.scalars(query.order_by(Member.image_id)))


def without_others(connection: Connection, ids: Sequence[int], which: MembershipFilter) -> list[int]:
    """Those of up to `CHUNK` images that have no other membership than these: they go."""
    if which.every:
        return list(connection.scalars(select(Image.id).where(Image.id.in_(ids)).order_by(Image.id)))
    theirs = Member.image_id.in_(ids)
    stay = set(connection.scalars(select(Member.image_id).where(theirs, not_(meant(which)))))
    concerned = connection.scalars(select(Member.image_id).where(theirs, meant(which)).distinct())
    return sorted(set(concerned) - stay)


def remove_images(
    connection: Connection, spaces: Spaces, ids: Sequence[int], which: MembershipFilter
) -> Counter[str]:
    """Remove memberships of up to `BATCH` images, and images without another one with all that is theirs."""
    gone: Counter[str] = Counter()
    named: set[int] = set()  # categories that may be nobody's afterwards
    datasets: set[int] = set()
    with indexed_references(connection, len(ids)):
        going = [(part, without_others(connection, part, which)) for part in chunks(ids, CHUNK)]
        gone["indexed_images"] += spaces.bury(connection, [image for _, out in going for image in out])
        for part, out in going:
            theirs = and_(Member.image_id.in_(part), meant(which))
            datasets |= set(connection.scalars(select(Member.dataset_id).where(theirs).distinct()))
            named |= _categories(connection, out)
            if not which.every:
                gone += delete_parts(connection, [(Member, theirs)])
            if out:
                outcomes = select(OutcomeRow.id).where(OutcomeRow.image_id.in_(out))
                hits = or_(HitRow.image_id.in_(out), HitRow.outcome_id.in_(outcomes))
                outdate_selections(connection, hits)
                unlink(connection, HitRow, HitRow.outcome_id.in_(outcomes))
                gone += delete_parts(connection, derived(out))
    gone += _tidy(connection, datasets, named)
    return +gone


def outdate_selections(connection: Connection, hits: ColumnElement[bool]) -> None:
    """Give selections that lose some hits another key: their query must not take them for its answer."""
    query = select(SelectionRow.id, SelectionRow.key).where(
        SelectionRow.id.in_(select(HitRow.selection_id).where(hits))
    )
    for number, key in connection.execute(query).all():
        connection.execute(
            update(SelectionRow).where(SelectionRow.id == number).values(key=content_key("removed", key))
        )


def unlink(connection: Connection, model: type[HitRow | SampleRow], chosen: ColumnElement[bool]) -> None:
    """Let hits or samples forget the failure that they were made for."""
    connection.execute(update(table(model)).where(chosen).values(outcome_id=None))


def _categories(connection: Connection, ids: Sequence[int]) -> set[int]:
    versions = select(AnnotationVersion.id).where(AnnotationVersion.image_id.in_(ids))
    query = select(AnnotationRow.category_id).where(AnnotationRow.version_id.in_(versions))
    return set(connection.scalars(query.distinct())) if ids else set()


def _tidy(connection: Connection, datasets: set[int], named: set[int]) -> Counter[str]:
    """Data sets without images go, and lists of classes that no image's labels speak of; then classes that
    nothing names any more."""
    empty = [
        number
        for number in sorted(datasets)
        if connection.scalar(select(Member.id).where(Member.dataset_id == number).limit(1)) is None
    ]
    spoken_of = select(ListedImage.class_list_id).where(ListedImage.class_list_id == ClassList.id)
    loose = [
        (row.id, row.names)
        for row in connection.execute(select(ClassList.id, ClassList.names).where(~spoken_of.exists()))
    ]
    gone = delete_parts(
        connection,
        [
            (ClassList, ClassList.id.in_([number for number, _ in loose])),
            (Dataset, Dataset.id.in_(empty)),
        ],
    )
    names = sorted({name for _, names in loose for name in names})
    named = named | set(connection.scalars(select(Category.id).where(Category.name.in_(names))))
    kept = {name for names in connection.scalars(select(ClassList.names)) for name in names}
    unused = [
        number
        for number, name in connection.execute(
            select(Category.id, Category.name).where(Category.id.in_(sorted(named)))
        ).all()
        if name not in kept
        and connection.scalar(
            select(AnnotationRow.category_id).where(AnnotationRow.category_id == number).limit(1)
        )
        is None
    ]
    if unused:
        painted = connection.scalars(select(SampleRow.annotations))
        known = {found["category"] for sample in painted for found in sample}
        chosen = and_(Category.id.in_(unused), Category.name.not_in(known))
        gone += delete_parts(connection, [(Category, chosen)])
    return gone
