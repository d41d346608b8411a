"""Labels that more likely are wrong than the detector: planted ones are found, sound ones are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from curator import pipeline
from curator.boxes import iou
from curator.cli import app
from curator.diagnose import run_suspects
from curator.diagnose.settings import DiagnoseConfig, SuspectsConfig
from curator.diagnose.suspect_evidence import Looked
from curator.diagnose.suspect_list import Verdict, left_out, standing
from curator.diagnose.suspect_mistakes import DOUBLED, MISTAKES, SHIFTED, mistaken, moved
from curator.diagnose.suspect_scale import FEWEST, scale_of, scaled
from curator.diagnose.suspects import OF_LABELS, Judged, judge
from curator.errors import ConfigError, InputError
from curator.jobs.stage import StageResult
from curator.matching import GroundTruth
from curator.query.settings import IndexConfig, QueryConfig
from store.records import Outcome, TargetRecord
from store.store import Store
from tests.diagnose.mislabelled import CLASSES, KINDS, Planted, make_mislabelled, mislabelled


@pytest.fixture(scope="module")
def planted() -> list[Planted]:
    return mislabelled(150, rate=0.06)


@pytest.fixture(scope="module")
def judged(planted: list[Planted]) -> Judged:
    return judge([one.image for one in planted], len(CLASSES))


def by_label(planted: list[Planted], judged: Judged) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probability of each label, whether it was planted, and the kind that is told of it."""
    p, wrong, kinds = [], [], []
    for one, own in zip(planted, judged.images, strict=True):
        for row, g in enumerate(own.evidence.label_index):
            box = one.image.result.truth.boxes[g]
            p.append(own.labels[row].sum())
            wrong.append(any(np.allclose(box, bad) for kind, bad in one.errors if kind != "missing label"))
            kinds.append(OF_LABELS[int(own.labels[row].argmax())])
    return np.array(p), np.array(wrong), kinds


