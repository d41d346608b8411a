"""What people say of hits teaches the next query."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.data.settings import AddConfig
from curator.errors import ConfigError, InputError
from curator.query.asked import Images, Mined
from curator.query.feedback import Said, asks, taught
from curator.query.methods.base import image_scores
from curator.query.out_of_fold import out_of_fold
from curator.query.predictor import FailurePredictor, training
from curator.query.settings import FeedbackConfig, QueryConfig
from curator.registry import RANKERS
from store.errors import NotFoundError
from store.records import BoxRows, Feedback, Role
from store.store import Store
from tests.query.rendered import make_rendered
from tests.query.tables import ASKED, outcome, planted

SIZES: dict[Role, int] = {"train": 4, "mine": 20, "pool": 30, "holdout": 4}


def said_of(pool: BoxRows, truth: np.ndarray, images: np.ndarray, *, group: str = ASKED.name) -> Said:
    """Feedback on the images as the planted truth has it: a failure's box is the one that was shifted."""
    own = Images.of(pool.image_ids)
    feedback = []
    for i in images:
        rows = np.arange(own.starts[i], own.starts[i] + own.counts[i])
        at = int(rows[pool.components("object")[rows][:, :3].sum(1).argmax()])
        x1, y1, x2, y2 = map(float, pool.boxes[at])
        feedback.append(
            Feedback(
                selection="s",
                image_id=int(own.ids[i]),
                accepted=bool(truth[i]),
                group=group,
                box=(x1, y1, x2, y2),
            )
        )
    return Said(feedback=tuple(feedback), labelled={})


def precision(mined: Mined, pool: BoxRows, truth: np.ndarray, rest: np.ndarray) -> float:
    scorer = RANKERS.load("predictor")().fit(mined, ASKED, seed=0)
    return float(average_precision_score(truth[rest] > 0, image_scores(scorer, pool)[1][rest]))


def test_answers_of_people_make_the_next_ranking_better() -> None:
    gains = []
    for seed in range(3):
        mined, pool, truth = planted(40, 300, share=0.15, seed=seed)
        judged, rest = np.arange(120), np.arange(120, 300)
        learned = taught(mined, pool, said_of(pool, truth, judged), [ASKED])
        gains.append(precision(learned, pool, truth, rest) - precision(mined, pool, truth, rest))
    assert np.mean(gains) > 0.05


@pytest.mark.parametrize("method", RANKERS.names())
def test_every_method_ranks_after_feedback(method: str) -> None:
    mined, pool, truth = planted(40, 80, share=0.3)
    learned = taught(mined, pool, said_of(pool, truth, np.arange(30)), [ASKED])
    scorer = RANKERS.load(method)().fit(learned, ASKED, seed=0)
    assert not np.isnan(scorer.values(pool)).any()


def test_an_accepted_image_tells_of_its_hit_alone_and_a_rejected_one_of_its_question() -> None:
    mined, pool, truth = planted(30, 40, share=0.3)
    yes, no = int(np.flatnonzero(truth)[0]), int(np.flatnonzero(truth == 0)[0])
    said = said_of(pool, truth, np.array([yes, no]))
    accepted, rejected = (own.image_id for own in said.feedback)
    learned = taught(mined, pool, said, [ASKED])
    other = replace(ASKED, categories=("c1",), labels=(1,))
    for asked, positives, negatives in ((ASKED, True, True), (other, False, False)):
        data = training(learned, asked)
        images, part = data.rows.image_ids[data.use], data.part[data.use]
        assert (part[images == accepted] > 0).any() == positives
        assert not (part[images == accepted] == 0).any()
        assert not (part[images == rejected] > 0).any()
        assert (images == rejected).any() == negatives
    elsewhere = taught(mined, pool, said_of(pool, truth, np.array([yes, no]), group="FP c1"), [ASKED])
    assert np.array_equal(elsewhere.image_ids, mined.image_ids)


