"""`curator fit-patches` on a few scenes of the built-in example, and `pda` with the file that it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from curator import pipeline
from curator.cli import main
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError
from curator.example.dataset import GapRates, write_dataset
from curator.explain.methods.pda import PatchGaussian
from curator.explain.run_fit_patches import fit_patches
from curator.explain.settings import FitPatchesConfig
from store.images import read_pixels
from store.records import GridMap
from store.store import Store


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training scenes, and two mined ones with gaps, diagnosed."""
    root = tmp_path_factory.mktemp("patches")
    sizes = {"train": 4, "mine": 2, "pool": 2, "holdout": 0}
    folders = write_dataset(root / "data", sizes=sizes, rates=GapRates(mine=1.0))
    with Store.create(root / "ws") as store:
        for role, folder in folders.items():
            pipeline.add(store, AddConfig(format="coco", path=folder, role=role, workers=1))
        pipeline.detect(store, DetectConfig(detector="builtin:", device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    return root


def config(out: Path, **changes: object) -> FitPatchesConfig:
    settings = {"detector": "builtin:", "out": out, "device": "cpu", "patch": 4, "pad": 1, **changes}
    return FitPatchesConfig(**settings)  # type: ignore[arg-type]


def run(monkeypatch: pytest.MonkeyPatch, workspace: Path, *arguments: str) -> int | str | None:
    """Exit code of a command line."""
    monkeypatch.setattr("sys.argv", ["curator", "-w", str(workspace / "ws"), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_fits_and_pda_explains_with_it(
    workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "new" / "patches.safetensors"
    fit = ["fit-patches", "--out", str(out), "--patch", "6", "--device", "cpu"]
    assert run(monkeypatch, workspace, *fit, "--json") in (0, None)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["done"], printed["images"], printed["squares"]) == (4, 4, 800)
    assert printed["detector"] == "builtin:"
    first = out.read_bytes()
    assert run(monkeypatch, workspace, *fit) in (0, None)  # replaced by the same
    assert f"pda?model={out}" in capsys.readouterr().out
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    fitted = PatchGaussian.load(out)
    assert (fitted.patch, fitted.pad) == (6, 2)
    assert np.linalg.eigvalsh(fitted.covariance)[0] > 0

    method = f"pda?model={out}&stride=32&samples=2"
    explain = ["explain", "--method", method, "--successes", "1", "--device", "cpu"]
    assert run(monkeypatch, workspace, *explain) in (0, None)
    with Store.open(workspace / "ws") as store:
        maps = [found.map for found in store.attributions()]
        assert store.runs(stage="fit-patches")[0].status == "done"
    assert maps
    assert all(isinstance(found, GridMap) and np.isfinite(found.values).all() for found in maps)
    assert any(found.evidence for found in maps)


def test_only_the_roles_asked_for_are_learnt(workspace: Path, tmp_path: Path) -> None:
    train, both = tmp_path / "train.safetensors", tmp_path / "both.safetensors"
    with Store.open(workspace / "ws") as store:
        images = store.images(reader="explain", role="train")
        fit_patches(store, config(train))
        assert fit_patches(store, config(both, roles=("train", "mine"))).done == 6
        pixels = np.concatenate([read_pixels(i.uri, i.sha256).reshape(-1, 3) for i in images]) / 255
    learnt = PatchGaussian.load(train).mean.reshape(3, -1).mean(1)
    np.testing.assert_allclose(learnt, pixels.mean(0), atol=0.02)
    assert (PatchGaussian.load(both).mean != PatchGaussian.load(train).mean).any()


def test_images_and_squares_are_drawn_by_the_seed(workspace: Path, tmp_path: Path) -> None:
    means = []
    with Store.open(workspace / "ws") as store:
        for number, seed in enumerate((0, 0, 1)):
            out = tmp_path / f"{number}.safetensors"
            assert fit_patches(store, config(out, images=2, seed=seed)).done == 2
            means.append(PatchGaussian.load(out).mean)
    np.testing.assert_array_equal(means[0], means[1])
    assert (means[0] != means[2]).any()


def test_padding_is_not_learnt(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "wide"
    folder.mkdir()
    Image.fromarray(np.full((60, 240, 3), 250, np.uint8)).save(folder / "white.png")
    spec = "curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5"
    with Store.create(tmp_path / "ws") as store:
        pipeline.add(store, AddConfig(format="images", path=folder, role="train", workers=1))
        fit_patches(store, config(tmp_path / "p.safetensors", detector=spec))
    np.testing.assert_allclose(PatchGaussian.load(tmp_path / "p.safetensors").mean, 250 / 255, atol=1e-3)


def test_a_changed_image_fails_alone(workspace: Path, tmp_path: Path) -> None:
    with Store.open(workspace / "ws") as store:
        images = store.images(reader="explain", role="train")
        originals = {Path(image.uri): Path(image.uri).read_bytes() for image in images}
        broken = next(iter(originals))
        try:
            broken.write_bytes(originals[broken] + b"x")
            result = fit_patches(store, config(tmp_path / "p"))
            assert (result.done, result.failed, result.exit_code) == (3, 1, 3)
            assert result.failures[0][0] == str(broken)
            for path, data in originals.items():
                path.write_bytes(data + b"x")
            with pytest.raises(InputError, match="none of 4 images could be used"):
                fit_patches(store, config(tmp_path / "none"))
            assert not (tmp_path / "none").exists()
        finally:
            for path, data in originals.items():
                path.write_bytes(data)


def test_wrong_input_is_one_line(
    workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ["--out", str(tmp_path / "p.safetensors")]
    for arguments, message in (
        ([*out, "--role", "pool"], "roles: expected train, mine or both, got pool"),
        ([*out, "--role", "holdout"], "roles: expected train, mine or both, got holdout"),
        ([*out, "--images", "0"], "images: expected at least 1, got 0"),
        ([*out, "--patch", "40"], "patch + 2 pad: expected at most 40 px, got 44"),
        ([*out, "--pad", "0"], "pad: expected at least 1, got 0"),
        ([*out, "--detector", "nonsense:"], "nonsense"),
        (["--out", str(tmp_path)], "expected a file, got a folder"),
    ):
        assert run(monkeypatch, workspace, "fit-patches", *arguments) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1, errors
        assert message in errors
    assert run(monkeypatch, workspace, "explain", "--method", "pda") == 2
    assert "curator fit-patches --out PATH" in capsys.readouterr().err
    assert not (tmp_path / "p.safetensors").exists()


def test_an_empty_workspace_says_what_to_add(tmp_path: Path) -> None:
    with Store.create(tmp_path / "empty") as store:
        with pytest.raises(InputError, match="run `curator detect"):
            fit_patches(store, config(tmp_path / "p", detector=None))
        with pytest.raises(InputError, match="expected images of role train, found none"):
            fit_patches(store, config(tmp_path / "p"))
    with pytest.raises(ConfigError, match="roles: expected train, mine or both, got none"):
        config(tmp_path / "p", roles=())