def by_place(planted: list[Planted], judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each unmatched detection, and whether a label was dropped there."""
    p, wrong = [], []
    for one, own in zip(planted, judged.images, strict=True):
        for row, i in enumerate(own.evidence.place_index):
            gone = [np.array(box) for kind, box in one.errors if kind == "missing label"]
            here = one.image.result.boxes[i][None]
            p.append(own.places[row])
            wrong.append(any(iou(here, box[None])[0, 0] > 0.5 for box in gone))
    return np.array(p), np.array(wrong)


def test_planted_errors_are_above_one_half_and_sound_labels_below(
    planted: list[Planted], judged: Judged
) -> None:
    p, wrong, _ = by_label(planted, judged)
    assert (p[wrong] >= 0.5).mean() > 0.3  # some are shifted or doubled by a few pixels only
    assert (p[~wrong] >= 0.5).mean() < 0.01
    assert average_precision_score(wrong, p) > 0.7
    p, wrong = by_place(planted, judged)
    assert wrong.sum() > 5
    assert (p[wrong] >= 0.5).mean() > 0.4
    assert (p[~wrong] >= 0.5).mean() < 0.05


def test_the_kind_of_error_is_told(planted: list[Planted], judged: Judged) -> None:
    right = total = 0
    for one, own in zip(planted, judged.images, strict=True):
        for row, g in enumerate(own.evidence.label_index):
            box = one.image.result.truth.boxes[g]
            kind = next((kind for kind, bad in one.errors if np.allclose(box, bad)), None)
            if kind in ("wrong class", "shifted box") and own.labels[row].sum() >= 0.5:
                total += 1
                right += OF_LABELS[int(own.labels[row].argmax())] == kind
    assert total > 5
    assert right / total > 0.8


def test_probabilities_add_up_to_about_the_number_of_errors(planted: list[Planted], judged: Judged) -> None:
    p, wrong, _ = by_label(planted, judged)
    assert 0.5 < p.sum() / wrong.sum() < 1.6
    told = judge([one.image for one in planted], len(CLASSES), rate=0.12)
    assert sum(told.rates.values()) == pytest.approx(0.12)
    assert by_label(planted, told)[0].sum() > p.sum()
    assert all(0 <= one.any <= 1 for one in told.images)
    clean = mislabelled(100, rate=0.0, seed=1)
    few = judge([one.image for one in clean], len(CLASSES))
    assert sum(few.rates.values()) < sum(judged.rates.values()) / 2
    assert (by_label(clean, few)[0] >= 0.5).sum() <= 3


def test_the_same_whatever_the_order_and_by_seed(planted: list[Planted], judged: Judged) -> None:
    images = [one.image for one in planted]
    again, backwards = judge(images, len(CLASSES)), judge(images[::-1], len(CLASSES))
    for one, same, other in zip(judged.images, again.images, backwards.images[::-1], strict=True):
        assert np.array_equal(one.labels, same.labels)
        np.testing.assert_allclose(one.labels, other.labels, atol=1e-4)
        np.testing.assert_allclose(one.places, other.places, atol=1e-4)
    other = judge(images, len(CLASSES), seed=1)
    assert not np.array_equal(other.images[0].labels, judged.images[0].labels)


def test_more_is_found_than_by_cleanlab(planted: list[Planted], judged: Judged) -> None:
    rank = pytest.importorskip("cleanlab.object_detection.rank")
    labels, predictions = [], []
    for one in planted:
        r = one.image.result
        labels.append({"bboxes": r.truth.boxes, "labels": r.truth.classes})
        own = np.empty(len(CLASSES), object)
        for k in range(len(CLASSES)):
            own[k] = np.column_stack([r.boxes[r.classes == k], r.scores[r.classes == k]])
        predictions.append(own)
    theirs = rank.get_label_quality_scores(labels, predictions, verbose=False)
    wrong = np.array([bool(one.errors) for one in planted])
    ours = np.array([one.any for one in judged.images])
    assert average_precision_score(wrong, ours) > average_precision_score(wrong, -theirs)


@pytest.mark.parametrize("wanted", [SHIFTED, DOUBLED])
def test_moved_boxes_overlap_as_wanted(wanted: tuple[float, float]) -> None:
    draw = np.random.default_rng(0)
    box = np.array([20.0, 30.0, 80.0, 70.0])
    found = [float(iou(box[None], moved(box, (120, 160), wanted, draw)[None])[0, 0]) for _ in range(40)]
    assert wanted[0] - 0.03 < min(found) < max(found) < wanted[1] + 0.03
    assert np.std(found) > 0.05


def test_mistakes_change_what_they_say(planted: list[Planted]) -> None:
    images = [one.image for one in planted]
    seen = set()
    for one in mistaken(images, len(CLASSES), rate=0.2, seed=3):
        before, after = images[one.number].result.truth, one.image.result.truth
        kinds = [made.kind for made in one.made]
        seen.update(kinds)
        more = kinds.count("duplicate box") + kinds.count("spurious label") - kinds.count("missing label")
        assert len(after.boxes) == len(before.boxes) + more
        for made in one.made:
            if made.kind == "wrong class":
                at = np.flatnonzero(before.ids == after.ids[made.label])[0]
                assert before.classes[at] != after.classes[made.label]
            if made.kind == "spurious label":
                assert iou(after.boxes[made.label][None], before.boxes).max() < 0.1
    assert seen == set(MISTAKES) == set(KINDS)


# ---------------------------------------------------------------- little to judge by


def without_labels(image: Looked) -> Looked:
    nothing = GroundTruth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.int64))
    return replace(image, result=replace(image.result, truth=nothing))


def test_no_labels_and_no_success_are_told_in_one_line(planted: list[Planted]) -> None:
    with pytest.raises(InputError, match="expected labelled objects"):
        judge([without_labels(one.image) for one in planted[:5]], len(CLASSES))
    blind = [
        replace(one.image, result=replace(one.image.result, scores=one.image.result.scores[:0],
                                          boxes=one.image.result.boxes[:0], classes=np.zeros(0, np.int64)))
        for one in planted[:5]
    ]  # fmt: skip
    with pytest.raises(InputError, match="finds none of the labelled objects"):
        judge(blind, len(CLASSES))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_images_are_judged_carefully(planted: list[Planted], count: int) -> None:
    clean = mislabelled(count, rate=0.0, seed=3)
    found = judge([one.image for one in clean], len(CLASSES))
    for one in found.images:
        assert np.isfinite(one.labels).all()
        assert ((one.labels >= 0) & (one.labels.sum(1, keepdims=True) <= 1 + 1e-9)).all()
        assert 0 <= one.any <= 1
    mixed = [without_labels(clean[0].image), *(one.image for one in mislabelled(3, seed=4))]
    assert len(judge(mixed, len(CLASSES)).images) == 4


def test_one_class_has_no_wrong_classes() -> None:
    images = []
    for one in mislabelled(20, rate=0.0):
        r = one.image.result
        truth = replace_classes(r.truth)
        images.append(replace(one.image, result=replace(r, truth=truth, classes=np.zeros_like(r.classes))))
    found = judge(images, 1)
    assert found.made["wrong class"] == 0
    assert found.rates["wrong class"] == 0
    assert all((one.labels[:, 0] == 0).all() for one in found.images)


def replace_classes(truth: GroundTruth) -> GroundTruth:
    return GroundTruth(truth.boxes, np.zeros_like(truth.classes), truth.ignored, truth.ids)


# ---------------------------------------------------------------- verdicts


def failure(number: int, kind: str, box: tuple[float, float, float, float], category: str = "a") -> Outcome:
    return Outcome(
        image_id=1,
        model_id=1,
        kind=kind,  # type: ignore[arg-type]
        cause="miss",
        category=category,
        box=box,
        score=0.5,
        iou=0.0,
        target=TargetRecord(candidate=0, label=0, rule="raw", score=0.5, iou=0.0),
        id=number,
    )


def test_verdicts_hold_for_other_detectors_at_the_same_box() -> None:
    box, beside = (10.0, 10.0, 50.0, 50.0), (12.0, 10.0, 52.0, 50.0)
    swapped = Verdict(
        image_id=1, box=box, kind="wrong class", category="a", wrong=True, failures=(("FP", "b", box),)
    )
    miss, seen, other = failure(1, "FN", box), failure(2, "FP", beside, "b"), failure(3, "FP", beside, "c")
    assert left_out([miss, seen, other], [], [swapped]) == ({1, 2}, set())
    assert left_out([miss, seen, other], [1, 3], [replace(swapped, wrong=False)]) == (set(), {3})
    assert left_out([miss, seen, other], [1, 3], []) == (set(), {1, 3})
    mended = [failure(4, "FN", box, "b"), failure(5, "FN", beside)]
    assert left_out(mended, [], [swapped]) == (set(), set())
    gone = Verdict(image_id=1, box=box, kind="missing label", category="b", wrong=True,
                   failures=(("FP", "b", box),))  # fmt: skip
    assert left_out([miss, seen, other], [], [gone]) == ({2}, set())
    cleared = replace(gone, box=beside, wrong=False)
    assert left_out([seen], [2], [cleared, gone]) == (set(), set())  # the newest word counts
    assert left_out([seen], [2], [gone, cleared]) == ({2}, set())
    assert standing([swapped, gone], {1: [("a", box)]}) == [swapped, gone]
    assert standing([swapped, gone], {1: [("b", box)]}) == []  # the class was corrected, the label added
    assert standing([swapped], {1: [("a", beside)]}) == []  # the box was
    assert standing([cleared], {}) == [cleared]
    assert not gone.about(swapped)
    assert gone.about(replace(gone, box=beside))


# ---------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suspects")
    workspace = make_mislabelled(folder, mislabelled(60, rate=0.08, seed=2), pool=12)
    with Store.open(workspace) as store:
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
        pipeline.index(store, IndexConfig(device="cpu", candidates=6, windows=4))
    return workspace


@pytest.fixture
def store(diagnosed: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(diagnosed, tmp_path / "ws")
    with Store.open(tmp_path / "ws") as opened:
        yield opened


def ask(store: Store, **options: object) -> StageResult:
    return pipeline.query(store, QueryConfig(budget=4, **options))  # type: ignore[arg-type]


def test_a_query_leaves_suspects_out_only_where_they_were_listed(store: Store) -> None:
    before = ask(store)
    plain = store.selection("query")
    assert before.summary["left_out"] is None
    assert ask(store, keep_suspects=True).skipped == 1
    listed = pipeline.suspects(store, SuspectsConfig()).summary
    gone = {i for own in listed["suspects"] for i in own["failures"]}
    failures = {o.id for o in store.outcomes() if o.kind != "TP"}
    assert 3 <= len(gone) < len(failures)
    assert gone <= failures
    after = ask(store)
    assert (after.done, after.skipped) == (1, 0)
    line = f"{len(gone)} of {len(failures)} failures look like label errors and were left out"
    assert line in after.summary["left_out"]
    assert after.summary["asking"]["failures"] == len(failures) - len(gone)
    assert not {hit["outcome"] for hit in after.summary["hits"]} & gone
    assert ask(store).skipped == 1
    kept = ask(store, keep_suspects=True)
    assert kept.summary["left_out"] is None
    assert kept.summary["hits"] == before.summary["hits"]
    assert store.selection("query").key == plain.key
    drawn = ask(store, method="random", name="drawn")
    assert line in drawn.summary["left_out"]
    assert line in ask(store, preview=True).summary["left_out"]


def test_suspects_are_found_again_and_follow_the_diagnosis(store: Store) -> None:
    first = pipeline.suspects(store, SuspectsConfig())
    assert pipeline.suspects(store, SuspectsConfig()).skipped == 1
    higher = pipeline.suspects(store, SuspectsConfig(minimum=0.9))
    assert higher.done == 1
    assert len(higher.summary["suspects"]) < len(first.summary["suspects"])
    again = pipeline.suspects(store, SuspectsConfig())
    assert again.skipped == 1
    assert again.summary == first.summary
    left = ask(store).summary["left_out"]
    pipeline.diagnose(store, DiagnoseConfig(device="cpu", score_threshold=0.7))
    pipeline.index(store, IndexConfig(device="cpu", candidates=6, windows=4))
    other = ask(store).summary
    assert other["left_out"] is None
    assert any("judged another diagnosis" in warning for warning in other["warnings"])
    pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    assert ask(store).summary["left_out"] == left


def test_what_people_say_counts_and_stays(store: Store) -> None:
    listed = pipeline.suspects(store, SuspectsConfig()).summary["suspects"]
    one, two = [own for own in listed if own["failures"]][:2]
    said = pipeline.suspects(store, SuspectsConfig(confirm=(one["id"],), clear=(two["id"],)))
    verdicts = {own["id"]: own["verdict"] for own in said.summary["suspects"]}
    assert (verdicts[one["id"]], verdicts[two["id"]]) == ("confirmed", "cleared")
    total = sum(o.kind != "TP" for o in store.outcomes())

    def count(line: str | None) -> int:
        return 0 if line is None else int(line.split()[0])

    gone = {i for own in listed for i in own["failures"]}
    assert count(ask(store).summary["left_out"]) == len(gone - set(two["failures"]))
    kept = ask(store, keep_suspects=True).summary
    assert count(kept["left_out"]) == len(one["failures"])
    assert kept["asking"]["failures"] == total - len(one["failures"])
    pipeline.suspects(store, SuspectsConfig(minimum=0.6, seed=1))
    assert count(ask(store, keep_suspects=True).summary["left_out"]) == len(one["failures"])
    pipeline.suspects(store, SuspectsConfig())
    pipeline.suspects(store, SuspectsConfig(clear=(one["id"],)))
    assert ask(store, keep_suspects=True).summary["left_out"] is None
    assert count(ask(store).summary["left_out"]) == len(gone - set(one["failures"]) - set(two["failures"]))


def test_verdicts_set_the_scale(store: Store) -> None:
    """Nine of ten suspects cleared: the others are less likely too, at once and for queries."""
    before = pipeline.suspects(store, SuspectsConfig()).summary
    ids = [own["id"] for own in before["suspects"]]
    assert len(ids) > 12
    assert before["scale"] == 1.0
    few = pipeline.suspects(store, SuspectsConfig(clear=tuple(ids[: FEWEST - 1]))).summary
    assert few["scale"] == 1.0
    rest = SuspectsConfig(confirm=(ids[9],), clear=tuple(ids[FEWEST - 1 : 9]))
    many = pipeline.suspects(store, rest).summary
    assert many["scale"] < 0.5
    assert "10 verdicts tell (1 confirmed)" in many["notes"][-1]
    now = {own["id"]: own["probability"] for own in many["suspects"]}
    assert set(ids[:10]) <= set(now) <= set(ids)  # what was spoken of stays in the list
    old = {own["id"]: own["probability"] for own in before["suspects"]}
    for i, p in now.items():
        assert p / (1 - p) == pytest.approx(many["scale"] * old[i] / (1 - old[i]), rel=1e-6)
    assert pipeline.suspects(store, SuspectsConfig()).summary["suspects"] == many["suspects"]
    gone = {i for own in many["suspects"] if own["verdict"] != "cleared" for i in own["failures"]}
    assert int((ask(store).summary["left_out"] or "0").split()[0]) == len(gone)
    assert many["suspects_found"] == sum(own["probability"] >= 0.5 for own in many["suspects"])
    told = pipeline.suspects(store, SuspectsConfig(rate=0.05)).summary
    assert told["scale"] == 1.0


def test_weak_suspects_hide_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What verdicts might raise is kept below the minimum; what is shown is as if it were not kept."""
    shown = pipeline.suspects(store, SuspectsConfig()).summary["suspects"]
    monkeypatch.setattr(run_suspects, "ROOM", 1.0)
    alone = pipeline.suspects(store, SuspectsConfig(minimum=0.5 + 1e-9)).summary["suspects"]
    assert [(own["id"], own["kind"]) for own in shown] == [(own["id"], own["kind"]) for own in alone]


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 4.0])
def test_the_scale_is_found_again(factor: float) -> None:
    """Labels that are wrong as often as scaled probabilities say: two thousand verdicts tell by how much."""
    draw = np.random.default_rng(3)
    p = draw.uniform(0.05, 0.95, 2000)
    wrong = draw.random(2000) < [scaled(float(value), factor) for value in p]
    assert scale_of(list(zip(p.tolist(), wrong.tolist(), strict=True))) == pytest.approx(factor, rel=0.2)
    assert scale_of([(0.9, False)] * (FEWEST - 1)) == 1.0
    assert scaled(scaled(0.3, factor), 1 / factor) == pytest.approx(0.3)


