"""The nouns that stages exchange: frozen dataclasses over numpy, without torch and without SQL.

One frame everywhere (DESIGN.md, rule 6): boxes are (x1, y1, x2, y2) in absolute pixels of the stored
image (EXIF orientation applied), no +1; images are RGB; detector labels and category indices are 0-based
without background.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from store.appearance import Appearance

Role = Literal["train", "mine", "pool", "holdout"]
ROLES: tuple[Role, ...] = ("train", "mine", "pool", "holdout")

Reader = Literal[
    "detect",
    "diagnose",
    "explain",
    "index",
    "query",
    "synthesize",
    "export",
    "train",
    "report",
    "verify",
    "oracle",
]
"""The stage that asks for pixels or annotations: the Store decides by it what may be seen."""

OutcomeKind = Literal["TP", "FP", "FN"]
FP_CAUSES = ("classification", "localisation", "both", "duplicate", "background")
FN_CAUSES = ("under-threshold", "misclassified", "mislocalised", "suppressed", "miss")
RegionKind = Literal["object", "support", "culprit"]

BoxTuple = tuple[float, float, float, float]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


# ---------------------------------------------------------------- images and annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class of the data sets of a workspace; names are unique in it."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image that the workspace knows; its pixels stay where `uri` says.

    Attributes:
        width, height: pixels after the EXIF orientation is applied.
        phash: 64-bit perceptual hash as 16 hex digits.
    """

    id: int
    uri: str
    sha256: str
    phash: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The part an image plays in a data set."""

    image_id: int
    dataset: str
    role: Role
    split: str | None = None
    group_key: str | None = None
    captured_at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnnotation:
    """A labelled object as an importer or a recipe hands it over.

    Attributes:
        category: category name.
        box: (x1, y1, x2, y2), stored-image pixels.
        polygon: flat (x, y, x, y, ...) rings, or None.
        attributes: JSON object of further facts (the built-in example keeps its planted cause there).
    """

    category: str
    box: BoxTuple
    crowd: bool = False
    difficult: bool = False
    polygon: tuple[tuple[float, ...], ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A stored labelled object. `category_id` refers to `Category`."""

    id: int
    category_id: int
    category: str
    box: BoxTuple
    crowd: bool = False
    difficult: bool = False
    polygon: tuple[tuple[float, ...], ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationSet:
    """The newest annotation version of one image.

    Attributes:
        version: counts from 1 per image.
        key: content key of the version; equal contents give equal keys.
        status: "human", or "pre-annotation" (a detector's boxes that wait for correction).
    """

    image_id: int
    version: int
    key: str
    status: Literal["human", "pre-annotation"]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image as an importer hands it over; `annotations` None means unlabelled, () means no objects."""

    uri: str
    sha256: str
    phash: str
    width: int
    height: int
    dataset: str
    role: Role
    split: str | None = None
    group_key: str | None = None
    captured_at: datetime | None = None
    source: str | None = None
    annotations: tuple[NewAnnotation, ...] | None = None
    status: Literal["human", "pre-annotation"] = "human"
    tags: Mapping[str, str] = field(default_factory=dict)
    appearance: Appearance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedImage:
    """What became of one `NewImage`.

    Attributes:
        created: False when the workspace knew the bytes (sha256) already.
        same_as: (image id, role) of memberships with equal or nearly equal pixels, in any role; a pool image
            paired with a holdout image here is a leak.
        annotation_changed: a new annotation version was stored.
    """

    image_id: int
    created: bool
    same_as: tuple[tuple[int, Role], ...] = ()
    annotation_changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Why an image must not be added to a training set.

    Attributes:
        reason: "equal": it is a protected image itself. "group": it shares a group key, such as a video, with
            a holdout image. "nearly equal": it looks like a protected image (docs/decisions/0008).
        role: of the protected image: "holdout" or "mine". image_id: the protected image.
    """

    reason: Literal["equal", "group", "nearly equal"]
    role: Role
    image_id: int

    def __str__(self) -> str:
        """For people, such as "nearly equals a holdout image"."""
        image = "a holdout image" if self.role == "holdout" else "a mined image"
        verbs = {"equal": "equals", "group": "shares its group key with", "nearly equal": "nearly equals"}
        return f"{verbs[self.reason]} {image}"


# ---------------------------------------------------------------- detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Final detections of one image, best first.

    Attributes:
        boxes: (N, 4) float32, stored-image pixels.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, index into the detector's `classes`.
        candidates: (N,) int64, the index of the candidate that became this detection.
    """

    boxes: Floats
    scores: Floats
    labels: Ints
    candidates: Ints

    def __post_init__(self) -> None:
        for name, dtype in (
            ("boxes", np.float32),
            ("scores", np.float32),
            ("labels", np.int64),
            ("candidates", np.int64),
        ):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.labels.shape != (n,) or self.candidates.shape != (n,):
            raise ValueError(
                f"expected boxes ({n}, 4), labels ({n},) and candidates ({n},), got {self.boxes.shape}, "
                f"{self.labels.shape} and {self.candidates.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[Any]) -> Detections:
        """Return the detections that a boolean mask or an index array (n,) picks."""
        return Detections(
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            candidates=self.candidates[index],
        )

    @classmethod
    def empty(cls) -> Detections:
        """Return detections of an image where nothing was found."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.int64),
            candidates=np.zeros(0, np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What `predict` saw, so that a candidate can be computed again exactly.

    The affine maps stored-image pixels to the detector's input frame: x_in = scale[0] * x + offset[0],
    y_in = scale[1] * y + offset[1].

    Attributes:
        image_size: (height, width) of the stored image.
        input_size: (h, w) of the detector's input for this image.
        scale, offset: the affine, as (x, y).
        proposals: (P, 4) float32 frozen proposals in the input frame, for two-stage detectors.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)
    proposals: Floats | None = None

    def to_input(self, boxes: NDArray[Any]) -> Floats:
        """Map boxes (..., 4) from the stored image to the input frame."""
        return np.asarray(boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2), dtype=np.float32)

    def to_image(self, boxes: NDArray[Any]) -> Floats:
        """Map boxes (..., 4) from the input frame to the stored image."""
        return np.asarray((boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2), dtype=np.float32)

    def to_json(self) -> str:
        """Serialise; `from_json` gives an equal pin."""
        proposals = None
        if self.proposals is not None:
            raw = np.ascontiguousarray(self.proposals, dtype="<f4")
            proposals = base64.b64encode(raw.tobytes()).decode()
        return json.dumps(
            {
                "image_size": self.image_size,
                "input_size": self.input_size,
                "scale": self.scale,
                "offset": self.offset,
                "proposals": proposals,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Pin:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        proposals = raw["proposals"]
        if proposals is not None:
            proposals = np.frombuffer(base64.b64decode(proposals), dtype="<f4").reshape(-1, 4).copy()
        return cls(
            image_size=tuple(raw["image_size"]),
            input_size=tuple(raw["input_size"]),
            scale=tuple(raw["scale"]),
            offset=tuple(raw["offset"]),
            proposals=proposals,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A detector that worked in this workspace: its registry spec, weights' fingerprint and classes."""

    id: int
    spec: str
    fingerprint: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSet:
    """Stored detections of one image by one model, with the pin.

    Attributes:
        id: None before it is stored.
        run_id: the run that stored it; None before. Its configuration says down to which score was looked.
    """

    image_id: int
    model_id: int
    detections: Detections
    pin: Pin
    key: str
    id: int | None = None
    run_id: int | None = None


# ---------------------------------------------------------------- failures and successes


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """The scalar that is explained: one candidate's score for one class, frozen on the clean image.

    Attributes:
        candidate: index of the prediction before threshold and NMS.
        label: detector class (index into `ModelRecord.classes`).
        rule: how the candidate was chosen: "detection" (TP, FP), "matched" (FN rule a), "raw" (FN rule
            b), "best-iou" (FN rule c).
        score: the candidate's probability on the clean image.
        iou: IoU of the candidate's box with the ground truth (or with the detection's own box: 1).
    """

    candidate: int
    label: int
    rule: Literal["detection", "matched", "raw", "best-iou"]
    score: float
    iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A failure (FP, FN) or a success (TP) of one model on one mined image.

    Attributes:
        kind: "TP", "FP" or "FN".
        cause: one of FP_CAUSES or FN_CAUSES; None for TP.
        category: the ground truth's class for TP and FN, the detection's for FP.
        box: the ground truth's box for FN, the detection's for TP and FP.
        score: the detection's score (TP, FP) or the chosen candidate's (FN).
        iou: best IoU with ground truth (TP: with its match).
        annotation_id: the ground truth concerned, where there is one.
        detection_index: index within the image's `Detections`, None for FN.
    """

    image_id: int
    model_id: int
    kind: OutcomeKind
    cause: str | None
    category: str
    box: BoxTuple
    score: float
    iou: float
    target: TargetRecord
    annotation_id: int | None = None
    detection_index: int | None = None
    key: str = ""
    id: int | None = None


# ---------------------------------------------------------------- explanations


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Segments of one image in the detector's input frame.

    Attributes:
        labels: (h, w) uint16, 0..M-1, every label present.
        key: content key of (image, pin geometry, segmentation configuration).
    """

    image_id: int
    labels: NDArray[np.uint16]
    key: str
    id: int | None = None

    @property
    def count(self) -> int:
        """Number of segments M."""
        return int(self.labels.max()) + 1 if self.labels.size else 0


LOG_ODDS = "log_odds"
"""In a map's `extra`: its numbers are log-odds, not probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMap:
    """Signed attribution per segment, in units of the target.

    Attributes:
        phi: (M,) float32.
        full: F(1), the target on the clean image. empty: F(0), on the baseline.
        gap: F(1) - F(0) - sum(phi); never hidden by rescaling.
        passes: forward-equivalents spent (a backward counts one more forward).
        evidence: False when the map carries no evidence (max |phi| near 0): a result to report.
        extra: a method's further numbers, and `LOG_ODDS`.
    """

    phi: Floats
    full: float
    empty: float
    gap: float
    passes: int
    evidence: bool = True
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMap:
    """Attribution on a regular grid (pixel-, patch- and mask-shaped methods).

    Attributes:
        values: (h, w) float32 (stored as float16).
        scale, offset: grid cell (column, row) -> input frame: x = scale[0] * column + offset[0], the
            centre of the cell.
        full, empty, gap, passes, evidence, extra: as in `SegmentMap`; gap is nan where no
            completeness is claimed.
    """

    values: Floats
    scale: tuple[float, float]
    offset: tuple[float, float]
    full: float
    empty: float
    gap: float
    passes: int
    evidence: bool = True
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """A stored explanation of one outcome."""

    outcome_id: int
    method: str
    map: SegmentMap | GridMap
    key: str
    segmentation_id: int | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionKey:
    """Which attribution an outcome has, without its map. `evidence` as in the map."""

    id: int
    outcome_id: int
    method: str
    key: str
    evidence: bool
    segmentation_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Part of an image that an explanation singles out.

    Attributes:
        kind: "object" (the box itself), "support" (segments that raise the score), "culprit" (segments
            that lower it, or for a false positive those that raise it: what to blame).
        box: bounding box, stored-image pixels.
        segments: labels in the segmentation; () for "object".
        weight: sum of |phi| over the segments (object: 1).
    """

    attribution_id: int
    outcome_id: int
    image_id: int
    kind: RegionKind
    box: BoxTuple
    segments: tuple[int, ...]
    weight: float
    key: str
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures of one cause: the unit that queries and recipes work on.

    Attributes:
        name: e.g. "FN:miss:Car".
        outcome_ids: its failures. success_ids: true positives of the same class, to compare with.
    """

    name: str
    kind: OutcomeKind
    cause: str | None
    category: str
    outcome_ids: tuple[int, ...]
    success_ids: tuple[int, ...]


# ---------------------------------------------------------------- vectors, queries, selections


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOwner:
    """What a vector describes: a box of an image, perhaps a region or an outcome.

    Attributes:
        source: "candidate" (a detector's candidate box), "cell" (a grid cell), "outcome" (a failure's or
            success's box), "region", "image" (the whole of it).
        attribution_id: what blames the region, for "region". score: the candidate's score, 0 elsewhere.
        label: its class index or -1.
    """

    image_id: int
    box: BoxTuple
    source: Literal["candidate", "cell", "outcome", "region", "image"]
    outcome_id: int | None = None
    attribution_id: int | None = None
    score: float = 0.0
    label: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorBlock:
    """Vectors of one (embedder, view) with their owners.

    Attributes:
        ids: (N,) int64, the SQL ids, which are the FAISS ids.
        vectors: (N, D) float32.
    """

    ids: Ints
    vectors: Floats
    owners: tuple[VectorOwner, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A pool image that a query found.

    Attributes:
        outcome_id: the failure that asked for it. vector_id: the pool vector that answered.
        box: that vector's box in the pool image.
        score: the query's score, higher is better; comparable within one group.
    """

    rank: int
    image_id: int
    outcome_id: int | None
    vector_id: int | None
    group: str
    box: BoxTuple
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A named, budgeted choice of pool images; `hits` best first, one per image."""

    name: str
    arm: str
    hits: tuple[Hit, ...]
    config: Mapping[str, Any]
    key: str
    id: int | None = None

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The chosen images, best first."""
        return tuple(hit.image_id for hit in self.hits)


# ---------------------------------------------------------------- synthesis


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One gate check of one sample: its measure, its bound and the reason in words."""

    check: str
    accepted: bool
    value: float
    bound: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A synthetic image with its lineage.

    Attributes:
        blob: sha256 of the PNG in the blob store.
        recipe: name of the recipe. group: the failures it answers.
        scene_image_id: the image that was painted on. exemplar_image_id: where the exemplar came from.
        outcome_id: the failure that asked for it.
        painted: the painted box, stored-image pixels of the sample.
        annotations: the objects of the sample.
        number: of its plan; plans are worked off in this order.
        verdicts: () before the gate has judged.
    """

    name: str
    blob: str
    width: int
    height: int
    recipe: str
    group: str
    scene_image_id: int
    exemplar_image_id: int | None
    outcome_id: int | None
    painted: BoxTuple
    annotations: tuple[NewAnnotation, ...]
    seed: int
    key: str
    number: int = 0
    verdicts: tuple[Verdict, ...] = ()
    id: int | None = None

    @property
    def accepted(self) -> bool:
        """True when the gate has judged and every check passed."""
        return bool(self.verdicts) and all(verdict.accepted for verdict in self.verdicts)


# ---------------------------------------------------------------- versions, trials, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A frozen list of what was exported or trained on.

    Attributes:
        image_ids: original and selected images. sample_ids: accepted samples.
        manifest: JSON of the export's manifest.
    """

    name: str
    image_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    manifest: Mapping[str, Any]
    key: str
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One arm x one seed of a verification; `metrics` is plain JSON."""

    verification: str
    arm: str
    seed: int
    metrics: Mapping[str, Any]
    key: str
    id: int | None = None


RunStatus = Literal["running", "done", "partial", "failed", "interrupted"]
"""How a run stands: "partial" where some items failed, "interrupted" where it was stopped or killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One execution of a stage.

    Attributes:
        config_key: digest of all that changes its results but the items; "" where nothing reads by it.
        scope: what it is current for: a batch's name, a model's fingerprint, or "".
        aside: it only looks: no reader takes its results for the stage's.
        facts: what it has resolved, plain JSON.
    """

    id: int
    stage: str
    status: RunStatus
    config: Mapping[str, Any]
    seed: int | None
    code_version: str
    models: tuple[str, ...]
    parents: tuple[int, ...]
    started_at: datetime
    finished_at: datetime | None
    counts: Mapping[str, int]
    config_key: str = ""
    scope: str = ""
    aside: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemStatus:
    """What became of one item of a stage: the unit of resuming."""

    key: str
    status: Literal["done", "failed"]
    image_id: int | None = None
    message: str | None = None
