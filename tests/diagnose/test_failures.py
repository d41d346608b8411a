"""Matching and causes: hand-made cases, and agreement with hotcoco on generated boxes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.diagnose.causes import Criteria, diagnose_image, low_score
from curator.diagnose.metrics import average_precision, evaluate, precision_and_recall
from curator.errors import InputError
from curator.matching import ClassMap, GroundTruth, ImageResult, match
from store.records import FN_CAUSES, FP_CAUSES, Annotation, Detections, Outcome

CLASSES = ClassMap.resolve(("cat", "dog", "cow"), ("cat", "dog", "cow"), {})
OBJECT = (10.0, 10.0, 30.0, 30.0)


def annotation(
    number: int,
    box: tuple[float, float, float, float],
    category: str = "cat",
    *,
    crowd: bool = False,
    difficult: bool = False,
) -> Annotation:
    return Annotation(
        id=number,
        category_id=CLASSES.categories.index(category) + 1,
        category=category,
        box=box,
        crowd=crowd,
        difficult=difficult,
    )


def detections(*rows: tuple[tuple[float, float, float, float], float, str, int]) -> Detections:
    return Detections(
        boxes=np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        scores=np.array([r[1] for r in rows]),
        labels=np.array([CLASSES.categories.index(r[2]) for r in rows]),
        candidates=np.array([r[3] for r in rows]),
    )


def raw(
    *rows: tuple[tuple[float, float, float, float], tuple[float, float, float]],
) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32).reshape(-1, 3),
    )


def diagnose(
    found: Detections,
    annotations: list[Annotation],
    candidates: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    classes: ClassMap = CLASSES,
    low: float = 0.05,
) -> list[Outcome]:
    def ask() -> tuple[np.ndarray, np.ndarray]:
        assert candidates is not None, "raw candidates were asked for although nothing was missed"
        return candidates

    return diagnose_image(found, annotations, classes, Criteria(low_score=low), ask, image_id=1, model_id=1)


FAR = ((200.0, 200.0, 220.0, 220.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("box", "category", "cause"),
    [
        ((10, 10, 30, 18), "cat", "localisation"),
        ((11, 10, 31, 30), "dog", "classification"),
        ((11, 10, 31, 30), "cat", "duplicate"),
        ((10, 10, 30, 18), "dog", "both"),
        ((60, 60, 80, 80), "cat", "background"),
    ],
)
def test_false_positive_causes(box: tuple[float, float, float, float], category: str, cause: str) -> None:
    found = detections((OBJECT, 0.9, "cat", 3), (box, 0.8, category, 4))
    true, false = diagnose(found, [annotation(7, OBJECT)])
    assert (true.kind, true.cause, true.annotation_id, true.target.candidate) == ("TP", None, 7, 3)
    assert (false.kind, false.cause, false.target.rule, false.target.candidate) == (
        "FP",
        cause,
        "detection",
        4,
    )
    assert false.detection_index == 1
    assert (false.annotation_id is None) == (cause == "background")


@pytest.mark.parametrize(
    ("found", "candidates", "cause", "rule", "candidate"),
    [
        (detections(), raw((OBJECT, (0.3, 0, 0)), FAR), "under-threshold", "matched", 0),
        (
            detections((OBJECT, 0.9, "dog", 0)),
            raw((OBJECT, (0.3, 0.9, 0)), FAR),
            "misclassified",
            "matched",
            0,
        ),
        (
            detections(((10, 10, 30, 18), 0.9, "cat", 0)),
            raw(((10, 10, 30, 18), (0.9, 0, 0)), (OBJECT, (0.02, 0, 0))),
            "mislocalised",
            "raw",
            1,
        ),
        (
            detections(((10, 10, 30, 18), 0.9, "cat", 0)),
            raw(((10, 10, 30, 18), (0.9, 0, 0)), (OBJECT, (0.8, 0, 0))),
            "suppressed",
            "matched",
            1,
        ),
        (detections(), raw((OBJECT, (0.01, 0, 0)), (OBJECT, (0.03, 0, 0))), "miss", "raw", 1),
        (detections(), raw(FAR, ((10, 10, 30, 19), (0.01, 0, 0))), "miss", "best-iou", 1),
    ],
)
def test_missed_objects(
    found: Detections, candidates: tuple[np.ndarray, np.ndarray], cause: str, rule: str, candidate: int
) -> None:
    missed = [o for o in diagnose(found, [annotation(7, OBJECT)], candidates) if o.kind == "FN"]
    assert [(o.cause, o.target.rule, o.target.candidate, o.annotation_id) for o in missed] == [
        (cause, rule, candidate, 7)
    ]
    assert missed[0].score == missed[0].target.score == pytest.approx(float(candidates[1][candidate, 0]))


def test_a_neighbours_candidate_is_no_evidence() -> None:
    beside = (14.0, 10.0, 34.0, 30.0)  # IoU 2/3 with OBJECT
    found = detections((OBJECT, 0.9, "cat", 0))
    outcomes = diagnose(
        found,
        [annotation(1, OBJECT), annotation(2, beside)],
        raw((OBJECT, (0.9, 0, 0)), ((9, 10, 29, 30), (0.8, 0, 0)), (beside, (0.2, 0, 0))),
    )
    assert [(o.kind, o.cause, o.target.candidate) for o in outcomes] == [
        ("TP", None, 0),
        ("FN", "under-threshold", 2),
    ]


def test_boxes_decoded_per_class_are_read_at_their_class() -> None:
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[:, :] = FAR[0]
    boxes[1, 0] = OBJECT
    scores = np.array([[0.9, 0.9, 0], [0.4, 0, 0]], np.float32)
    (missed,) = diagnose(detections(), [annotation(1, OBJECT)], (boxes, scores))
    assert (missed.target.candidate, missed.cause, missed.target.iou) == (1, "under-threshold", 1.0)


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_crowd_and_difficult_neither_count_nor_punish(flag: str) -> None:
    inside = detections(((12, 12, 20, 20), 0.9, "cat", 0), ((13, 13, 21, 21), 0.8, "cat", 1))
    assert diagnose(inside, [annotation(1, OBJECT, **{flag: True})]) == []  # type: ignore[arg-type]
    other = diagnose(detections(((12, 12, 20, 20), 0.9, "dog", 0)), [annotation(1, OBJECT, **{flag: True})])  # type: ignore[arg-type]
    assert [o.cause for o in other] == ["background"]


def test_classes_are_mapped_by_name_then_case_and_strangers_are_named() -> None:
    classes = ClassMap.resolve(("car", "truck", "person"), ("Car", "Lorry", "Ambulance"), {"truck": "Lorry"})
    assert classes.of_label.tolist() == [0, 1, -1]
    assert (classes.dropped, classes.missing) == (("person",), ("Ambulance",))
    with pytest.raises(InputError, match="the detector has no class 'lorry'"):
        ClassMap.resolve(("car",), ("Car",), {"lorry": "Car"})
    with pytest.raises(InputError, match="the data set has no class 'Auto'"):
        ClassMap.resolve(("car",), ("Car",), {"car": "Auto"})


def test_objects_of_unknown_classes_are_no_misses_but_explain_confusion() -> None:
    classes = ClassMap.resolve(("cat",), ("cat", "dog", "cow"), {})
    found = Detections(
        boxes=np.array([OBJECT]), scores=np.array([0.9]), labels=np.array([0]), candidates=np.array([0])
    )
    (false,) = diagnose(found, [annotation(1, OBJECT, "dog")], classes=classes)
    assert (false.kind, false.cause, false.annotation_id) == ("FP", "classification", 1)


def test_low_score_is_a_quantile_below_half_the_threshold() -> None:
    assert low_score(np.linspace(0, 0.1, 1001), 0.5) == pytest.approx(0.0999, abs=1e-6)
    assert low_score(np.full(10, 0.9), 0.5) == 0.25
    assert low_score(np.zeros(0), 0.5) == 0.01


# ------------------------------------------------------------ agreement with hotcoco


@st.composite
def scenes(draw: st.DrawFn) -> list[ImageResult]:
    """Few distinct coordinates and scores, so that ties, duplicates and exact thresholds are common."""
    grid = st.integers(0, 6).map(lambda v: v * 8.0)
    side = st.integers(1, 4).map(lambda v: v * 8.0)
    box = st.tuples(grid, grid, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    score = st.sampled_from([0.3, 0.5, 0.75, 0.875, 1.0])
    images = []
    for _ in range(draw(st.integers(1, 3))):
        objects = draw(st.lists(st.tuples(box, st.integers(0, 2), st.booleans()), max_size=5))
        found = draw(st.lists(st.tuples(box, st.integers(0, 2), score), max_size=8))
        truth = GroundTruth(
            np.array([o[0] for o in objects], float).reshape(-1, 4),
            np.array([o[1] for o in objects], np.int64),
            np.array([o[2] for o in objects], bool),
            np.arange(len(objects)),
        )
        images.append(
            ImageResult(
                truth,
                np.array([f[0] for f in found], float).reshape(-1, 4),
                np.array([f[2] for f in found], float),
                np.array([f[1] for f in found], np.int64),
            )
        )
    return images


def outcomes_of(images: list[ImageResult]) -> list[Outcome]:
    outcomes = []
    for number, image in enumerate(images):
        objects = [
            annotation(i + 1, tuple(box), CLASSES.categories[c], crowd=bool(crowd))
            for i, (box, c, crowd) in enumerate(
                zip(image.truth.boxes, image.truth.classes, image.truth.ignored, strict=True)
            )
        ]
        found = Detections(
            boxes=image.boxes,
            scores=image.scores,
            labels=image.classes,
            candidates=np.arange(len(image.scores)),
        )
        candidates = (
            np.concatenate([image.boxes, [FAR[0]]]).astype(np.float32),
            np.zeros((len(image.scores) + 1, 3), np.float32),
        )
        outcomes += diagnose_image(
            found,
            objects,
            CLASSES,
            Criteria(),
            lambda: candidates,  # noqa: B023
            image_id=number,
            model_id=1,
        )
    return outcomes


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_counts_and_causes_equal_hotcocos(images: list[ImageResult]) -> None:
    outcomes = outcomes_of(images)
    theirs = evaluate(images, CLASSES.categories, score_threshold=0.5)
    ours = {
        name: tuple(
            sum(o.kind == kind and o.category == name for o in outcomes) for kind in ("TP", "FP", "FN")
        )
        for name in CLASSES.categories
    }
    assert ours == theirs.counts
    causes = Counter(o.cause for o in outcomes if o.kind == "FP")
    assert {cause: causes[cause] for cause in FP_CAUSES} == {
        cause: theirs.tide_counts[cause] for cause in FP_CAUSES
    }
    assert all(o.cause in FN_CAUSES for o in outcomes if o.kind == "FN")


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_matching_is_one_to_one_within_a_class(images: list[ImageResult]) -> None:
    for image in images:
        matching = match(image.boxes, image.scores, image.classes, image.truth, iou_threshold=0.5)
        found = np.flatnonzero(matching.truth >= 0)
        assert (matching.found_by[matching.truth[found]] == found).all()
        assert (image.truth.classes[matching.truth[found]] == image.classes[found]).all()
        assert not (matching.left_out & (matching.truth >= 0)).any()


def test_precision_and_recall_are_means_over_the_overlaps() -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(12):
        corners = rng.uniform(0, 80, (4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 20, (4, 2))], 1)
        known = GroundTruth(boxes, rng.integers(0, 2, 4), np.zeros(4, bool), np.arange(4) + 10 * number)
        moved = np.concatenate([boxes + rng.normal(0, 1.5, boxes.shape), boxes[:1] + 40])
        images.append(ImageResult(known, moved, rng.uniform(0, 1, 5), np.append(known.classes, 1)))
    overlaps = np.linspace(0.5, 0.95, 10)
    found = precision_and_recall(images, CLASSES.categories)
    assert set(found) == {"cat", "dog"}
    for name, (precision, recall) in found.items():
        one_by_one = [average_precision(images, CLASSES.categories, iou_threshold=t)[name] for t in overlaps]
        assert precision == pytest.approx(np.mean(one_by_one))
        label = CLASSES.categories.index(name)
        hits = [
            match(i.boxes, i.scores, i.classes, i.truth, iou_threshold=t).found_by[i.truth.classes == label]
            for t in overlaps
            for i in images
        ]
        assert recall == pytest.approx((np.concatenate(hits) >= 0).mean())


def test_average_precision_by_hand() -> None:
    truth = GroundTruth(
        np.array([OBJECT, (50, 50, 70, 70)]), np.array([0, 0]), np.zeros(2, bool), np.arange(2)
    )
    image = ImageResult(
        truth,
        np.array([OBJECT, (80, 80, 90, 90), (50, 50, 70, 70)]),
        np.array([0.9, 0.8, 0.7]),
        np.array([0, 0, 0]),
    )
    # precision 1 up to recall 0.5 (51 of 101 points), 2/3 beyond
    assert average_precision([image], CLASSES.categories) == {"cat": pytest.approx((51 + 50 * 2 / 3) / 101)}
