"""The wheel and the editable install, each used apart from the checkout, without downloading anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("curator", "store", "migrations", "pyproject.toml", "README.md", "LICENSE")

pytest.importorskip("build", reason="pip install build")
pytest.importorskip("setuptools", reason="pip install setuptools")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves no trace in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text("curator")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    run(command, cwd=checkout)
    (found,) = (checkout / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install -e .` installs."""
    out = tmp_path_factory.mktemp("editable")
    script = f"from setuptools.build_meta import build_editable; build_editable({str(out)!r})"
    run([sys.executable, "-c", script], cwd=checkout)
    (found,) = out.glob("*.whl")
    return found


def run(command: list[str], cwd: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CURATOR"))
    }
    ran = subprocess.run(
        command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=240
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment that holds the wheel, and sees the heavy packages of this one behind it."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(
        run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Only the packages: as a plain path entry, this environment's own editable install is not activated.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_an_installed_curator_makes_a_workspace_anywhere(
    kind: str, request: pytest.FixtureRequest, checkout: Path, tmp_path: Path
) -> None:
    python = install(request.getfixturevalue(kind), tmp_path / "venv")
    away = tmp_path / "elsewhere"
    away.mkdir()
    home = checkout if kind == "editable" else tmp_path / "venv"
    script = (
        "import store.migrations as m, curator, store; print(m.__file__, curator.__file__, store.__file__)"
    )
    for path in run([str(python), "-c", script], away).split():
        assert Path(path).is_relative_to(home)
    command = [str(python), "-c", "from curator.cli import main; main()", "-w", "made"]
    assert "next:" in run([*command, "init"], away)
    assert run([*command, "db", "check"], away) == "the database is sound\n"
    assert "curator 0." in run([*command, "--version"], away)


def test_the_wheel_holds_what_the_checkout_holds(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = set()
    for folder, name in (("curator", "curator"), ("store", "store"), ("migrations", "store/migrations")):
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                wanted.add(f"{name}/{path.relative_to(checkout / folder).as_posix()}")
    assert wanted - inside == set()
    assert "store/migrations/script.py.mako" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    top = {name.split("/")[0] for name in inside if ".dist-info" not in name}
    assert top == {"curator", "store"}


def test_every_folder_with_code_is_a_listed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"store.migrations", "store.migrations.versions"}
    for folder in ("curator", "store"):
        found |= {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / folder).rglob("*.py")}
    assert set(settings["packages"]) == found
