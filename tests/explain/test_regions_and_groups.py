"""Regions from attributions, and groups of outcomes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from curator.diagnose.groups import group_outcomes
from curator.explain.regions import adjacent_pairs, choose_segments, components, find_regions, segment_boxes
from store.records import Outcome, Pin, SegmentMap, TargetRecord

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import blocks

LABELS = blocks(40, 60, 4, 6)  # blocks of 10 x 10 px; label = 6 row + column
PIN = Pin(image_size=(80, 240), input_size=(40, 60), scale=(0.25, 0.5))
BOX = (1.0, 2.0, 30.0, 40.0)


def explained(values: dict[int, float], *, evidence: bool = True) -> SegmentMap:
    phi = np.zeros(24, np.float32)
    for label, value in values.items():
        phi[label] = value
    return SegmentMap(phi=phi, full=0.5, empty=0.0, gap=0.0, passes=2, evidence=evidence)


def test_a_missed_object_has_support_and_culprit_in_the_stored_frame():
    phi = explained({0: 0.2, 1: 0.2, 9: -0.3, 15: -0.3, 23: -0.001})
    found = find_regions(LABELS, phi, PIN, kind="FN", box=BOX)
    assert [region.kind for region in found] == ["object", "support", "culprit"]
    assert found[0].box == BOX
    assert found[0].segments == ()
    assert found[1].segments == (0,)  # one of two equal segments holds half of the mass
    assert found[2].segments == (9,)
    assert found[2].box == (120.0, 20.0, 160.0, 40.0)  # column 3, row 1 through the pin
    assert found[2].weight == pytest.approx(0.3)


def test_touching_segments_form_one_region_and_the_rest_others():
    found = find_regions(LABELS, explained({0: 0.3, 1: 0.3, 16: 0.3, 20: 0.01}), PIN, kind="TP", box=BOX)
    regions = [region for region in found if region.kind == "support"]
    assert [region.segments for region in regions] == [(0, 1)]
    phi = explained({0: 0.3, 8: 0.31, 16: 0.32, 23: 0.33, 20: 0.02})
    wide = find_regions(LABELS, phi, PIN, kind="TP", box=BOX)
    assert [region.segments for region in wide[1:]] == [(23,), (16,)]


def test_each_kind_of_outcome_blames_the_right_sign():
    phi = explained({0: 0.4, 9: -0.4})
    kinds = {
        kind: [(r.kind, r.segments) for r in find_regions(LABELS, phi, PIN, kind=kind, box=BOX)[1:]]
        for kind in ("TP", "FN", "FP")
    }
    assert kinds == {
        "TP": [("support", (0,))],
        "FN": [("support", (0,)), ("culprit", (9,))],
        "FP": [("culprit", (0,))],
    }


def test_no_negative_segments_no_culprit_and_no_evidence_no_region():
    positive = find_regions(LABELS, explained({0: 0.4}), PIN, kind="FN", box=BOX)
    assert [region.kind for region in positive] == ["object", "support"]
    silent = find_regions(LABELS, explained({0: 1e-6}, evidence=False), PIN, kind="FN", box=BOX)
    assert [region.kind for region in silent] == ["object"]


def test_padding_is_never_a_region():
    labels = np.zeros((10, 10), np.uint16)
    labels[5:] = 1
    pin = Pin(image_size=(5, 10), input_size=(10, 10), scale=(1.0, 1.0))
    phi = SegmentMap(phi=np.array([0.1, 0.9], np.float32), full=1, empty=0, gap=0, passes=2)
    assert [region.kind for region in find_regions(labels, phi, pin, kind="TP", box=BOX)] == ["object"]


def test_segments_are_chosen_by_density_until_half_of_the_mass():
    labels = np.array([[0, 0, 0, 0, 1, 2, 2, 3]], np.uint16)
    phi = np.array([0.4, 0.3, 0.3, -1.0], np.float32)
    np.testing.assert_array_equal(choose_segments(labels, phi, 1), [1, 2])  # densities .1, .3, .15
    np.testing.assert_array_equal(choose_segments(labels, phi, -1), [3])
    assert len(choose_segments(labels, np.zeros(4, np.float32), 1)) == 0


def test_geometry_of_labels():
    labels = np.array([[0, 0, 1], [2, 2, 1]], np.uint16)
    np.testing.assert_array_equal(segment_boxes(labels), [[0, 0, 2, 1], [2, 0, 3, 2], [0, 1, 2, 2]])
    pairs = {tuple(sorted(pair)) for pair in adjacent_pairs(labels).tolist()}
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    split = components(np.array([0, 3, 4]), np.array([[0, 1], [3, 4], [1, 3]]))
    assert [part.tolist() for part in split] == [[0], [3, 4]]


def test_groups_hold_failures_of_one_cause_beside_the_successes_of_their_class():
    def outcome(number, kind, cause, category):
        target = TargetRecord(candidate=0, label=0, rule="detection", score=0.5, iou=1.0)
        return Outcome(
            image_id=1,
            model_id=1,
            kind=kind,
            cause=cause,
            category=category,
            box=BOX,
            score=0.5,
            iou=0.5,
            target=target,
            id=number,
        )

    groups = group_outcomes(
        [
            outcome(5, "FN", "miss", "car"),
            outcome(2, "FN", "miss", "car"),
            outcome(4, "TP", None, "car"),
            outcome(3, "FP", "background", "car"),
            outcome(6, "TP", None, "bus"),
            outcome(7, "FN", "miss", "bus"),
        ]
    )
    assert [group.name for group in groups] == ["FN:miss:bus", "FN:miss:car", "FP:background:car"]
    assert groups[1].outcome_ids == (2, 5)
