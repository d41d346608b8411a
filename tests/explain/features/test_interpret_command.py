"""`curator interpret` on a few scenes of the built-in example, and `vebi` with what it wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curator import pipeline
from curator.cli import main
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.settings import DetectConfig
from curator.errors import ConfigError, InputError
from curator.example.dataset import write_dataset
from curator.explain.base import AttributionOptions, Target
from curator.explain.features.base import Interpretation
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.vebi import Vebi
from curator.explain.run_interpret import interpret
from curator.explain.settings import InterpretConfig
from curator.tensors import image_tensor
from store.images import read_bytes_as_pixels
from store.store import Store


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two mined scenes; the mined ones have stored detections, hence pins."""
    root = tmp_path_factory.mktemp("interpret")
    folders = write_dataset(root / "data", sizes={"train": 6, "mine": 2, "pool": 0, "holdout": 0}, size=96)
    with Store.create(root / "ws") as store:
        for role in ("train", "mine"):
            path = folders[role] / "annotations.json"
            pipeline.add(store, AddConfig(format="coco", path=path, role=role, workers=1))
        pipeline.detect(store, DetectConfig(detector="builtin:", device="cpu"))
    return root


def config(root: Path, **changes: object) -> InterpretConfig:
    settings = {"detector": "builtin:", "out": root / "out", "device": "cpu", "features": 2, **changes}
    return InterpretConfig(**settings)  # type: ignore[arg-type]


def test_a_fit_is_written_shown_recorded_and_used(workspace: Path) -> None:
    out = workspace / "out"
    with Store.open(workspace / "ws") as store:
        result = interpret(store, config(workspace))
        assert (result.done, result.skipped, result.failed) == (8, 0, 0)
        run = store.runs(stage="interpret")[0]
        assert run.status == "done"
        assert run.config["mu"] == 10.0
        again = interpret(store, config(workspace))
        assert (again.done, again.skipped) == (0, 1)
        assert again.summary == result.summary
        assert interpret(store, config(workspace, mu=9.0)).done == 8
        interpret(store, config(workspace))
        image = store.images(reader="explain", role="mine")[0]
        stored = image_tensor(store.pixels(image, reader="explain"))
    summary = json.loads((out / "summary.json").read_text())
    assert summary == result.summary
    assert summary["samples"] == sum(row["samples"] for row in summary["classes"]) > 8
    assert summary["accuracy"] > 0.7
    fitted = Interpretation.load(out)
    assert (np.abs(fitted.weights).sum(0) <= 10 + 1e-4).all()
    assert all(layer.startswith("backbone.") for layer in fitted.layers)
    shown = [f for row in summary["classes"] for f in row["features"]]
    assert shown
    for feature in shown:
        pixels = read_bytes_as_pixels((out / feature["average_image"]).read_bytes())
        assert pixels.ndim == 3
        assert max(pixels.shape) <= 96
        assert feature["contribution"] > 0
    page = (out / "index.html").read_text()
    assert page.count("<img") == 2 * len(shown)
    assert "http" not in page.replace("http-equiv", "")

    detector = load_detector("builtin:", "cpu")
    (found, pin) = detector.predict([stored], score_threshold=0.3)[0]
    x1, y1, x2, y2 = found.boxes[0].tolist()
    target = Target(candidate=int(found.candidates[0]), label=int(found.labels[0]), box=(x1, y1, x2, y2))
    method = Vebi(AttributionOptions(settings={"model": str(out)}))
    (explained,) = method.explain(
        detector,
        detector.prepare(stored, pin),
        pin,
        np.zeros((192, 192), np.uint16),
        MeanFill(),
        [target],
        seed=0,
        image_key="",
    )
    assert explained.evidence
    x1, y1, x2, y2 = np.round(pin.to_input(found.boxes[0])).astype(int)
    inside = explained.values[max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8].sum()
    assert inside > 0.5 * explained.values.sum()


def test_levels_and_whole_images_can_be_interpreted(workspace: Path) -> None:
    with Store.open(workspace / "ws") as store:
        result = interpret(
            store,
            config(workspace, layers="levels", pooling="image", out=workspace / "levels", roles=("mine",)),
        )
    fitted = Interpretation.load(workspace / "levels")
    assert fitted.layers == load_detector("builtin:", "cpu").levels
    assert (fitted.source, fitted.pooling) == ("levels", "image")
    assert result.done == 2


def test_a_changed_image_fails_alone(workspace: Path) -> None:
    with Store.open(workspace / "ws") as store:
        broken = Path(store.images(reader="explain", role="train")[0].uri)
        original = broken.read_bytes()
        broken.write_bytes(original + b"x")
        try:
            result = interpret(store, config(workspace, out=workspace / "partial"))
        finally:
            broken.write_bytes(original)
        assert (result.done, result.failed, result.exit_code) == (7, 1, 3)
        assert result.failures[0][0] == str(broken)
        assert store.runs(stage="interpret")[0].status == "partial"
        # What lacks an image is not taken for finished.
        assert interpret(store, config(workspace, out=workspace / "partial")).done == 8


def test_wrong_requests_are_refused(workspace: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"mu": 0.0}, "mu: expected a number above 0"),
        ({"roles": ("pool",)}, "roles: expected train, mine or both"),
        ({"features": 0}, "features: expected at least 1"),
        ({"layers": "all"}, "layers: expected conv or levels"),
    ):
        with pytest.raises(ConfigError, match=message):
            config(workspace, **changes)
    with Store.create(tmp_path / "empty") as store:
        with pytest.raises(InputError, match="run `curator detect"):
            interpret(store, replace(config(tmp_path), detector=None))
        with pytest.raises(InputError, match="images with labelled objects of red-blossom"):
            interpret(store, config(tmp_path))


def test_the_command_prints_json(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = workspace / "command"
    arguments = ["curator", "-w", str(workspace / "ws"), "interpret", "--role", "mine", "--features", "1"]
    arguments += ["--detector", "builtin:", "--mu", "5", "--device", "cpu", "--out", str(out)]
    for extra in (["--json"], []):
        monkeypatch.setattr("sys.argv", [*arguments, *extra])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        printed = capsys.readouterr().out
        if extra:
            assert json.loads(printed)["mu"] == 5.0
        else:
            assert f"vebi?model={out}" in printed
