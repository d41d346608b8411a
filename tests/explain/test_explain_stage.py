"""The explain stage on a real workspace: rows, resuming, one image's trouble, refusals, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curator.cli import main
from curator.diagnose.groups import group_outcomes
from curator.diagnose.run_current import read_current
from curator.errors import ConfigError, InputError
from curator.explain.run import choose_successes, explain
from curator.explain.settings import ExplainConfig
from curator.explain.work import ExplainWork, method_key, over_segments
from store.records import LOG_ODDS, GridMap, SegmentMap
from store.store import Store
from tests.diagnosed import SPEC, make_diagnosed

QUICK = ExplainConfig(samples=4, segments=30, batch_size=4, successes=2, precision="fp32")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three images."""
    return make_diagnosed(tmp_path_factory.mktemp("explain"), 3)


def test_failures_and_some_successes_are_explained_stored_and_grouped(diagnosed: Path) -> None:
    with Store.open(diagnosed) as store:
        result = explain(store, QUICK)
        assert (result.done, result.failed, result.exit_code) == (3, 0, 0), result.failures
        assert result.summary["explained"] == {"FN": 3, "FP": 3, "TP": 2}
        outcomes = {o.id: o for o in store.outcomes()}
        attributions = store.attributions()
        assert len(attributions) == 8
        for attribution in attributions:
            found = attribution.map
            assert isinstance(found, SegmentMap)
            assert attribution.segmentation_id is not None
            segmentation = store.segmentation(attribution.segmentation_id)
            assert segmentation.labels.shape == (96, 96)
            assert len(found.phi) == segmentation.count
            assert found.extra[LOG_ODDS] == 1.0  # the SSD gives them
            probability = 1 / (1 + np.exp(-found.full))
            assert probability == pytest.approx(outcomes[attribution.outcome_id].target.score, abs=1e-4)
            assert found.gap == pytest.approx(found.full - found.empty - float(found.phi.sum()), abs=1e-5)
        regions = store.regions()
        for outcome_id in {a.outcome_id for a in attributions}:
            assert [r.box for r in regions if r.outcome_id == outcome_id and r.kind == "object"] == [
                pytest.approx(outcomes[outcome_id].box)
            ]
        assert {r.kind for r in regions} >= {"object", "support"}
        assert all(
            0 <= r.box[0] < r.box[2] <= 160 and 0 <= r.box[1] < r.box[3] <= 120
            for r in regions
            if r.kind != "object"
        )
        groups = group_outcomes(store.outcomes())
        assert [g.name for g in groups] == ["FN:miss:a", "FP:background:a"]
        assert all(len(g.outcome_ids) == 3 for g in groups)


def test_a_second_run_adds_nothing_and_another_batch_size_neither(diagnosed: Path) -> None:
    with Store.open(diagnosed) as store:
        explain(store, QUICK)
        before = (store.attribution_keys(), store.regions())
        again = explain(store, replace(QUICK, batch_size=2))
        assert (again.done, again.skipped) == (0, 3)
        assert again.summary["explained"] == {"FN": 3, "FP": 3, "TP": 2}
        assert (store.attribution_keys(), store.regions()) == before


def test_a_grid_shaped_method_gives_regions_too_and_a_files_content_enters_its_key(
    diagnosed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(diagnosed) as store:
        config = replace(QUICK, method="sp?patch=40&stride=28", failures="FN", successes=0)
        result = explain(store, config)
        assert (result.done, result.failed) == (3, 0), result.failures
        attributions = store.attributions()
        assert len(attributions) == 3
        assert all(isinstance(a.map, GridMap) for a in attributions)
        assert any(a.map.evidence for a in attributions)
        assert over_segments(attributions[0].map, np.zeros((96, 96), np.uint16)).phi.shape == (1,)
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"one")
    before = method_key(f"vebi?model={model}")
    model.write_bytes(b"two")
    assert method_key(f"vebi?model={model}") != before
    folder = method_key(f"vebi?model={tmp_path}")
    model.write_bytes(b"three")
    assert method_key(f"vebi?model={tmp_path}") != folder
    here = tmp_path / "0.5"
    here.mkdir()
    monkeypatch.chdir(tmp_path)  # where a folder's name may be a number, and "" is the folder itself
    assert method_key("e2x?low=0.5") == ("e2x", ("low", "0.5"))
    assert method_key("vebi?model=") == ("vebi", ("model", ""))
    assert method_key("sp?stride=3&patch=9") == method_key("sp?patch=9&stride=3")


