"""A user's own detector, as `python:own_detector:build` finds it: the small SSD, wrapped."""

from __future__ import annotations

from curator.detect.small_ssd import SsdOptions, make_detector
from curator.detect.ssd import SsdDetector


def build(names: str) -> SsdDetector:
    return make_detector(SsdOptions(classes=tuple(names.split(",")), size=128, anchors=(16, 32, 64, 100)))


class Incomplete:
    classes = ("a",)
    fingerprint = ""
    levels = ()
    mean_color = (0.5, 0.5, 2.0)

    def to(self, device: object) -> Incomplete:
        return self


def incomplete() -> Incomplete:
    return Incomplete()


class Blind:
    """A detector whose network lies elsewhere: it only predicts."""

    def __init__(self) -> None:
        inner = build("x,y")
        self.classes, self.levels, self.mean_color = inner.classes, (), inner.mean_color
        self.fingerprint = "elsewhere, 1st version"
        self.predict, self.prepare, self.candidates = inner.predict, inner.prepare, inner.candidates

    def to(self, device: object) -> Blind:
        return self

    def modules(self) -> None:
        return None


def blind() -> Blind:
    return Blind()
