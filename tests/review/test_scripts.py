"""The page's scripts: arithmetic run by node, types checked, vendored modules as they were published."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "curator" / "review" / "static"
VENDOR = STATIC / "vendor"
OWN = sorted([*STATIC.glob("js/*.js"), *STATIC.glob("pages/*.js")])


def found_node() -> str:
    """Node on the path, or the one that Playwright brings."""
    node = shutil.which("node")
    if node is None:
        playwright = pytest.importorskip("playwright", reason="no node here: apt-get install nodejs")
        node = str(Path(playwright.__file__).parent / "driver" / "node")
    return node


def test_types() -> None:
    compiler = os.environ.get("CURATOR_TSC", "")
    if not Path(compiler).is_file():
        pytest.skip("no TypeScript here: npm install typescript, CURATOR_TSC=node_modules/typescript/bin/tsc")
    command = [found_node(), compiler, "--project", str(STATIC / "jsconfig.json")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout


def test_geometry_windowing_and_addresses() -> None:
    node = found_node()
    script = Path(__file__).with_name("geometry.test.mjs")
    ran = subprocess.run(
        [node, "--test", str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^# pass [1-9]", ran.stdout, re.MULTILINE)


def test_vendored_modules_name_only_each_other_and_have_their_licences() -> None:
    readme = (VENDOR / "README.md").read_text()
    for path in VENDOR.glob("*.js"):
        text = path.read_text()
        assert f"| {path.name} |" in readme
        assert set(re.findall(r'from"([^"]+)"', text)) <= {f"./{own.name}" for own in VENDOR.glob("*.js")}
        assert "sourceMappingURL" not in text
        assert not re.search(r"\beval\(|new Function\(", text)
    for licence in set(re.findall(r"LICENSE\.\w+", readme)):
        assert (VENDOR / licence).stat().st_size > 500


def test_htm_is_the_published_file() -> None:
    """The one that needed no change."""
    published = re.search(r"htm\.js \|.*\| ([0-9a-f]{64}) \|", (VENDOR / "README.md").read_text())
    assert published is not None
    assert hashlib.sha256((VENDOR / "htm.js").read_bytes()).hexdigest() == published.group(1)


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in [*OWN, STATIC / "index.html", STATIC / "app.css"]:
        text = re.sub(r"http://www\.w3\.org/\S+", "", path.read_text())
        assert not re.search(r"https?://|@import|url\(|innerHTML|dangerouslySet", text), path.name
    page = (STATIC / "index.html").read_text()
    assert "<style" not in page
    assert not re.search(r"\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.name))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