def test_a_labelled_image_is_known_whole() -> None:
    mined, pool, truth = planted(30, 40, share=0.3)
    at = int(np.flatnonzero(truth)[0])
    rows = np.flatnonzero(pool.image_ids == 10_000 + at)
    failure = replace(outcome(1, 10_000 + at, pool.boxes[rows[3]]), id=None)
    feedback = said_of(pool, truth, np.array([at])).feedback  # labels say more than feedback
    learned = taught(mined, pool, Said(feedback=feedback, labelled={10_000 + at: [failure]}), [ASKED])
    data = training(learned, ASKED)
    own = data.use[data.rows.image_ids[data.use] == 10_000 + at]
    assert data.part[own].sum() == pytest.approx(1)
    assert (data.part[own] == 0).sum() > 5
    assert learned.partly == {}
    # An outcome whose box nothing covers, and an image that is not indexed, teach nothing.
    far = replace(failure, box=(390.0, 390.0, 399.0, 399.0))
    nothing = taught(mined, pool, Said(labelled={10_000 + at: [far], 5: [failure]}), [ASKED])
    assert len(nothing.outcomes) == len(mined.outcomes)


def test_the_calibration_leaves_out_what_a_query_chose() -> None:
    mined, pool, truth = planted(60, 80, share=0.3)
    learned = taught(mined, pool, said_of(pool, truth, np.arange(40)), [ASKED])
    judged = out_of_fold(learned, ASKED)
    theirs = np.isin(judged.rows.image_ids, mined.image_ids)
    assert not np.isfinite(judged.logits[~theirs]).any()
    assert judged.part[~theirs].sum() == 0
    assert judged.part.sum() == out_of_fold(mined, ASKED).part.sum()
    assert len(FailurePredictor.fit(learned, ASKED).failures) > len(
        FailurePredictor.fit(mined, ASKED).failures
    )
    assert judged.by_image(mined.image_ids).shape == mined.image_ids.shape


@pytest.mark.parametrize(
    ("group", "expected"),
    [("FN c0", True), ("FN c0/2", True), ("FN c0/x", False), ("FN c01", False), ("FN", False)],
)
def test_groups_of_hits_are_of_a_question(group: str, expected: bool) -> None:
    assert asks(ASKED, group) is expected


# ---------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rendered(tmp_path_factory.mktemp("refine"), SIZES, unlabelled=("pool",))


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store.open(folder / "ws") as opened:
        yield opened


def test_accepted_hits_stay_rejected_ones_never_come_back(store: Store) -> None:
    first = pipeline.query(store, QueryConfig(name="a", failures="FN", budget=8)).summary
    ids = [hit["image"] for hit in first["hits"]]
    pipeline.feedback(store, FeedbackConfig(selection="a", accept=(ids[4], ids[1]), reject=tuple(ids[5:7])))
    refined = QueryConfig(name="a", failures="FN", budget=8, refine=True)
    second = pipeline.query(store, refined).summary
    new = [hit["image"] for hit in second["hits"]]
    assert new[:2] == [ids[1], ids[4]]
    assert [hit["rank"] for hit in second["hits"]] == list(range(1, 9))
    assert [hit["reason"].startswith("accepted: ") for hit in second["hits"]] == [True] * 2 + [False] * 6
    assert len(set(new)) == 8
    assert not set(new) & set(ids[5:7])
    assert second["refined"] == "learned from 2 accepted, 2 rejected and 0 labelled images"
    assert pipeline.query(store, refined).skipped == 1
    # Said of the next round, it adds up; reasons are marked once.
    more = FeedbackConfig(selection="a", accept=(new[3],), reject=(new[4],), clear=(ids[4],))
    pipeline.feedback(store, more)
    third = pipeline.query(store, refined).summary
    newest = [hit["image"] for hit in third["hits"]]
    assert newest[:2] == [ids[1], new[3]]
    assert all(hit["reason"].count("accepted") == 1 for hit in third["hits"][:2])
    assert not set(newest) & {*ids[5:7], new[4]}
    told = pipeline.feedback(store, FeedbackConfig(selection="a")).summary
    assert told["accepted"] == sorted([ids[1], new[3]])
    assert told["rejected"] == sorted([*ids[5:7], new[4]])
    assert [hit["verdict"] for hit in told["hits"][:3]] == ["accepted", "accepted", "open"]
    # What was said outlives a plain query of this name, which says so, and is used by the next refined one.
    plain = pipeline.query(store, QueryConfig(name="a", failures="FN", budget=3)).summary
    assert any("--refine uses that" in warning for warning in plain["warnings"])
    assert plain["refined"] is None
    again = pipeline.query(store, refined).summary
    assert {hit["image"] for hit in again["hits"][:2]} == {ids[1], new[3]}


