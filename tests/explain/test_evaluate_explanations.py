"""`evaluate-explanations` on a real workspace: targets, table, files, one image's trouble, refusals."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curator.cli import main
from curator.errors import ConfigError, InputError, RegistryError, StageError
from curator.explain.evaluation_output import conclusion
from curator.explain.methods.e2x import SegmentIntegratedGradients
from curator.explain.run_evaluate import draw_targets, evaluate_explanations
from curator.explain.settings import EvaluateConfig
from store.records import Outcome, TargetRecord
from store.store import Store
from tests.diagnosed import make_diagnosed

IMAGES = 2


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two images."""
    return make_diagnosed(tmp_path_factory.mktemp("evaluate"), IMAGES)


def quick(folder: Path, **changes: object) -> EvaluateConfig:
    values: dict[str, object] = {
        "methods": ("e2x", "ig_s", "permutation@1"),
        "samples": (4, 8),
        "targets": 4,
        "reference_pairs": 4,
        "segments": 12,
        "out": folder / "out" / "evaluation.json",
        "plot": folder / "out" / "evaluation.svg",
        "device": "cpu",
        **changes,
    }
    return EvaluateConfig(**values)  # type: ignore[arg-type]


def test_every_method_is_measured_on_the_same_targets(diagnosed: Path, tmp_path: Path) -> None:
    config = quick(tmp_path, methods=("e2x", "ig_s", "odam", "permutation@1"))
    with Store.open(diagnosed) as store:
        result = evaluate_explanations(store, config)
        assert (result.done, result.failed, result.exit_code) == (IMAGES, 0, 0), result.failures
        run = store.runs(stage="evaluate-explanations")[0]
        assert (run.id, run.status, run.counts) == (result.run_id, "done", {"done": 2, "failed": 0})
        assert store.attributions() == []  # nothing but the run is recorded
    summary = json.loads(config.out.read_text())
    assert summary == json.loads(json.dumps(result.summary))
    rows = {row["method"]: row for row in summary["rows"]}
    # odam takes no notice of K: it is run once
    assert set(rows) == {"e2x@4", "ig_s@4", "e2x@8", "ig_s@8", "odam@4", "permutation@1"}
    costs = [row["passes"] for row in summary["rows"]]
    assert costs == sorted(costs)  # the cheapest first
    assert [rows[name]["passes"] for name in ("e2x@4", "ig_s@4", "e2x@8", "ig_s@8")] == [10, 10, 18, 18]
    assert sum(summary["targets"].values()) == len(summary["each"]) == 4
    kept = [each for each in summary["each"] if each["evidence"]]
    assert kept, "the untrained detector's scores move by more than the floor"
    assert summary["without_evidence"] == 4 - len(kept)
    for each in summary["each"]:
        assert set(each["measures"]) == (set(rows) if each["evidence"] else set())
        strongest = max(map(abs, each["reference"]))
        assert (strongest > 1e-3) == each["evidence"]
    for row in rows.values():
        assert row["targets"] == len(kept)
        assert -1 <= row["r"] <= 1
        assert row["seconds"] > 0
        if row["method"] == "odam@4":
            assert row["relative_error"] is None  # a grid that claims no completeness
        else:
            assert row["relative_error"] >= 0
        assert 0 <= row["pointing"] <= 1
        assert 0 <= row["energy"] <= 1
        mean = np.mean([each["measures"][row["method"]]["r"] for each in kept])
        assert row["r"] == pytest.approx(mean)
    best = max(rows.values(), key=lambda row: row["r"])
    assert best["behind_best"] == {"mean": 0, "low": 0, "high": 0} or best["behind_best"]["low"] is None
    assert all(row["behind_best"]["mean"] >= 0 for row in rows.values())
    assert summary["conclusion"].startswith("Most faithful at its cost: ")
    assert best["method"] in summary["conclusion"]
    assert config.plot.read_text().startswith("<svg")
    assert sorted(p.name for p in config.out.parent.iterdir()) == ["evaluation.json", "evaluation.svg"]


def test_the_numbers_depend_on_neither_company_nor_batches(diagnosed: Path, tmp_path: Path) -> None:
    with Store.open(diagnosed) as store:
        several = evaluate_explanations(store, quick(tmp_path, methods=("e2x@4", "ig_s@4"))).summary
        alone = evaluate_explanations(
            store, quick(tmp_path, methods=("e2x@4",), batch_size=3, per_image=3)
        ).summary
    first = {each["outcome"]: each for each in several["each"]}
    for each in alone["each"]:
        other = first[each["outcome"]]
        assert each["reference"] == pytest.approx(other["reference"], abs=1e-5)
        for name, value in each["measures"].get("e2x@4", {}).items():
            if name != "seconds" and value is not None:
                assert value == pytest.approx(other["measures"]["e2x@4"][name], abs=1e-3), name


