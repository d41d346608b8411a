"""What a detector answers: broken answers are refused by name, boxes without area left out and counted."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import curator
from curator.detect.black_box import BlackBox
from curator.detect.checking import predict_all, predict_each, usable
from curator.errors import InputError
from store.records import Detections, Pin

SIZE = (480, 640)
PIN = Pin(image_size=SIZE, input_size=SIZE, scale=(1.0, 1.0))
GOOD = [10.0, 10.0, 50.0, 50.0]
NAN = float("nan")


def found(boxes: Any, scores: Any = None, labels: Any = None) -> Detections:
    n = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([0.9 - 0.1 * i for i in range(n)] if scores is None else scores),
        labels=np.array([0] * n if labels is None else labels),
        candidates=np.arange(n),
    )


def checked(detections: Detections, threshold: float = 0.0) -> Any:
    return usable(detections, PIN, size=SIZE, classes=("a", "b"), score_threshold=threshold, who="mine:x")


def test_boxes_without_area_are_left_out_and_counted() -> None:
    """The first two are what our own SSD answered on photographs; the others lie outside or are slivers."""
    answer = checked(
        found(
            [
                [640, 480, 640, 480],
                [66.00, 140.79, 66.03, 140.79],
                GOOD,
                [700, 500, 800, 600],
                [-90, 20, -5, 60],
                [639.5, 10, 700, 60],
                [10, 10, 40, 10.9],
            ]
        )
    )
    assert answer.dropped == 6
    assert answer.clipped == 0
    assert answer.detections.boxes.tolist() == [GOOD]
    assert answer.detections.candidates.tolist() == [2]
    assert answer.detections.scores.tolist() == [pytest.approx(0.7)]


def test_what_reaches_beyond_the_image_is_clipped() -> None:
    answer = checked(found([[-50, -50, 900, 900], [-0.2, 10, 30, 480.3], GOOD]))
    assert answer.detections.boxes.tolist() == [[0, 0, 640, 480], [0, 10, 30, 480], GOOD]
    assert (answer.dropped, answer.clipped) == (0, 1)  # fractions of a pixel are rounding


def test_best_first_and_none_below_the_threshold() -> None:
    answer = checked(found([GOOD] * 4, [0.2, 0.04, 0.9, 0.05], [0, 1, 1, 0]), 0.05)
    assert answer.detections.scores.tolist() == [pytest.approx(s) for s in (0.9, 0.2, 0.05)]
    assert answer.detections.candidates.tolist() == [2, 0, 3]
    assert answer.dropped == 0  # a threshold is no fault


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (found([GOOD, [NAN] * 4]), r"box 1 \[nan, nan, nan, nan\].*finite"),
        (found([[0, 0, float("inf"), 9]]), "box 0 .*finite"),
        (found([GOOD, [60, 80, 20, 30]]), r"box 1 \[60, 80, 20, 30\].*x1 <= x2"),
        (found([GOOD], [1.2]), r"score 1\.2.*scores in \[0, 1\]"),
        (found([GOOD], [-0.1]), r"scores in \[0, 1\]"),
        (found([GOOD], [NAN]), "finite"),
        (found([GOOD], labels=[2]), "labels 0 to 1"),
        (found([GOOD], labels=[-1]), "labels 0 to 1"),
        (found([[60, 80, 20, 30]] * 5), r"box 0 .*box 1 .*box 2 .*and 2 more"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(detections: Detections, message: str) -> None:
    with pytest.raises(InputError, match=f"mine:x.*{message}"):
        checked(detections)


def test_scores_and_corners_may_err_by_rounding() -> None:
    answer = checked(found([[10, 10, 9.9999, 40], GOOD], [np.float32(1) + np.float32(1e-6), 1.0]))
    assert answer.dropped == 1
    assert answer.detections.scores.tolist() == [1.0]


def test_a_pin_of_another_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"pin of the image \(480, 640\)"):
        usable(
            found([GOOD]),
            Pin(image_size=(640, 480), input_size=SIZE, scale=(1.0, 1.0)),
            size=SIZE,
            classes=("a",),
            score_threshold=0,
            who="x",
        )


def box_of(images: list[Tensor], answers: dict[float, Any]) -> list[Any]:
    """By the image's first value."""
    return [answers[round(float(image[0, 0, 0]), 1)] for image in images]


