"""`synthesize` on a real workspace: labels, verdicts, budget, resuming, what happens without explanations."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from curator import pipeline
from curator.cli.app import main
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError, StageError
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.explain.settings import ExplainConfig
from curator.inpaint.compose import ComposeInpainter
from curator.jobs.local import LocalExecutor
from curator.synthesize.base import SamplePlan, Scene
from curator.synthesize.gate.base import ALONE, AMONG
from curator.synthesize.painting import paint
from curator.synthesize.run_plans import in_turn, wanted_of
from curator.synthesize.run_prepared import prepared
from curator.synthesize.run_reproduce import reproduce
from curator.synthesize.run_sheet import sheet
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import SynthesisItem, SynthesisWork
from store.errors import StoreError
from store.images import read_bytes_as_pixels
from store.records import Sample
from store.store import Store

DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,8,16,16,16"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Detected, diagnosed and (a part of the misses) explained."""
    folder = tmp_path_factory.mktemp("synthesis")
    write_dataset(folder / "data", sizes={"train": 10, "mine": 8, "pool": 1, "holdout": 1}, seed=4, size=96)
    with Store.create(folder / "workspace") as store:
        for role in ("train", "mine"):
            pipeline.add(store, AddConfig(format="coco", path=folder / "data" / role, role=role))
        pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.5))
        pipeline.explain(store, ExplainConfig(failures="FN", samples=2, segments=60, device="cpu"))
    return folder / "workspace"


@pytest.fixture
def config(tiny_folder: Path) -> SynthesizeConfig:
    """Cheap, with the inpainter of random weights."""
    return SynthesizeConfig(
        budget=4, attempts=3, steps=2, batch_size=3, inpainter=f"curator:{tiny_folder}", device="cpu"
    )


def _rows(store: Store, name: str) -> list[tuple[Any, ...]]:
    return [
        (s.key, s.blob, s.recipe, s.group, s.painted, s.annotations, s.seed, s.verdicts)
        for s in store.samples(name=name)
    ]


def test_samples_are_pngs_with_lineage_labels_and_verdicts(workspace: Path, config: SynthesizeConfig) -> None:
    with Store.open(workspace) as store:
        result = pipeline.synthesize(store, config)
        samples = store.samples(name="synthesis")
        assert samples
        assert result.summary["accepted"] == sum(sample.accepted for sample in samples)
        assert result.summary["plans"] == result.done
        assert result.summary["plans"] <= config.budget * config.attempts
        assert result.failed == 0
        train = set(store.image_ids(role="train"))
        mine = set(store.image_ids(role="mine"))
        scenes = {image.id: image for image in store.images(reader="synthesize", role="train")}
        for sample in samples:
            assert sample.scene_image_id in train
            assert sample.exemplar_image_id in mine
            assert [v.check for v in sample.verdicts] == [*ALONE, *AMONG]
            assert all(v.reason for v in sample.verdicts)
            pixels = read_bytes_as_pixels(store.blob(sample.blob))
            assert store.blob(sample.blob)[:4] == b"\x89PNG"
            assert pixels.shape == (sample.height, sample.width, 3)
            _only_the_hole_changed(store, sample, pixels, scenes[sample.scene_image_id])


def _only_the_hole_changed(store: Store, sample: Sample, pixels: Any, scene: Any) -> None:
    if sample.recipe == "appearance":
        return
    original = store.pixels(scene, reader="synthesize")
    x1, y1, x2, y2 = (int(v) for v in sample.painted)
    outside = np.ones(pixels.shape[:2], bool)
    outside[y1:y2, x1:x2] = False
    assert np.array_equal(pixels[outside], original[outside])
    assert not np.array_equal(pixels, original)


def test_the_same_command_again_does_nothing(workspace: Path, config: SynthesizeConfig) -> None:
    with Store.open(workspace) as store:
        first = pipeline.synthesize(store, config)
        rows = _rows(store, "synthesis")
        again = pipeline.synthesize(store, config)
        assert again.done == 0
        assert again.skipped == first.done + first.skipped
        assert _rows(store, "synthesis") == rows
        assert {**again.summary, "unplaced_reasons": 0} == {**first.summary, "unplaced_reasons": 0}


