"""An item that fails in any stage fails alone: exit code 3, the others stored, nothing of it stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.config import StageConfig
from curator.data.settings import AddConfig
from curator.detect.checking import predict_all
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError, StageError
from curator.explain.settings import ExplainConfig
from curator.jobs.stage import recorded_run, run_items
from curator.prove.settings import VerifyConfig
from curator.prove.trials import predict
from curator.query.settings import IndexConfig
from curator.represent.embedders.pixels import pixel_maps
from curator.synthesize.work import detect
from curator.tensors import image_tensor
from store.records import Detections, DetectionSet, ImageBoxes, SpaceShape
from store.store import Store

SSD = "curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5"
NAN = float("nan")


@pytest.fixture(autouse=True)
def _answering_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def write_images(folder: Path, count: int, seed: int) -> None:
    """Pictures 100, 120, 140, ... pixels wide, with one labelled object each."""
    (folder / "images").mkdir(parents=True)
    records, boxes = [], []
    for number in range(count):
        noise = np.random.default_rng([seed, number]).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        blocks = Image.fromarray(noise).resize((100 + 20 * number, 90), Image.Resampling.NEAREST)
        blocks.save(folder / "images" / f"{number}.png")
        records.append({"id": number, "file_name": f"{number}.png", "width": 100 + 20 * number, "height": 90})
        boxes.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [10, 10, 40, 50],
                "area": 2000,
                "iscrowd": 0,
            }
        )
    names = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": records, "annotations": boxes, "categories": names})
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Five labelled mined images and two of a pool."""
    write_images(tmp_path / "mine", 5, 1)
    write_images(tmp_path / "pool", 2, 2)
    with Store.create(tmp_path / "ws") as opened:
        for role in ("mine", "pool"):
            pipeline.add(opened, AddConfig(format="coco", path=tmp_path / role, role=role))
        yield opened


def image_of(store: Store, number: int) -> int:
    """The id of mined image `number`."""
    return next(
        i.id for i in store.images(reader="detect", role="mine") if Path(i.uri).name == f"{number}.png"
    )


def test_a_broken_answer_costs_its_image_alone(store: Store) -> None:
    config = DetectConfig(detector="python:answering:broken_at?width=140", device="cpu")
    result = pipeline.detect(store, config)
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    ((item, reason),) = result.failures
    assert Path(item).name == "2.png"
    assert "box 1 [60, 80, 20, 30]" in reason
    stored = store.detections(result.summary["model"], store.image_ids(role="mine"))
    assert image_of(store, 2) not in stored
    assert [s.detections.boxes.tolist() for s in stored.values()] == [[[10, 10, 50, 60]]] * 4
    assert (result.summary["dropped_boxes"], result.summary["detections"]) == (8, 4)


def test_an_image_that_failed_at_detect_does_not_stop_the_diagnosis_of_the_rest(store: Store) -> None:
    pipeline.detect(store, DetectConfig(detector="python:answering:broken_at?width=140", device="cpu"))
    result = pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    ((item, reason),) = result.failures
    assert Path(item).name == "2.png"
    assert "box 1 [60, 80, 20, 30]" in reason
    assert (result.summary["images"], result.summary["unlabelled"]) == (4, 0)
    assert [row["tp"] for row in result.summary["classes"]] == [4]


def test_images_that_detect_never_saw_stop_the_diagnosis(store: Store, tmp_path: Path) -> None:
    pipeline.detect(store, DetectConfig(detector="python:answering:broken_at?width=140", device="cpu"))
    write_images(tmp_path / "more", 3, 3)
    pipeline.add(store, AddConfig(format="coco", path=tmp_path / "more", role="mine"))
    with pytest.raises(InputError, match=r"4 of 8 mined images have no detections.*curator detect"):
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))


def test_empty_lists_are_nothing_found_and_fractions_are_asked_about(store: Store) -> None:
    nothing = pipeline.detect(store, DetectConfig(detector="python:answering:lists", device="cpu"))
    assert (nothing.done, nothing.exit_code, nothing.summary["detections"]) == (5, 0, 0)
    assert nothing.summary["dropped_boxes"] == 0
    assert pipeline.diagnose(store, DiagnoseConfig(device="cpu")).summary["classes"][0]["fn"] == 5
    told = CliRunner().invoke(
        app,
        ["-w", str(store.path), "detect", "--detector", "python:answering:fractions", "--device", "cpu"],
    )
    assert told.exit_code == 0, told.output
    assert "5 boxes were dropped" in told.stdout
    assert "expected in pixels" in " ".join(told.stdout.split())


def put_stored(store: Store, number: int, boxes: Sequence[Sequence[float]]) -> None:
    """Replace what is stored of an image as an older version of `detect` stored it: unchecked."""
    model = store.models()[0]
    found = store.detections(model.id, [image_of(store, number)])[image_of(store, number)]
    n = len(boxes)
    key = store.runs(stage="detect")[0].config_key
    with recorded_run(store, "detect", DetectConfig(detector=model.spec), config_key=key) as (run_id, _):
        store.put_detections(
            run_id,
            [
                DetectionSet(
                    image_id=found.image_id,
                    model_id=model.id,
                    detections=Detections(
                        boxes=np.array(boxes),
                        scores=np.full(n, 0.9),
                        labels=np.zeros(n, int),
                        candidates=np.arange(n),
                    ),
                    pin=found.pin,
                    key=f"older-{number}",
                )
            ],
        )