def images_of(*values: float) -> list[Tensor]:
    return [torch.full((3, 60, 80), value) for value in values]


def test_one_broken_answer_does_not_concern_its_batch_mates() -> None:
    answers = {
        0.1: (np.array([GOOD]), np.array([0.5]), np.array([0])),
        0.2: (np.array([GOOD, [NAN] * 4]), np.array([0.5, NAN]), np.array([0, 0])),
        0.3: ([], [], []),
        0.4: ([GOOD], [0.5], [0]),
        0.5: (np.zeros((1, 5)), np.array([0.5]), np.array([0])),
        0.6: ([GOOD], [0.5], [0.5]),
        0.7: (torch.tensor([GOOD]), torch.tensor([0.5]), torch.tensor([0])),
        0.8: None,
    }
    box = BlackBox(lambda images: box_of(images, answers), ("a",), fingerprint="x", spec="mine:x")
    got = predict_each(box, images_of(*answers), score_threshold=0.1)
    assert [type(answer).__name__ for answer in got] == [
        "Answer",
        "InputError",
        "Answer",
        "Answer",
        "InputError",
        "InputError",
        "Answer",
        "InputError",
    ]
    assert [len(got[i].detections) for i in (0, 2, 3, 6)] == [1, 0, 1, 1]
    assert "box 1 [nan, nan, nan, nan]" in str(got[1])
    assert "(1, 5)" in str(got[4])
    assert "whole numbers as labels" in str(got[5])
    with pytest.raises(InputError, match="box 1"):
        predict_all(box, images_of(0.1, 0.2), score_threshold=0.1)


class Own:
    """A detector with a network, whose `predict` returns whatever it is told."""

    classes = ("a",)
    spec = "python:own"
    fingerprint, levels, mean_color = "own", (), (0.5, 0.5, 0.5)

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def modules(self) -> nn.Module:
        return nn.Identity()

    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> Any:
        return self._answer(images)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: [], "for each of 1 images, got 0"),
        (lambda images: None, "got NoneType"),
        (lambda images: [found([GOOD])] * len(images), r"\(Detections, Pin\)"),
        (lambda images: [(found([GOOD]), None)] * len(images), r"\(Detections, Pin\)"),
        (lambda images: [(found([[9, 9, 3, 3]]), PIN)] * len(images), "pin of the image|x1 <= x2"),
    ],
)
def test_answers_of_another_form_are_refused(answer: Any, message: str) -> None:
    got = predict_each(Own(answer), images_of(0.1, 0.2), score_threshold=0.1)  # type: ignore[arg-type]
    assert len(got) == 2
    for one in got:
        with pytest.raises(InputError, match=message):
            raise one if isinstance(one, Exception) else AssertionError(one)


def test_a_detector_that_raises_on_one_image_answers_on_the_others() -> None:
    def find(images: list[Tensor]) -> list[Any]:
        if any(float(image.mean()) > 0.45 for image in images):
            raise RuntimeError("out of luck")
        return [([GOOD], [0.5], [0])] * len(images)

    got = predict_each(BlackBox(find, ("a",), fingerprint="x"), images_of(0.1, 0.5, 0.2), score_threshold=0.1)
    assert isinstance(got[1], RuntimeError)
    assert [len(got[i].detections) for i in (0, 2)] == [1, 1]  # type: ignore[union-attr]
    assert predict_each(BlackBox(find, ("a",), fingerprint="x"), [], score_threshold=0.1) == []


def test_no_stage_asks_a_detector_past_the_checks() -> None:
    """Only `curator.detect` calls `predict` of a detector: every other file goes through `checking`."""
    root = Path(curator.__file__).parent
    past = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if path.parent != root / "detect"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "predict"
    ]
    assert past == []
