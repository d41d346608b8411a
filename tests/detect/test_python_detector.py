"""`python:` specs: clear errors."""

from __future__ import annotations

import pytest
import torch

from curator.detect.black_box import BlackBox
from curator.detect.black_box import build as build_black_box
from curator.detect.python import build
from curator.errors import InputError, RegistryError
from curator.registry import Spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python:nothing", "expected python:package.module:factory"),
        ("python:no_such_package.mine:build", "no module 'no_such_package'"),
        ("python:own_detector:missing", "has no 'missing'"),
    ],
)
def test_unknown_factories(text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        build(Spec.parse(text))


def test_all_problems_are_named() -> None:
    with pytest.raises(
        InputError, match=r"lacks the method predict.*lacks the method modules.*fingerprint.*mean_color"
    ):
        build(Spec.parse("python:own_detector:incomplete"))


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="does not take the options"):
        build(Spec.parse("python:own_detector:build?colour=red"))


def test_a_detector_that_only_predicts_is_a_black_box() -> None:
    box = build(Spec.parse("python:own_detector:blind"))
    assert isinstance(box, BlackBox)
    assert box.spec == "python:own_detector:blind"
    same = build_black_box(Spec.parse("blackbox:python:own_detector:build?names=x,y"))
    open_one = build(Spec.parse("python:own_detector:build?names=x,y"))
    assert len({box.fingerprint, same.fingerprint, open_one.fingerprint}) == 3
    image = torch.rand(3, 100, 140, generator=torch.Generator().manual_seed(0))
    expected, _ = open_one.predict([image], score_threshold=0.4)[0]
    assert len(expected) > 0
    for detector in (box, same):
        found, pin = detector.predict([image], score_threshold=0.4)[0]
        assert (found.boxes == expected.boxes).all()
        assert (found.scores == expected.scores).all()
        assert found.candidates.tolist() == list(range(len(found)))
        got = detector.candidates(detector.prepare(image, pin)[None], pin)
        assert got.scores[0, len(found) - 1].max() == pytest.approx(float(found.scores[-1]))
        assert got.scores[0, -1].max() == 0  # nothing found, the last candidate
        assert got.boxes[0, -1].tolist() == [0, 0, 140, 100]
        assert got.log_odds is None