def sliver(store: Store) -> tuple[float, float, float, float]:
    """A box of image 0, 0.006 px wide, whose ring once had a negative mean: it ends where a block does."""
    detector = load_detector(SSD, "cpu")
    image = store.images(reader="detect", ids=[image_of(store, 0)])[0]
    pixels = image_tensor(store.pixels(image, reader="detect"))
    answer = predict_all(detector, [pixels], score_threshold=0.5)[0]
    steps = pixel_maps(detector.prepare(pixels, answer.pin)[None]).values[0, 11, 6]  # |grey to the right|
    column = next(c for c in range(4, 90) if steps[c] > 0.02 and steps[c - 3 : c].max() == 0)
    x, y = (column - 0.006) / answer.pin.scale[0], 6 / answer.pin.scale[1]
    half = 0.003 / answer.pin.scale[0]
    return x - half, y, x + half, y + 1.5


def test_stored_boxes_without_area_stop_neither_index_nor_explain(store: Store) -> None:
    """Once: "expected finite values" ended `index` for all images."""
    pipeline.detect(store, DetectConfig(detector=SSD, device="cpu"))
    put_stored(store, 0, [[100, 90, 100, 90], [66.00, 40.79, 66.03, 40.79], sliver(store)])
    assert pipeline.diagnose(store, DiagnoseConfig(device="cpu")).exit_code == 0
    assert (100, 90, 100, 90) in [outcome.box for outcome in store.outcomes()]
    explained = pipeline.explain(
        store, ExplainConfig(failures="FP", samples=2, segments=12, successes=0, device="cpu")
    )
    indexed = pipeline.index(store, IndexConfig(device="cpu"))
    assert (explained.failed, indexed.done, indexed.failed) == (0, 7, 0)


def test_stored_boxes_that_are_no_numbers_fail_their_image_in_diagnose_alone(store: Store) -> None:
    pipeline.detect(store, DetectConfig(detector=SSD, device="cpu"))
    put_stored(store, 3, [[10, 10, 50, 60], [NAN] * 4])
    result = pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    assert Path(result.failures[0][0]).name == "3.png"
    assert "box 1 [nan" in result.failures[0][1]
    assert result.summary["images"] == 4
    assert image_of(store, 3) not in {outcome.image_id for outcome in store.outcomes()}