def label(store: Store, folder: Path, out: Path, uri: str, role: Role) -> None:
    """Add a pool image's labels."""
    source = json.loads((folder / "data" / "pool" / "annotations.json").read_text())
    image = next(i for i in source["images"] if Path(i["file_name"]).name == Path(uri).name)
    own = [a for a in source["annotations"] if a["image_id"] == image["id"]]
    out.mkdir()
    (out / "annotations.json").write_text(json.dumps({**source, "images": [image], "annotations": own}))
    images = folder / "data" / "pool"
    added = pipeline.add(
        store, AddConfig(format="coco", path=out / "annotations.json", images=images, role=role)
    )
    assert added.done == 1


def test_labelled_images_teach(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ws", tmp_path / "ws")
    with Store.open(tmp_path / "ws") as store:
        first = pipeline.query(store, QueryConfig(name="b", failures="FN", budget=5)).summary["hits"]
        label(store, folder, tmp_path / "pool", first[2]["uri"], "pool")
        label(store, folder, tmp_path / "train", first[0]["uri"], "train")
        refined = QueryConfig(name="b", failures="FN", budget=5, refine=True)
        second = pipeline.query(store, refined).summary
        assert second["refined"] == "learned from 0 accepted, 0 rejected and 2 labelled images"
        new = [hit["image"] for hit in second["hits"]]
        assert new[0] == first[2]["image"]
        assert second["hits"][0]["reason"] == f"labelled: {first[2]['reason']}"
        assert first[0]["image"] not in new  # the training set has it
        assert any("1 accepted or labelled images leave" in warning for warning in second["warnings"])
        assert len(new) == 5
        pipeline.feedback(store, FeedbackConfig(selection="b", reject=(first[2]["image"],)))
        third = pipeline.query(store, refined).summary
        # Labels say more than a verdict, and are not forgotten.
        replaced = "; the labels of 1 chosen image replace what was said of it"
        assert third["refined"] == second["refined"] + replaced
        again = pipeline.feedback(store, FeedbackConfig(selection="b", accept=(new[1],)))
        fourth = pipeline.query(store, refined).summary
        assert again.summary["rejected"] == [first[2]["image"]]
        learned = "learned from 1 accepted, 0 rejected and 2 labelled images"
        assert fourth["refined"] == learned + replaced
        assert first[2]["image"] not in [hit["image"] for hit in third["hits"]]
        for method in ("predictor", "random"):  # nothing chooses again what was labelled
            later = pipeline.query(
                store, QueryConfig(name="later", failures="FN", budget=30, method=method)
            ).summary
            assert first[0]["image"] not in [hit["image"] for hit in later["hits"]]
            assert any("the training set has it already" in warning for warning in later["warnings"])


def test_what_leaks_by_now_is_not_kept(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ws", tmp_path / "ws")
    with Store.open(tmp_path / "ws") as store:
        first = pipeline.query(store, QueryConfig(name="b", failures="FN", budget=5)).summary["hits"]
        ids = [hit["image"] for hit in first]
        pipeline.feedback(store, FeedbackConfig(selection="b", accept=(ids[0], ids[1]), reject=(ids[2],)))
        label(store, folder, tmp_path / "mine", first[0]["uri"], "mine")
        label(store, folder, tmp_path / "holdout", first[2]["uri"], "holdout")
        refined = QueryConfig(name="b", failures="FN", budget=5, refine=True)
        second = pipeline.query(store, refined).summary
        assert second["refined"] == "learned from 1 accepted, 0 rejected and 0 labelled images"
        assert ids[0] not in [hit["image"] for hit in second["hits"]]
        assert any("equal mined or holdout images" in warning for warning in second["warnings"])


def test_methods_that_learn_nothing_say_so_and_other_questions_are_told_apart(store: Store) -> None:
    first = pipeline.query(store, QueryConfig(name="e", failures="FN:miss", budget=5)).summary["hits"]
    pipeline.feedback(store, FeedbackConfig(selection="e", accept=(first[0]["image"],)))
    blind = QueryConfig(name="e", failures="FN:miss", budget=5, method="class-uncertainty", refine=True)
    assert pipeline.query(store, blind).summary["refined"].startswith("class-uncertainty learns nothing")
    counts = [group["hits"] for group in pipeline.query(store, blind).summary["groups"]]
    assert sum(counts) == 5
    other = QueryConfig(name="e", failures="FN:under-threshold", budget=5, refine=True)
    told = pipeline.query(store, other).summary
    assert "learned from 0 accepted, 0 rejected and 0 labelled images; 1 judged for other" in told["refined"]
    assert told["hits"][0]["image"] == first[0]["image"]


def test_what_cannot_be_is_refused(store: Store) -> None:
    pipeline.query(store, QueryConfig(name="c", failures="FN", budget=3))
    ids = [hit.image_id for hit in store.selection("c").hits]
    with pytest.raises(InputError, match="curator feedback c --accept"):
        pipeline.query(store, QueryConfig(name="c", failures="FN", budget=3, refine=True))
    with pytest.raises(NotFoundError, match="no selection called 'nosuch'"):
        pipeline.query(store, QueryConfig(name="nosuch", failures="FN", budget=3, refine=True))
    for name in ("-x", "a\nb", " "):
        with pytest.raises(ConfigError, match="name: expected"):
            QueryConfig(name=name)
    with pytest.raises(InputError, match=r"expected ids of images that 'c' holds, got 99999"):
        pipeline.feedback(store, FeedbackConfig(selection="c", accept=(ids[0], 99999)))
    assert store.feedback("c") == []
    with pytest.raises(ConfigError, match="each image once"):
        FeedbackConfig(selection="c", accept=(1,), reject=(1,))
    for wrong in ({"preview": True}, {"like": "a.jpg"}, {"text": "a"}, {"method": "random"}):
        with pytest.raises(ConfigError, match=f"leave {next(iter(wrong))}"):
            QueryConfig(refine=True, **wrong)
    pipeline.feedback(store, FeedbackConfig(selection="c", accept=tuple(ids)))
    with pytest.raises(InputError, match="give a larger --budget"):
        pipeline.query(store, QueryConfig(name="c", failures="FN", budget=3, refine=True))


def test_the_commands(folder: Path) -> None:
    def curator(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["-w", str(folder / "ws"), *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    curator("query", "--failures", "FN", "--budget", "4", "--name", "d")
    listed = curator("feedback", "d")
    assert listed.count("  open  ") == 4
    ids = [line.split("image ")[1].split()[0] for line in listed.splitlines() if "image " in line]
    said = curator("feedback", "d", "--accept", ",".join(ids[:2]), "--reject", ids[2])
    assert "2 accepted, 1 rejected" in said
    assert "next: curator query --name d --failures FN --budget 4 --refine" in said
    text = curator("query", "--failures", "FN", "--budget", "4", "--name", "d", "--refine")
    assert f"   1  image {ids[0]}  " in text
    assert f"image {ids[2]} " not in text
    assert f"judged before, no longer chosen: images {ids[2]}" in curator("feedback", "d")