def test_the_command_lists_and_judges(store: Store) -> None:
    def curator(*words: str) -> str:
        result = CliRunner().invoke(app, ["-q", "-w", str(store.path), *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    plain = json.loads(curator("suspects", "--json"))
    first = plain["suspects"][0]
    assert first["kind"] in MISTAKES
    assert 0.5 <= first["probability"] <= 1
    text = curator("suspects")
    assert f"{len(plain['suspects'])} suspected label errors of probability 0.5 or more" in text
    assert first["why"] in text
    assert "note: " in text
    page = store.path / "report.html"
    curator("report", "--out", str(page))
    shown = page.read_text(encoding="utf-8")
    assert "Labels that look wrong, " in shown
    assert escape(first["why"]) in shown
    assert "[confirmed]" in curator("suspects", "--confirm", str(first["id"]))
    assert "were left out; see curator suspects" in curator("query", "--budget", "3")
    curator("query", "--budget", "3", "--name", "kept", "--keep-suspects")
    image = store.selection("kept").image_ids[0]
    assert "--keep-suspects --refine" in curator("feedback", "kept", "--accept", str(image))
    told = json.loads(curator("suspects", "--rate", "0.05", "--json"))
    assert sum(told["rates"].values()) == pytest.approx(0.05)
    assert told["notes"] == []


def test_wrong_words_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match="run first: curator suspects"):
        pipeline.suspects(store, SuspectsConfig(confirm=(1,)))
    pipeline.suspects(store, SuspectsConfig())
    with pytest.raises(InputError, match="expected ids of listed suspects, got 999999"):
        pipeline.suspects(store, SuspectsConfig(confirm=(999999,)))
    for options in ({"minimum": 0.0}, {"rate": 0.6}, {"confirm": (1,), "clear": (1,)}):
        with pytest.raises(ConfigError):
            SuspectsConfig(**options)  # type: ignore[arg-type]


def test_where_all_failures_are_suspects_the_query_says_so(store: Store) -> None:
    listed = pipeline.suspects(store, SuspectsConfig(minimum=1e-9)).summary
    assert len(listed["suspects"]) > 100
    with pytest.raises(InputError, match="none is left; --keep-suspects"):
        ask(store, failures="FN")
    assert ask(store, failures="FN", keep_suspects=True).done == 1