def test_an_embedder_that_gives_no_numbers_fails_the_image_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plug-in answers NaN for one image of a batch: its vectors are refused, those of the rest stored."""
    from curator.represent.embedders.detector import DetectorEmbedder

    class Failing(DetectorEmbedder):
        def embed(self, u: Any, pins: Any, boxes: Any, **more: Any) -> Any:
            views = super().embed(u, pins, boxes, **more)
            for pin, own in zip(pins, views, strict=True):
                if pin.image_size[1] == 140:
                    own["context"][3] = NAN
            return views

    monkeypatch.setattr("curator.represent.embedders.detector.DetectorEmbedder", Failing)
    pipeline.detect(store, DetectConfig(detector=SSD, device="cpu"))
    pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    result = pipeline.index(store, IndexConfig(device="cpu", batch_size=4))
    assert (result.done, result.failed, result.exit_code) == (6, 1, 3)
    assert Path(result.failures[0][0]).name == "2.png"
    assert "view context" in result.failures[0][1]
    rows = store.boxes(result.summary["space"], "offered")
    assert image_of(store, 2) not in rows.image_ids
    assert len(set(rows.image_ids.tolist())) == 6


def test_an_answer_that_breaks_on_masked_images_fails_that_image_in_explain_alone(store: Store) -> None:
    spec = "python:answering:broken_when_masked?width=140"
    assert pipeline.detect(store, DetectConfig(detector=spec, device="cpu")).exit_code == 0
    pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    result = pipeline.explain(
        store,
        ExplainConfig(failures="FP", method="occlusion", segments=12, successes=0, device="cpu"),
    )
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    ((item, reason),) = result.failures
    assert Path(item).name == "2.png"
    assert "box 1 [60, 80, 20, 30]" in reason


def test_verify_names_the_holdout_image_of_a_broken_answer(store: Store) -> None:
    detector = load_detector("python:answering:broken_at?width=140", "cpu")
    images = store.images(reader="detect", role="mine")
    found = list(predict(detector, images[:2], 2, label="holdout"))
    assert [d.boxes.tolist() for d, _ in found] == [[[10, 10, 50, 60]]] * 2
    with pytest.raises(InputError, match=r"2\.png: .*box 1 \[60, 80, 20, 30\]"):
        list(predict(detector, images, 2, label="holdout"))


def test_the_gate_fails_the_sample_of_a_broken_answer_alone() -> None:
    detector = load_detector("python:answering:broken_at?width=140", "cpu")
    first, broken, last = detect(
        detector, [torch.rand(3, 90, w) for w in (100, 140, 120)], torch.device("cpu"), {"a": "car"}
    )
    assert isinstance(broken, InputError)
    assert first == last == [("car", pytest.approx(0.9), (10, 10, 50, 60))]


@dataclass
class Doubling:
    """Doubles numbers; a tuple of vectors per item."""

    batch_size: int = 3

    def key(self, item: int) -> str:
        return f"item-{item}"

    def setup(self, device: str) -> None:
        return None

    def process(self, state: None, batch: Sequence[int]) -> list[Any]:
        if 4 in batch:
            raise StageError("four is not doubled")
        return [StageError("no two") if item == 2 else 2 * item for item in batch]


@pytest.mark.parametrize("trouble", [ValueError, StageError, InputError])
def test_a_result_that_cannot_be_stored_fails_alone(store: Store, trouble: type[Exception]) -> None:
    """Rows and vectors written before the trouble go with it; those of the batch mates stay."""
    image = image_of(store, 0)
    (record,) = store.images(reader="detect", ids=[image])
    size = (record.height, record.width)

    def save(done: Any) -> None:
        shown = ImageBoxes(
            image_id=image,
            key=done.key,
            size=size,
            boxes=np.array([[0, 0, 1, 1]], np.float32),
            labels=np.zeros((0, 5), np.int64),
            scores=np.zeros((0, 5), np.float32),
            views={"object": np.full((1, 2), done.value, np.int8)},
            image_views={},
        )
        store.put_boxes(run_id, "e", "offered", [shown])
        if done.item == 1:
            raise trouble("one cannot be stored")

    with recorded_run(store, "doubling", StageConfig()) as (run_id, counts):
        store.create_space(run_id, "e", SpaceShape(views={"object": 2}, image_views={}, classes=1))
        result = run_items(
            store, run_id, counts, stage="doubling", work=Doubling(), items=list(range(6)), save=save
        )
    assert (result.done, result.failed, result.exit_code) == (3, 3, 3)
    assert [item for item, _ in sorted(result.failures)] == ["1", "2", "4"]
    assert sorted(store.boxes("e", "offered").views["object"][:, 0].tolist()) == [0, 6, 10]
    assert store.done_keys("doubling", [f"item-{i}" for i in range(6)]) == {"item-0", "item-3", "item-5"}
    assert {item.key for item in store.failed_items(run_id)} == {"item-1", "item-2", "item-4"}
    with Store.open(store.path) as again:
        assert sorted(again.boxes("e", "offered").views["object"][:, 0].tolist()) == [0, 6, 10]


def test_trouble_of_the_run_itself_ends_it(store: Store) -> None:
    def save(done: Any) -> None:
        raise OSError("no space left on device")

    with (
        pytest.raises(OSError, match="no space"),
        recorded_run(store, "doubling", StageConfig()) as (run_id, counts),
    ):
        run_items(store, run_id, counts, stage="doubling", work=Doubling(), items=[1], save=save)


# ---------------------------------------------------------------- score floors


def test_a_threshold_below_the_floor_of_the_detections_is_refused(store: Store) -> None:
    pipeline.detect(store, DetectConfig(detector=SSD, score_floor=0.2, device="cpu"))
    with pytest.raises(InputError, match=r"--score-threshold 0\.1: .*down to 0\.2 .*--score-floor 0\.1"):
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.1, device="cpu"))
    assert pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.2, device="cpu")).exit_code == 0
    pipeline.detect(store, DetectConfig(detector=SSD, score_floor=0.1, device="cpu"))
    assert pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.1, device="cpu")).exit_code == 0


def test_of_two_floors_the_higher_counts(store: Store, tmp_path: Path) -> None:
    """Images added later are detected on at another floor, by a command that sees both kinds of rows."""
    low, high = (DetectConfig(detector=SSD, score_floor=f, device="cpu") for f in (0.1, 0.3))
    pipeline.detect(store, low)
    write_images(tmp_path / "more", 2, 3)
    pipeline.add(store, AddConfig(format="coco", path=tmp_path / "more", role="mine"))
    pipeline.detect(store, high)
    with pytest.raises(InputError, match=r"down to 0\.3"):
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.2, device="cpu"))
    result = pipeline.detect(store, low)
    assert (result.done, result.skipped) == (2, 5)
    assert pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.2, device="cpu")).exit_code == 0


def test_a_floor_below_what_a_black_box_reports_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"--score-floor 0\.001: .*reports nothing below 0\.01"):
        pipeline.detect(store, DetectConfig(detector=f"blackbox:{SSD}", score_floor=0.001, device="cpu"))


def test_verify_refuses_a_threshold_below_its_own_floor(store: Store) -> None:
    with pytest.raises(InputError, match=r"--score-threshold 0\.03: .*down to 0\.05"):
        pipeline.verify(store, VerifyConfig(arms=("nothing",), score_threshold=0.03, device="cpu"))