def test_one_image_that_changed_and_one_method_that_breaks_do_not_stop_the_rest(
    diagnosed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = diagnosed.parent / "1.png"
    original = broken.read_bytes()
    broken.write_bytes(original + b"x")

    def breaks(self: object, *arguments: object, **named: object) -> None:
        raise StageError("ig_s: expected finite scores, got nan")

    monkeypatch.setattr(SegmentIntegratedGradients, "explain", breaks)
    try:
        with Store.open(diagnosed) as store:
            result = evaluate_explanations(store, quick(tmp_path, methods=("e2x@4", "ig_s@4")))
    finally:
        broken.write_bytes(original)
    assert (result.done, result.failed, result.exit_code) == (1, 2, 3)
    assert sorted(name for name, _ in result.failures) == sorted(
        [f"{diagnosed.parent / '0.png'} by ig_s@4", str(broken)]
    )
    assert [row["method"] for row in result.summary["rows"]] == ["e2x@4"]


def test_wrong_requests_are_refused_before_any_work(diagnosed: Path, tmp_path: Path) -> None:
    with Store.open(diagnosed) as store:
        with pytest.raises(RegistryError, match=r"choose one of: .*e2x"):
            evaluate_explanations(store, quick(tmp_path, methods=("magic",)))
        with pytest.raises(ConfigError, match="knows the settings"):
            evaluate_explanations(store, quick(tmp_path, methods=("e2x?colour=red",)))
        with pytest.raises(ConfigError, match="--fill: expected one of mean"):
            evaluate_explanations(store, quick(tmp_path, fill="magic"))
        with pytest.raises(InputError, match="run curator diagnose first"):
            evaluate_explanations(store, quick(tmp_path, detector="curator:other.safetensors"))
        with pytest.raises(InputError, match=r"--out .*: expected a file, got a folder"):
            evaluate_explanations(store, quick(tmp_path, out=tmp_path))
        if Path("/proc/self").is_dir():  # where nobody writes
            for wrong in ({"out": Path("/proc/x.json")}, {"plot": Path("/proc/x.svg")}):
                with pytest.raises(InputError, match=r"/proc/x.*expected a writable file"):
                    evaluate_explanations(store, quick(tmp_path, **wrong))
        assert store.runs(stage="evaluate-explanations")[0].counts["failed"] in (0, 2)


def outcome(number: int, image: int, kind: str) -> Outcome:
    target = TargetRecord(candidate=number, label=0, rule="detection", score=0.5, iou=1.0)
    return Outcome(
        image_id=image,
        model_id=1,
        kind=kind,  # type: ignore[arg-type]
        cause=None if kind == "TP" else "miss" if kind == "FN" else "background",
        category="a",
        box=(0.0, 0.0, 9.0, 9.0),
        score=0.5,
        iou=1.0,
        target=target,
        detection_index=None if kind == "FN" else 0,
        key=f"{image}-{number}",
        id=number,
    )


class TestDrawing:
    def crowd(self) -> list[Outcome]:
        """30 images with five successes and two misses each; a false positive on each tenth."""
        kinds = ["TP"] * 5 + ["FN"] * 2
        found = [outcome(10 * i + j, i, kind) for i in range(30) for j, kind in enumerate(kinds)]
        return found + [outcome(10 * i + 9, i, "FP") for i in (0, 10, 20)]

    def test_kinds_in_turn_few_per_image_the_same_for_a_seed(self) -> None:
        config = EvaluateConfig(targets=12)
        drawn = draw_targets(self.crowd(), config)
        kinds = Counter(o.kind for o in drawn)
        assert kinds["FP"] == 3  # all there are
        assert kinds["FN"] + kinds["TP"] == 9
        assert abs(kinds["FN"] - kinds["TP"]) <= 1
        per_image = Counter(o.image_id for o in drawn)
        assert max(per_image.values()) <= 3
        assert len(per_image) <= 7  # they share references
        assert len({o.key for o in drawn}) == 12
        assert draw_targets(self.crowd()[::-1], config) == drawn
        assert draw_targets(self.crowd(), replace(config, seed=1)) != drawn

    def test_few_outcomes_are_all_drawn_and_none_is_refused(self) -> None:
        assert len(draw_targets(self.crowd()[:2], EvaluateConfig(targets=12))) == 2
        assert len(draw_targets(self.crowd()[:7], EvaluateConfig(targets=12, per_image=3))) == 3
        with pytest.raises(InputError, match="run curator diagnose"):
            draw_targets([], EvaluateConfig())


class TestConclusion:
    @staticmethod
    def row(method: str, passes: float, r: float | None, low: float | None = 0.1) -> dict[str, object]:
        return {"method": method, "passes": passes, "r": r, "behind_best": {"low": low}}

    def test_the_best_at_each_cost_is_named(self) -> None:
        rows = [
            self.row("odam@16", 3, 0.4),
            self.row("lime@16", 18, 0.3),
            self.row("e2x@16", 34, 0.8),
            self.row("ig_s@16", 34, 0.7),
            self.row("ig_s@64", 130, 0.9, low=-0.01),
            self.row("e2x@64", 130, 0.95, low=0.0),
            self.row("sp@1", 900, None),
        ]
        assert conclusion(rows) == (
            "Most faithful at its cost: odam@16 from 3 passes (r 0.40), then e2x@16 from 34 passes (r 0.80), "
            "then e2x@64 from 130 passes (r 0.95); these targets do not tell it from ig_s@64."
        )

    def test_without_evidence_nothing_is_named(self) -> None:
        assert conclusion([self.row("e2x@16", 34, None)]).startswith("No method could be compared")


def test_the_command_prints_one_table_and_a_sentence(
    diagnosed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["curator", "-w", str(diagnosed), "evaluate-explanations", "--methods", "e2x, ig_s"]
    arguments += ["--samples", "2", "--targets", "2", "--reference-pairs", "2", "--segments", "8"]
    arguments += ["--out", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "energy in box" in printed
    assert "e2x@2" in printed
    assert printed.rstrip().endswith(".")
    assert "Most faithful at its cost" in printed or "No method could be compared" in printed
    monkeypatch.setattr("sys.argv", [*arguments, "--samples", "two"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--samples: expected whole numbers" in capsys.readouterr().err
