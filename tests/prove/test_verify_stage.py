"""`diagnose` and `verify` on a real workspace with a small detector trained for a moment."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from curator import pipeline
from curator.cli.prove import verify_lines
from curator.config import ReportConfig
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.diagnose.run import diagnose
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError
from curator.example.dataset import GapRates, write_dataset
from curator.example.flowers import CLASSES
from curator.example.gaps import GAPS
from curator.matching import ClassMap
from curator.prove.run_arms import image_conditions, object_condition
from curator.prove.run_verify import fix_rates, read_holdout, read_training, trial_table, verify
from curator.prove.settings import VerifyConfig
from curator.prove.trainers.fine_tune import FineTuneConfig, fine_tune
from curator.prove.trials import TrainingFiles
from curator.query.settings import IndexConfig, QueryConfig
from store.errors import NotFoundError
from store.images import read_bytes_as_pixels
from store.keys import content_key
from store.records import ROLES, Hit, NewAnnotation, Selection
from store.store import Store

THRESHOLD = 0.2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A diagnosed workspace and the spec of its detector."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("verify")
    write_dataset(
        root / "data",
        sizes={"train": 24, "mine": 12, "pool": 30, "holdout": 10},
        seed=5,
        size=96,
        rates=GapRates(pool=0.06),
    )
    with Store.create(root / "ws") as store:
        for role in ROLES:
            add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
        options = SsdOptions(
            classes=CLASSES, size=96, channels=(8, 16, 16, 24, 24), anchors=(16.0, 32.0, 56.0, 80.0)
        )
        untrained = make_detector(options, seed=0)
        files = TrainingFiles(read_training(store, ClassMap.resolve(CLASSES, CLASSES, {}), {}), (), 1.0)
        trained, _ = fine_tune(
            untrained,
            files,
            FineTuneConfig(steps=30, batch_size=6, learning_rate=0.005, batch_norm="train", device="cpu"),
        )
        trained.save(root / "detector.safetensors")
        spec = f"curator:{root / 'detector.safetensors'}"
        with pytest.raises(InputError, match="run `curator detect"):
            diagnose(store, DiagnoseConfig())
        detect(store, DetectConfig(detector=spec, device="cpu"))
        diagnose(store, DiagnoseConfig(score_threshold=THRESHOLD, device="cpu"))
    torch.set_num_threads(threads)
    return root / "ws", spec


def test_a_diagnosis_counts_every_object_once(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        again = diagnose(store, DiagnoseConfig(score_threshold=THRESHOLD, device="cpu"))
        assert (again.done, again.skipped, again.failed) == (0, 12, 0)
        annotations = [
            a
            for s in store.annotations(store.image_ids(role="mine"), reader="diagnose").values()
            for a in s.annotations
        ]
        outcomes = store.outcomes()
    assert Counter(o.annotation_id for o in outcomes if o.kind != "FP") == Counter(a.id for a in annotations)
    kinds = Counter(o.kind for o in outcomes)
    rows = again.summary["classes"]
    assert [sum(row[name] for row in rows) for name in ("tp", "fp", "fn")] == [
        kinds[k] for k in ("TP", "FP", "FN")
    ]
    assert sum(again.summary["causes"].values()) == kinds["FP"] + kinds["FN"]
    assert again.summary["low_score"] <= THRESHOLD / 2
    assert len({o.key for o in outcomes}) == len(outcomes)
    json.dumps(again.summary)


def test_a_class_map_drops_and_names(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        with pytest.raises(InputError, match="the data set has no class 'rose'"):
            diagnose(store, DiagnoseConfig(class_map={CLASSES[0]: "rose"}, device="cpu"))
        mapped = diagnose(
            store, DiagnoseConfig(score_threshold=THRESHOLD, class_map={CLASSES[0]: CLASSES[1]}, device="cpu")
        )
        assert mapped.summary["missing_classes"] == [CLASSES[0]]
        assert CLASSES[0] not in [row["class"] for row in mapped.summary["classes"]]
        assert not [o for o in store.outcomes() if o.category == CLASSES[0]]
        diagnose(store, DiagnoseConfig(score_threshold=THRESHOLD, device="cpu"))


def config(**fields: Any) -> VerifyConfig:
    return VerifyConfig(
        **{"score_threshold": THRESHOLD, "budget": 3, "steps": 2, "batch_size": 3, "device": "cpu", **fields}
    )


def test_every_arm_adds_the_same_number_of_images(workspace: tuple[Path, str]) -> None:
    arms = ("nothing", "random", "query", "oracle")
    with Store.open(workspace[0]) as store:
        pool = store.image_ids(role="pool")
        hits = tuple(
            Hit(
                rank=k + 1,
                image_id=i,
                outcome_id=None,
                group="g",
                box=(0, 0, 9, 9),
                score=1.0 - k,
            )
            for k, i in enumerate(pool[:5])
        )
        run = store.begin_run("query", config={})
        store.put_selection(
            run,
            Selection(
                name="mine", arm="contrastive", hits=hits, config={}, key=content_key("test", pool[:5])
            ),
        )
        settings = config(arms=arms, selection="mine", seeds=(0, 1), condition_tag="gap")
        result = verify(store, settings)
        assert (result.done, result.skipped, result.failed) == (8, 0, 0), result.failures
        trials = store.trials("verify")
        chosen = {s.name: s.image_ids for s in store.selections()}
        tags = store.tags(chosen["verify-oracle-0"], reader="verify")
        again = verify(store, settings)
        assert (again.done, again.skipped) == (0, 8)
        assert again.summary == result.summary
        assert not list((store.path / "training").glob("*"))
        run = store.current_run("verify", "verify")
        assert run is not None
        gallery = run.facts["gallery"]
        for crop in gallery:
            height, width = read_bytes_as_pixels(store.blob(crop["blob"])).shape[:2]
            x1, y1, x2, y2 = crop["box"]
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
    assert {crop["arm"] for crop in gallery} == {"query"}
    assert {crop["kind"] for crop in gallery} <= {"fixed", "broken", "still missed"}
    assert all(crop["before"] < THRESHOLD for crop in gallery if crop["kind"] != "broken")
    added = {(t.arm, t.seed): t.metrics["n_added"] for t in trials}
    assert added == {(arm, seed): 0 if arm == "nothing" else 3 for arm in arms for seed in (0, 1)}
    assert set(chosen) == {
        "mine",
        *(f"verify-{arm}-{seed}" for arm in ("random", "oracle") for seed in (0, 1)),
    }
    assert chosen["verify-random-0"] != chosen["verify-random-1"]
    assert any(tag["gap"] != "none" for tag in tags.values())

    for trial in trials:
        metrics = trial.metrics
        assert metrics["base"] == trials[0].metrics["base"]
        fixed, matched, recall, worst = (
            metrics[name] for name in ("fixed_threshold", "matched_threshold", "matched_recall", "worse")
        )
        assert fixed["threshold"] == THRESHOLD
        assert matched["false_per_image"] <= metrics["base"]["false_per_image"]
        assert fixed["fn"]["n"] == metrics["base"]["missed"]
        assert worst["fn"]["rate"] == min(fixed["fn"]["rate"], matched["fn"]["rate"])
        if fixed["fp"]["n"]:
            assert worst["fp"]["rate"] == min(fixed["fp"]["rate"], recall["fp"]["rate"])
    columns, rows = trial_table(trials)
    assert [row[0] for row in rows] == ["base", *arms]
    assert all(len(row) == len(columns) for row in rows)
    assert {arm: len(values) for arm, values in fix_rates(trials).items()} == dict.fromkeys(arms, 2)


def test_conditions_are_read_where_the_user_names_their_tag(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        plain = verify(store, config(name="plain", arms=("nothing", "random")))
        without = [t.metrics for t in store.trials("plain")]
        named = verify(store, config(name="plain", arms=("nothing", "random"), condition_tag="gap"))
        held = {c for image in read_holdout(store, {}, "gap") for c in image.conditions} - {""}
        with_tag = [t.metrics for t in store.trials("plain")]
    assert (plain.done, named.done, named.skipped) == (2, 2, 0)  # what was read without is not the answer
    assert all(m["worse"]["groups"]["condition"] == {} for m in without)
    assert all(m["added_by_condition"] == {} for m in without)
    assert plain.summary["unscored_conditions"] == []
    assert held
    assert all(held <= set(m["worse"]["groups"]["condition"]) <= set(GAPS) for m in with_tag)
    assert named.summary["unscored_conditions"]


def test_query_methods_stored_selections_and_several_budgets_are_arms(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        pipeline.index(store, IndexConfig(device="cpu"))
        pipeline.query(store, QueryConfig(name="asked", method="random", failures="FN", budget=4))
        arms = ("nothing", "random", "class-uncertainty", "image-similarity", "selection:asked")
        wanted = config(name="curve", arms=arms, budgets=(2, 4), selection="asked")
        result = pipeline.verify(store, wanted)
        again = pipeline.verify(store, wanted)
        found = store.selection("curve-class-uncertainty")
        viewed = store.selection("curve-image-similarity").config
        trials = {trial.arm: trial.metrics for trial in store.trials("curve")}
    assert (result.done, result.failed, again.done, again.skipped) == (9, 0, 0, 9)
    assert (viewed["failures"], viewed["method"], viewed["view"]) == ("FN", "similarity", "image")
    assert (found.config["failures"], found.config["method"]) == ("FN", "class-uncertainty")
    assert {arm: m["n_added"] for arm, m in trials.items()} == {
        "nothing": 0,
        "random@2": 2,
        "random@4": 4,
        "class-uncertainty@2": 2,
        "class-uncertainty@4": 4,
        "image-similarity@2": 2,
        "image-similarity@4": 4,
        "selection:asked@2": 2,
        "selection:asked@4": 4,
    }
    pairs = {(d["arm"], d["against"]) for d in result.summary["differences"]}
    assert ("class-uncertainty@4", "random@4") in pairs
    assert ("class-uncertainty@4", "random@2") not in pairs
    assert ("random@2", "nothing") in pairs
    said = [note for note in result.summary["notes"] if "fixes as much as random with" in note]
    assert len(said) == 6


def test_what_a_verification_draws_for_its_arms_is_not_selected(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        pipeline.index(store, IndexConfig(device="cpu"))
        pipeline.query(store, QueryConfig(name="verify-kept", method="random", failures="FN", budget=4))
        people = {"mine", "asked", "verify-kept"}  # all others of this workspace are arms
        mine = {i for s in store.selections() if s.name in people for i in s.image_ids}
        pipeline.verify(store, config(name="own", arms=("random", "oracle", "class-uncertainty"), budget=9))
        assert {f"own-{arm}" for arm in ("random-0", "oracle-0", "class-uncertainty")} <= {
            s.name for s in store.selections()
        }
        rest = QueryConfig(name="rest", method="random", failures="FN", budget=3, where="selected=no")
        pipeline.query(store, rest)
        left = len(set(store.image_ids(role="pool")) - mine)
        assert store.selection("rest").config["scored"] == f"{left} images drawn from"
        # the same question of one's own is a selection as any other
        pipeline.query(store, QueryConfig(name="own-class-uncertainty", method="class-uncertainty", budget=9))
        pipeline.query(store, rest)
        left = len(
            set(store.image_ids(role="pool")) - mine - set(store.selection("own-class-uncertainty").image_ids)
        )
        assert store.selection("rest").config["scored"] == f"{left} images drawn from"
        for name in ("verify-kept", "own-class-uncertainty", "rest"):
            store.remove_selection(name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arms": ("class-uncertainty", "selection:nosuch")}, "no selection called 'nosuch'"),
        ({"arms": ("class-uncertainty", "query"), "selection": "nosuch"}, "no selection called 'nosuch'"),
        ({"arms": ("class-uncertainty",), "selection": "nosuch"}, "no selection called 'nosuch'"),
        ({"arms": ("class-uncertainty", "synthesis"), "samples": "nosuch"}, "samples 'nosuch': no accepted"),
        ({"arms": ("class-uncertainty", "nosuch")}, "arms: expected some of .* got nosuch"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_made(
    workspace: tuple[Path, str], wrong: dict[str, Any], said: str
) -> None:
    with Store.open(workspace[0]) as store:
        pipeline.index(store, IndexConfig(device="cpu"))
        before = (len(store.runs()), store.selections())
        with pytest.raises((InputError, NotFoundError), match=said):
            pipeline.verify(store, config(name="wrong", **wrong))
        assert (len(store.runs()), store.selections()) == before


def test_arms_draw_from_what_the_compared_selection_was_chosen_from(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        pipeline.index(store, IndexConfig(device="cpu"))
        pool = store.image_ids(role="pool")
        sources = {m.image_id: m.source for m in store.memberships(pool) if m.role == "pool"}
        people = {"mine", "asked"}  # all others of this workspace are arms
        taken = {i for s in store.selections() if s.name in people for i in s.image_ids}
        allowed = set([i for i in pool if i not in taken][:8])
        where = "source=" + "|".join(str(sources[i]) for i in sorted(allowed))
        pipeline.query(store, QueryConfig(name="first", method="random", budget=2, where=where))
        said = {"method": "random", "budget": 3, "where": f"{where},selected=no"}
        pipeline.query(store, QueryConfig(name="part", without=("first",), **said))
        allowed -= set(store.selection("first").image_ids)
        arms = ("random", "oracle", "class-uncertainty", "query")
        result = pipeline.verify(store, config(name="parted", arms=arms, selection="part", budget=7))
        chosen = {s.name: set(s.image_ids) for s in store.selections()}
    drawn = {arm: chosen[f"parted-{arm}"] for arm in ("random-0", "oracle-0", "class-uncertainty")}
    assert all(images <= allowed for images in drawn.values())
    assert len(drawn["random-0"]) == len(drawn["oracle-0"]) == 6
    assert result.summary["drawn_from"] == (
        f"arms drawn from the pool images that pass {where},selected=no and are not in first"
    )
    assert any("random adds 6 images where 7 were asked for" in line for line in result.summary["warnings"])
    assert f"note: {result.summary['drawn_from']}" in verify_lines(result.summary)


def test_missed_objects_are_pasted_and_every_reading_is_told(
    workspace: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURATOR_QUIET", raising=False)
    with Store.open(workspace[0]) as store:
        result = verify(store, config(name="pasted", arms=("nothing", "copy-paste"), condition_tag="gap"))
        trials = {trial.arm: trial.metrics for trial in store.trials("pasted")}
        names = {selection.name for selection in store.selections()}
    assert trials["copy-paste"]["n_added"] == 3
    by_condition = result.summary["base"]["missed_by_condition"]
    assert 0 < sum(by_condition.values()) <= result.summary["base"]["missed"]
    said = capsys.readouterr().err
    assert "missed objects by condition: " in said
    assert all(f"{name} {count} *" in said for name, count in by_condition.items())
    assert "fewer than 30: not read apart" in said
    assert "pasted-copy-paste-0" not in names  # its pictures are no images of the pool
    for figures in trials.values():
        assert 0 <= figures["ap"] <= figures["ap50"] <= 1
        assert figures["ap"] <= figures["ar"] <= 1
        assert 0 <= figures["calibration_error"] <= 1
    assert [row[0] for row in result.summary["quality_rows"]] == ["base", "nothing", "copy-paste"]
    assert result.summary["arms"]["nothing"]["ar"]["mean"] == pytest.approx(trials["nothing"]["ar"])
    for group in result.summary.get("groups", []):
        assert group["missed"] >= 30


def test_a_verification_may_stop_before_its_last_seed(workspace: tuple[Path, str], tmp_path: Path) -> None:
    with Store.open(workspace[0]) as store:
        wanted = config(name="early", arms=("nothing", "random"), seeds=(0, 1, 2, 3, 4), stop_early=True)
        nobody_judged = pipeline.verify(store, wanted)
        assert nobody_judged.done == 10
        arms = ("nothing", "random", "class-uncertainty")
        wanted = config(name="early", arms=arms, seeds=(0, 1, 2, 3, 4), stop_early=True)
        early = pipeline.verify(store, wanted)
        trained = {(t.arm, t.seed) for t in store.trials("early")}
        pipeline.report(store, ReportConfig(out=tmp_path / "early.html"))
    (why,) = early.summary["stopped"]
    assert why.startswith("stopped after 3 of 5 seeds: no arm can be shown to be")
    page = (tmp_path / "early.html").read_text(encoding="utf-8")
    for told in (why, early.summary["can_show"], early.summary["advice"]):
        assert told in page
    assert nobody_judged.summary["stopped"] == []
    assert early.failed == 0
    assert early.done == 3  # the seeds 0 to 2 of the new arm: hopeless on ten images
    assert ("class-uncertainty", 2) in trained
    assert ("class-uncertainty", 3) not in trained


def test_an_object_without_the_attribute_has_the_condition_of_its_image() -> None:
    bare = NewAnnotation(category="cat", box=(0, 0, 1, 1))
    clear = NewAnnotation(category="cat", box=(0, 0, 1, 1), attributes={"weather": None})
    dusk = NewAnnotation(category="cat", box=(0, 0, 1, 1), attributes={"weather": "dusk"})
    tags = {"weather": "fog, thick"}
    assert [object_condition(a, tags, "weather") for a in (bare, clear, dusk)] == ["fog, thick", "", "dusk"]
    assert [object_condition(a, tags, None) for a in (bare, clear, dusk)] == ["", "", ""]
    assert image_conditions([clear, dusk], tags, "weather") == {"fog, thick", "dusk"}
    assert image_conditions([bare], {"weather": "none"}, "weather") == frozenset()


def test_what_is_missing_is_named(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        with pytest.raises(ConfigError, match="expected some of nothing, random"):
            verify(store, config(arms=("guess",)))
        with pytest.raises(InputError, match="no accepted sample; run `curator synthesize`"):
            verify(store, config(arms=("synthesis",)))
        with pytest.raises(InputError, match=r"--condition-tag weather: expected .* culprit_box.*, gap"):
            verify(store, config(condition_tag="weather"))


def test_a_workspace_without_a_holdout_is_refused(workspace: tuple[Path, str], tmp_path: Path) -> None:
    with Store.create(tmp_path / "empty") as store:
        with pytest.raises(InputError, match="role holdout, got none"):
            verify(store, config(detector=workspace[1]))
        detect(store, DetectConfig(detector=workspace[1], device="cpu"))
        with pytest.raises(InputError, match="role mine, got 0"):
            diagnose(store, DiagnoseConfig(device="cpu"))
