"""The nouns that stages exchange: frozen dataclasses over numpy, without torch and without SQL.

One frame everywhere (DESIGN.md, rule 6): boxes are (x1, y1, x2, y2) in absolute pixels of the stored
image (EXIF orientation applied), no +1; images are RGB; detector labels and category indices are 0-based
without background.
"""

from store.records.annotations import (
    Annotation,
    AnnotationSet,
    Category,
    NewAnnotation,
)
from store.records.box_rows import (
    CLASSES,
    VIEW_SCALE,
    BoxesKind,
    BoxRows,
    ClassRows,
    ImageBoxes,
    SpaceShape,
)
from store.records.boxes import (
    BoxTuple,
    Floats,
    Ints,
)
from store.records.detections import (
    Detections,
    DetectionSet,
    ModelRecord,
    Pin,
)
from store.records.explanations import (
    LOG_ODDS,
    Attribution,
    AttributionKey,
    GridMap,
    Region,
    RegionKind,
    Segmentation,
    SegmentMap,
)
from store.records.images import (
    ROLES,
    AddedImage,
    ImageRecord,
    Leak,
    Membership,
    NewImage,
    Reader,
    Role,
)
from store.records.outcomes import (
    FN_CAUSES,
    FP_CAUSES,
    Group,
    Outcome,
    OutcomeFilter,
    OutcomeKind,
    OutcomeSort,
    TargetRecord,
)
from store.records.removals import (
    MembershipFilter,
    RemovalPlan,
    StaleVersion,
)
from store.records.runs import (
    ItemStatus,
    RunRecord,
    RunStatus,
)
from store.records.samples import (
    PERSON,
    Sample,
    Verdict,
)
from store.records.selections import (
    Feedback,
    Hit,
    Selection,
)
from store.records.trials import (
    DatasetVersion,
    Trial,
)

__all__ = [
    "CLASSES",
    "FN_CAUSES",
    "FP_CAUSES",
    "LOG_ODDS",
    "PERSON",
    "ROLES",
    "VIEW_SCALE",
    "AddedImage",
    "Annotation",
    "AnnotationSet",
    "Attribution",
    "AttributionKey",
    "BoxRows",
    "BoxTuple",
    "BoxesKind",
    "Category",
    "ClassRows",
    "DatasetVersion",
    "DetectionSet",
    "Detections",
    "Feedback",
    "Floats",
    "GridMap",
    "Group",
    "Hit",
    "ImageBoxes",
    "ImageRecord",
    "Ints",
    "ItemStatus",
    "Leak",
    "Membership",
    "MembershipFilter",
    "ModelRecord",
    "NewAnnotation",
    "NewImage",
    "Outcome",
    "OutcomeFilter",
    "OutcomeKind",
    "OutcomeSort",
    "Pin",
    "Reader",
    "Region",
    "RegionKind",
    "RemovalPlan",
    "Role",
    "RunRecord",
    "RunStatus",
    "Sample",
    "SegmentMap",
    "Segmentation",
    "Selection",
    "SpaceShape",
    "StaleVersion",
    "TargetRecord",
    "Trial",
    "Verdict",
]
