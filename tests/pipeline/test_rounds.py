"""`curator loop`: rounds on a real workspace with a small detector trained for a moment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.run_current import read_current
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError
from curator.example.dataset import GapRates, write_dataset
from curator.example.flowers import CLASSES
from curator.pipeline import rounds
from curator.pipeline.round_settings import LoopConfig
from curator.prove.run_rounds import Failures, count_failures, difference, loops, round_rows
from curator.prove.settings import TrainConfig
from store.records import ROLES, Outcome, TargetRecord
from store.store import Store

THRESHOLD = 0.2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diagnosed workspace: an SSD of 25 steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("rounds")
    sizes = {"train": 24, "mine": 16, "pool": 20, "holdout": 8}
    write_dataset(root / "data", sizes=sizes, seed=5, size=96, rates=GapRates(pool=0.06))
    with Store.create(root / "ws") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
        spec = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,16,16,24,24&anchors=16,32,56,80"
        out = root / "base.safetensors"
        train = TrainConfig(
            detector=spec,
            out=out,
            steps=25,
            batch_size=6,
            learning_rate=0.005,
            batch_norm="train",
            device="cpu",
        )
        pipeline.train(store, train)
        pipeline.detect(store, DetectConfig(detector=f"curator:{out}", device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=THRESHOLD, device="cpu"))
    torch.set_num_threads(threads)
    return root / "ws"


def settings(root: Path, **fields: object) -> LoopConfig:
    given = {
        "out": root,
        "rounds": 2,
        "budget": 6,
        "steps": 12,
        "batch_size": 6,
        "learning_rate": 0.003,
        **fields,
    }
    return LoopConfig(**given, device="cpu")  # type: ignore[arg-type]


def test_rounds_go_on_while_failures_fall_and_choose_no_image_twice(workspace: Path) -> None:
    out = workspace.parent / "detectors"
    with Store.open(workspace) as store:
        base = read_current(store, "test").model.spec
        result = pipeline.loop_rounds(store, settings(out, rounds=4, budget=8))
        made = result.summary["rounds"]
        assert [facts["round"] for facts in made] == list(range(len(made)))
        assert 2 <= len(made) <= 5
        selections = [store.selection(f"loop-{k}").image_ids for k in range(1, len(made))]
        every = [i for ids in selections for i in ids]
        assert len(every) == len(set(every))
        assert [facts["added"] for facts in made[1:]] == [
            sum(len(ids) for ids in selections[: k + 1]) for k in range(len(selections))
        ]
        for k in range(1, len(made)):
            assert (out / f"round-{k}.safetensors").is_file()
        gains = [facts["change"]["high"] < 0 for facts in made[1:]]
        assert all(gains[:-1])
        best = sum(gains)
        if best:
            assert set(store.selection("loop").image_ids) == {i for ids in selections[:best] for i in ids}
            assert result.summary["detector"] == made[best]["detector"]
            assert "--selection loop" in result.summary["next"]
        assert pipeline.status(store)["loops"] == {"loop": made}
        assert loops(store)["loop"] == made
        json.dumps(result.summary)
        current = read_current(store, "test")
        assert current.model.spec == base  # what verify's other arms go by
        assert current.criteria.score == THRESHOLD

        again = pipeline.loop_rounds(store, settings(out, rounds=4, budget=8))
        assert again.summary["rounds"] == made
        assert again.summary["rounds"][0]["detector"] == base
        assert not [run for run in store.runs(stage="train")[: len(selections)] if run.counts["done"]]


def test_a_stopped_loop_begins_where_it_began(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = workspace.parent / "stopped"
    wanted = settings(out, name="stopped", budget=5, steps=3)
    with Store.open(workspace) as store:
        base = read_current(store, "test").model.spec
        step = rounds.count_failures
        calls = 0

        def interrupted(outcomes: Sequence[Outcome]) -> Failures:
            nonlocal calls
            calls += 1
            if calls == 2:  # after the first round's detector was diagnosed
                raise KeyboardInterrupt
            return step(outcomes)

        monkeypatch.setattr(rounds, "count_failures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.loop_rounds(store, wanted)
        assert read_current(store, "test").model.spec == f"curator:{out / 'round-1.safetensors'}"
        weights = (out / "round-1.safetensors").read_bytes()
        monkeypatch.setattr(rounds, "count_failures", step)
        again = pipeline.loop_rounds(store, wanted)
        assert again.summary["rounds"][0]["detector"] == base
        assert again.summary["rounds"][1]["change"] is not None
        assert (out / "round-1.safetensors").read_bytes() == weights
        assert read_current(store, "test").model.spec == base
        own = settings(out, name="other", detector=f"curator:{out / 'round-1.safetensors'}")
        (workspace.parent / "taken").mkdir()
        (workspace.parent / "taken/round-2.safetensors").write_text("notes")
        with pytest.raises(InputError, match=r"round-2\.safetensors: a file lies there"):  # before any round
            pipeline.loop_rounds(store, settings(workspace.parent / "taken", name="taken"))
        with pytest.raises(InputError, match="a round would overwrite"):
            pipeline.loop_rounds(store, own)


def test_another_threshold_is_taken_for_the_first_detector_too(workspace: Path) -> None:
    with Store.open(workspace) as store:
        base = read_current(store, "test").model.spec
        wanted = settings(
            workspace.parent / "low", name="low", budget=4, steps=2, rounds=1, score_threshold=0.03
        )
        first = pipeline.loop_rounds(store, wanted).summary["rounds"][0]
        assert read_current(store, "test").criteria.score == 0.03
        again = pipeline.loop_rounds(store, replace(wanted, score_threshold=0.4)).summary["rounds"][0]
        assert first["detector"] == again["detector"] == base
        assert again["missed"] > first["missed"]
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=THRESHOLD, device="cpu"))


def test_nothing_to_ask_ends_the_loop(workspace: Path) -> None:
    with Store.open(workspace) as store:
        wanted = settings(workspace.parent / "none", name="none", failures="FP:duplicate,class=red-stem")
        found = pipeline.loop_rounds(store, wanted).summary
    assert found["stopped"] == "nothing of what was asked fails on the mined images"
    assert found["selection"] is None
    assert found["next"] is None


def test_the_loop_ends_when_the_pool_is_used_up(workspace: Path) -> None:
    with Store.open(workspace) as store:
        wanted = settings(workspace.parent / "few", name="few", budget=100, rounds=3, steps=1)
        found = pipeline.loop_rounds(store, wanted)
        if found.summary["rounds"][1]["change"]["high"] < 0:  # else the first round ends it
            assert found.summary["stopped"] == "the pool is used up"


def test_the_command_prints_the_history(workspace: Path) -> None:
    words = [
        "-w",
        str(workspace),
        "loop",
        "--out",
        str(workspace.parent / "cli"),
        "--name",
        "cli",
        "--rounds",
        "1",
    ]
    words += ["--budget", "4", "--steps", "2", "--batch-size", "4", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "failures of the mined images after every round" in done.output
    assert "stopped: " in done.output
    status = CliRunner().invoke(app, ["-w", str(workspace), "status"])
    assert "loop cli: failures per mined image by round: " in status.output


def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds: expected at least 1"):
        settings(tmp_path, rounds=0)
    with pytest.raises(ConfigError, match="method: expected one of"):
        settings(tmp_path, method="guess")
    with pytest.raises(ConfigError, match="learning_rate: expected a finite number"):
        settings(tmp_path, learning_rate=0.0)
    with (
        Store.create(tmp_path / "ws") as store,
        pytest.raises(InputError, match="expected a stored diagnosis"),
    ):
        pipeline.loop_rounds(store, settings(tmp_path / "out"))


def outcomes(kinds: dict[int, list[str]]) -> list[Outcome]:
    return [
        Outcome(
            image_id=i,
            model_id=1,
            kind=kind,  # type: ignore[arg-type]
            category="a",
            cause=None if kind == "TP" else "miss",
            box=(0, 0, 1, 1),
            score=0.5,
            iou=0.5,
            target=TargetRecord(candidate=0, label=0, rule="detection", score=0.5, iou=0.5),
            key=f"{i}{k}",
        )
        for i, own in kinds.items()
        for k, kind in enumerate(own)
    ]


def test_a_change_is_counted_per_image_and_by_video() -> None:
    images = range(10)
    before = count_failures(outcomes({i: ["FN", "TP"] for i in images}))
    after = count_failures(outcomes({i: ["TP"] for i in images}))
    assert (before.missed, before.false, after.missed) == (10, 0, 0)
    assert difference(before, after, images, {}).high == -1
    assert difference(before, after, [3, 4], {}).mean == -1
    half = Failures(missed=5, false=0, by_image={i: int(i % 2) for i in images})
    assert difference(before, half, images, {}).high < 0
    one_video = dict.fromkeys(images, "v")
    assert math.isnan(difference(before, half, images, one_video).high)
    rows = round_rows(
        [{"round": 0, "added": 0, "missed": 10, "false": 0, "failures_per_image": 1.0, "change": None}]
    )
    assert rows == [("0", "0", "10", "0", "1.000", "")]