class _Interrupting:
    """Stops after some batches, as a kill would."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def run(self, work: Any, items: Any) -> Iterator[Any]:
        """Run until the batches are spent."""
        for batch in LocalExecutor("cpu").run(work, items):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


def test_an_interrupted_run_continues_to_the_rows_of_an_undisturbed_one(
    workspace: Path, config: SynthesizeConfig
) -> None:
    def stripped(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [row[1:] for row in rows]  # keys hold the batch's name

    with Store.open(workspace) as store:
        pipeline.synthesize(store, dataclasses.replace(config, name="whole", batch_size=5))
        broken = dataclasses.replace(config, name="broken", batch_size=1)
        with pytest.raises(KeyboardInterrupt):
            pipeline.synthesize(store, broken, executor=_Interrupting(2))
        pipeline.synthesize(store, broken)
        assert stripped(_rows(store, "broken")) == stripped(_rows(store, "whole"))


def test_failures_without_culprit_are_said(workspace: Path, config: SynthesizeConfig) -> None:
    with Store.open(workspace) as store:
        summary = pipeline.synthesize(store, dataclasses.replace(config, name="boxes")).summary
    bare = summary["without_explanation"]
    assert (bare > 0) == any("the recipe culprit leaves them out" in note for note in summary["notes"])


def test_wrong_input_is_named(workspace: Path, config: SynthesizeConfig, tmp_path: Path) -> None:
    with Store.open(workspace) as store:
        with pytest.raises(InputError, match="no failure matches"):
            pipeline.synthesize(store, dataclasses.replace(config, failures="FP,class=no-such"))
        with pytest.raises(InputError, match="none of the recipes"):
            pipeline.synthesize(store, dataclasses.replace(config, failures="FN", recipes=("lookalike",)))
        with pytest.raises(InputError, match="compose: has no model that could paint; expected 0"):
            pipeline.synthesize(store, dataclasses.replace(config, inpainter="compose:", strength=0.5))
        with pytest.raises(ConfigError, match="budget"):
            pipeline.synthesize(store, dataclasses.replace(config, budget=0))
    with Store.create(tmp_path / "empty") as store, pytest.raises(InputError, match="curator detect"):
        pipeline.synthesize(store, config)


def test_builtin_paints_for_the_example_s_detector(workspace: Path, config: SynthesizeConfig) -> None:
    with Store.open(workspace) as store:
        flowers = dataclasses.replace(config, name="flowers", inpainter="builtin:", budget=1, steps=1)
        result = pipeline.synthesize(store, flowers)
        assert result.done >= 1
        assert result.failed == 0


def test_builtin_is_refused_for_any_other_detector(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It knows flowers alone: on photographs it painted smears, and the gate took four of five."""
    data, workspace = tmp_path / "data", tmp_path / "workspace"
    write_dataset(data, sizes={"train": 10, "mine": 8, "pool": 1, "holdout": 1}, seed=4, size=96)
    with Store.create(workspace) as store:
        for role in ("train", "mine"):
            pipeline.add(store, AddConfig(format="coco", path=data / role, role=role))
        other = "curator:ssd?classes=car,red-stem&size=96&channels=8,8,16,16,16"
        pipeline.detect(store, DetectConfig(detector=other, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.5, class_map={"car": "red-blossom"}))
    run = ["curator", "-w", str(workspace), "synthesize", "--budget", "1", "--steps", "1", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*run, "--inpainter", "builtin:"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    for told in ("builtin:", "this detector finds car;", "auto:FOLDER_OR_ID", "curator:DIR"):
        assert told in lines[0]
    with Store.open(workspace) as store:
        assert not store.runs(stage="synthesize")
        unnamed = SynthesizeConfig(name="unnamed", budget=2, recipes=("object",), device="cpu")
        composed = pipeline.synthesize(store, unnamed)
        assert composed.failed == 0
        assert composed.summary["inpainter"] == "compose:"
        assert composed.summary["strength"] == 0
        assert any("real pixels were composed" in note for note in composed.summary["notes"])
        own = SynthesizeConfig(budget=1, steps=1, inpainter=f"curator:{tiny_folder}", device="cpu")
        assert pipeline.synthesize(store, own).failed == 0


def test_a_sample_is_reproduced_byte_by_byte_and_a_changed_past_is_named(
    workspace: Path, config: SynthesizeConfig
) -> None:
    with Store.open(workspace) as store:
        painted = dataclasses.replace(config, name="again", strength=0.5)
        pipeline.synthesize(store, painted)
        for sample in store.samples(name="again")[:2]:
            png, lineage = reproduce(store, int(sample.id or 0), device="cpu")
            assert png == store.blob(sample.blob)
            assert lineage["equal"]
            assert lineage["strength"] == 0.5
            assert lineage["exemplar"] == sample.exemplar_image_id
        with pytest.raises(InputError, match="no sample 999999"):
            reproduce(store, 999999)
        stranger = dataclasses.replace(sample, key="another", name="again", number=sample.number)
        run = store.runs(stage="synthesize")[0]
        number = store.put_sample(run.id, stranger)
        with pytest.raises(InputError, match="are not what they were"):
            reproduce(store, number)


def test_the_gate_is_calibrated_once_and_stored_with_the_run(
    workspace: Path, config: SynthesizeConfig
) -> None:
    with Store.open(workspace) as store:
        one = pipeline.synthesize(store, dataclasses.replace(config, name="gated", budget=1))
        two = pipeline.synthesize(store, dataclasses.replace(config, name="gated", budget=2))
        runs = store.runs(stage="synthesize")[:2]
        assert runs[0].facts["gate_blob"] == runs[1].facts["gate_blob"]
        assert one.summary["gate"] == two.summary["gate"] == runs[0].facts["gate"]
        assert sorted(one.summary["gate"]) == sorted([*ALONE, *AMONG])
        page = sheet(store, store.samples(name="gated"))
        assert "of them refused" in page
        assert page.count("data:image/jpeg") == len(store.samples(name="gated"))


def test_strength_and_refused_have_ranges(config: SynthesizeConfig) -> None:
    with pytest.raises(ConfigError, match=r"strength: expected a number in \[0, 1\]"):
        dataclasses.replace(config, strength=1.5)
    with pytest.raises(ConfigError, match="refused: expected a share"):
        dataclasses.replace(config, refused=0.0)


def test_one_plan_that_cannot_be_painted_leaves_its_batch_mates_alone() -> None:
    """A model that runs out of memory on one picture: that plan fails, the others are painted."""

    class Small(ComposeInpainter):
        """The real one, on a machine without room for large holes."""

        def inpaint(self, images: torch.Tensor, masks: torch.Tensor, **given: Any) -> torch.Tensor:
            if masks.sum() > 50:
                raise MemoryError("out of memory")
            return super().inpaint(images, masks, **given)

    def plan(side: int) -> SamplePlan:
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[:side, :side] = True
        scene = Scene(image_id=1, image=torch.ones(3, 32, 32), annotations=())
        return SamplePlan(
            recipe="object",
            group="g",
            scene=scene,
            exemplar=torch.ones(3, 4, 4),
            exemplar_image_id=1,
            outcome_id=1,
            mask=mask,
            composed=torch.zeros(3, 32, 32),
            painted=(0, 0, side, side),
            annotations=(),
            seed=0,
        )

    made = paint(Small(), {0: plan(5), 1: plan(20), 2: plan(3)}, 0.0)
    assert isinstance(made[1], MemoryError)
    assert not isinstance(made[0], Exception)
    assert float(made[0].sum()) == 3 * (32 * 32 - 25)
    assert not isinstance(made[2], Exception)


def test_of_several_scenes_the_one_that_suits_best_is_painted_on(
    workspace: Path, config: SynthesizeConfig
) -> None:
    with Store.open(workspace) as store:
        ready = prepared(store, dataclasses.replace(config, recipes=("object",), scenes=6))
        compared = 0
        for item in ready.items:
            assert len({scene.image.id for scene in item.scenes}) == 6
            alone = {}
            for scene in item.scenes:
                with contextlib.suppress(StageError):
                    plan = ready.work.plan(dataclasses.replace(item, scenes=(scene,)))
                    alone[scene.image.id] = plan.details["fit"]
            if not alone:
                with pytest.raises(StageError, match="scene"):
                    ready.work.plan(item)
                continue
            chosen = ready.work.plan(item)
            assert chosen.details["fit"] == max(alone.values())
            assert alone[chosen.scene.image_id] == chosen.details["fit"]
            compared += len(alone) > 1
        assert compared


def test_an_inpainter_is_trained_on_the_way(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace.parent, tmp_path / "copy")
    config = SynthesizeConfig(
        inpainter="train",
        train_minutes=0.001,
        budget=2,
        attempts=2,
        steps=2,
        recipes=("object",),
        device="cpu",
    )
    with Store.open(tmp_path / "copy" / "workspace") as store:
        result = pipeline.synthesize(store, config)
        folder = store.path / "inpainter"
        assert result.summary["inpainter"] == f"curator:{folder}"
        assert result.summary["strength"] == 0.6
        assert (folder / "model_index.json").is_file()
        assert len(store.runs(stage="train-inpainter")) == 1
        sample = store.samples(name="synthesis")[0]
        assert reproduce(store, cast(int, sample.id), device="cpu")[1]["equal"]
        again = pipeline.synthesize(store, config)
        assert (again.done, again.skipped) == (0, result.done)


def test_a_scene_that_cannot_be_read_is_passed_over_and_told(
    workspace: Path, config: SynthesizeConfig, tmp_path: Path
) -> None:
    shutil.copytree(workspace.parent, tmp_path / "copy")
    with Store.open(tmp_path / "copy" / "workspace") as store:
        ready = prepared(store, dataclasses.replace(config, recipes=("appearance",), scenes=3))
        item = next(item for item in ready.items if _fits(ready.work, item))
        broken = dataclasses.replace(
            item.scenes[0].image, uri=str(tmp_path / "gone.png"), id=item.scenes[0].image.id
        )
        first = dataclasses.replace(item.scenes[0], image=broken)
        unreadable: list[str] = []
        plan = ready.work.plan(dataclasses.replace(item, scenes=(first, *item.scenes)), unreadable)
        assert plan.scene.image_id in {scene.image.id for scene in item.scenes}
        assert len(unreadable) == 1
        assert "gone.png" in unreadable[0]
        with pytest.raises(StoreError, match=r"gone\.png"):
            ready.work.plan(dataclasses.replace(item, scenes=(first,)))
        # Where the others have no place it is an error, to be tried again, not a plan without a place.
        bare = dataclasses.replace(item.scenes[0], annotations=())
        with pytest.raises(StoreError, match=r"gone\.png"):
            ready.work.plan(dataclasses.replace(item, scenes=(first, bare)))


def test_a_gone_scene_is_named_when_its_sample_is_painted_anew(
    workspace: Path, config: SynthesizeConfig, tmp_path: Path
) -> None:
    with Store.open(workspace) as store:
        pipeline.synthesize(store, config)
        sample = store.samples(name="synthesis")[0]
        (scene,) = store.images(reader="synthesize", ids=[sample.scene_image_id])
        file = Path(scene.uri)
        file.rename(tmp_path / "moved.png")
        try:
            with pytest.raises(StoreError, match=file.name):
                reproduce(store, cast(int, sample.id), device="cpu")
        finally:
            (tmp_path / "moved.png").rename(file)


def _fits(work: SynthesisWork, item: SynthesisItem) -> bool:
    try:
        work.plan(item)
    except StageError:
        return False
    return True


def test_groups_are_answered_by_the_share_of_their_class_that_fails(
    workspace: Path, config: SynthesizeConfig
) -> None:
    with Store.open(workspace) as store:
        ready = prepared(store, dataclasses.replace(config, budget=50, attempts=8, recipes=("object",)))
        wanted = wanted_of(ready.failures, ready.current.outcomes)
    answered = Counter(item.failure.group for item in ready.items)
    total = sum(wanted[group] for group in answered)
    for group, count in answered.items():
        assert count == pytest.approx(400 * wanted[group] / total, abs=1.01)
    turns = [next(names) for names in [in_turn({"often": 0.9, "seldom": 0.1})] for _ in range(20)]
    assert turns.count("seldom") == 2
    assert turns.index("seldom") < 10


def test_a_rare_class_that_is_always_missed_outweighs_one_odd_failure(
    workspace: Path, config: SynthesizeConfig
) -> None:
    with Store.open(workspace) as store:
        one = prepared(store, config).failures[0]

    def outcomes(category: str, kind: str, cause: str, count: int) -> list[Any]:
        return [
            dataclasses.replace(one.outcome, category=category, kind=kind, cause=cause) for _ in range(count)
        ]

    rare, common = outcomes("rare", "FN", "miss", 6), outcomes("common", "FN", "miss", 100)
    odd = outcomes("common", "FN", "mislocalised", 1)
    failures = [
        dataclasses.replace(one, outcome=o, group=f"FN:{o.cause}:{o.category}")
        for o in (*rare, *common, *odd)
    ]
    found = outcomes("common", "TP", "", 899)
    wanted = wanted_of(failures, [*rare, *common, *odd, *found])
    # Wilson's lower end by hand: (p + z^2/2n - z sqrt(p(1 - p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96.
    assert wanted == pytest.approx(
        {"FN:miss:rare": 0.6097, "FN:miss:common": 0.0829, "FN:mislocalised:common": 0.0001765}, rel=2e-3
    )
