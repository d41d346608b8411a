"""SQLAlchemy models: the tables of a workspace, on SQLite and PostgreSQL alike.

Change a table here and write a migration for it; `curator db check` and a test compare the two. Every
result row carries the run that wrote it (`run_id`) and its content key (`key`, unique).
"""

from store.models.base import (
    Base,
    Boxed,
    CanonicalJson,
    Id,
    Identifier,
    ImageId,
    Json,
    Key,
    Moment,
    OutcomeId,
    RunId,
)
from store.models.evidence import (
    AttributionRow,
    RegionRow,
    SegmentationRow,
)
from store.models.findings import (
    DetectionRow,
    Model,
    OutcomeItem,
    OutcomeRow,
)
from store.models.images import (
    AnnotationRow,
    AnnotationVersion,
    AppearanceRow,
    Category,
    ClassList,
    ComparisonRow,
    Dataset,
    Image,
    ListedImage,
    Member,
    Tag,
)
from store.models.products import (
    FeedbackRow,
    HitRow,
    SampleRow,
    SelectionRow,
    TrialRow,
    VerdictRow,
    VersionRow,
)
from store.models.runs import (
    Item,
    Run,
)
from store.models.spaces import (
    IndexedImage,
    SpaceRow,
)

__all__ = [
    "AnnotationRow",
    "AnnotationVersion",
    "AppearanceRow",
    "AttributionRow",
    "Base",
    "Boxed",
    "CanonicalJson",
    "Category",
    "ClassList",
    "ComparisonRow",
    "Dataset",
    "DetectionRow",
    "FeedbackRow",
    "HitRow",
    "Id",
    "Identifier",
    "Image",
    "ImageId",
    "IndexedImage",
    "Item",
    "Json",
    "Key",
    "ListedImage",
    "Member",
    "Model",
    "Moment",
    "OutcomeId",
    "OutcomeItem",
    "OutcomeRow",
    "RegionRow",
    "Run",
    "RunId",
    "SampleRow",
    "SegmentationRow",
    "SelectionRow",
    "SpaceRow",
    "Tag",
    "TrialRow",
    "VerdictRow",
    "VersionRow",
]