def test_a_selector_narrows_what_is_explained(diagnosed: Path) -> None:
    with Store.open(diagnosed) as store:
        result = explain(store, replace(QUICK, failures="FN:miss", successes=0, method="ig_s"))
        assert result.summary["explained"] == {"FN": 3}
        assert result.summary["gap_median"] < 0.01
        assert {a.method for a in store.attributions()} == {"ig_s"}
        log_odds = explain(store, replace(QUICK, failures="FN:miss", successes=0, target="log_odds"))
        assert log_odds.done == 3


def test_a_changed_image_fails_alone(diagnosed: Path) -> None:
    broken = diagnosed.parent / "1.png"
    original = broken.read_bytes()
    broken.write_bytes(original + b"x")
    try:
        with Store.open(diagnosed) as store:
            result = explain(store, replace(QUICK, seed=9))
            assert (result.done, result.failed, result.exit_code) == (2, 1, 3)
            assert result.failures[0][0] == str(broken)
            assert "changed since it was added" in result.failures[0][1]
            broken.write_bytes(original)
            mended = explain(store, replace(QUICK, seed=9))
            assert (mended.done, mended.skipped, mended.failed) == (1, 2, 0)
    finally:
        broken.write_bytes(original)


def test_wrong_requests_are_refused(diagnosed: Path, tmp_path: Path) -> None:
    with Store.open(diagnosed) as store:
        with pytest.raises(InputError, match="run curator diagnose first"):
            explain(store, replace(QUICK, detector="curator:other.safetensors"))
        with pytest.raises(ConfigError, match="takes one of: mean"):
            explain(store, replace(QUICK, fill="local-mean"))
        with pytest.raises(ConfigError, match="low: expected a number"):
            explain(store, replace(QUICK, method="e2x?low="))
        with pytest.raises(InputError, match="every setting once, got low more often"):
            explain(store, replace(QUICK, method="e2x?low=0.5&low=0.6"))
        with pytest.raises(ConfigError, match="--target log_odds: a target by prediction"):
            explain(store, replace(QUICK, method="drise", target="log_odds"))
        with pytest.raises(InputError, match=r"choose one of: .*e2x, "):
            explain(store, replace(QUICK, method="magic"))
    with Store.create(tmp_path / "empty") as store, pytest.raises(InputError, match="run curator diagnose"):
        explain(store, QUICK)


def test_weights_that_changed_since_the_diagnosis_are_refused(diagnosed: Path) -> None:
    with Store.open(diagnosed) as store:
        model = read_current(store, "test").model
        work = ExplainWork(spec=SPEC.replace("seed=5", "seed=6"), fingerprint=model.fingerprint, config=QUICK)
        with pytest.raises(InputError, match="run curator detect and curator diagnose again"):
            work.setup("cpu")


def test_successes_come_from_as_many_images_as_possible(diagnosed: Path) -> None:
    with Store.open(diagnosed) as store:
        outcomes = store.outcomes()
    three = choose_successes(outcomes, replace(QUICK, successes=3))
    assert len({o.image_id for o in three}) == 3
    backwards = choose_successes(outcomes[::-1], replace(QUICK, successes=3))
    assert [o.id for o in three] == [o.id for o in backwards]
    assert len(choose_successes(outcomes, replace(QUICK, successes=50))) == 6


def test_the_command_prints_json(
    diagnosed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "curator",
        "-w",
        str(diagnosed),
        "explain",
        "--samples",
        "4",
        "--segments",
        "30",
        "--successes",
        "2",
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr("sys.argv", [*arguments, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["explained"] == {"FN": 3, "FP": 3, "TP": 2}
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        main()
    assert "3 FN, 3 FP, 2 TP explained in 2 groups" in capsys.readouterr().out
