"""Build the documentation as a site: pages, pictures, result files and the API reference; nothing is fetched.

    pip install -c constraints.txt -e ".[docs]"
    python docs/site/build.py OUT [--strict]

The README becomes the home page. The pages link to files of the checkout (`../benchmarks/results/...`), so
they are laid out in a temporary folder as they lie in the checkout. OUT is made anew; open OUT/index.html.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "docs" / "site"


def lay_out(folder: Path) -> None:
    """Copy what the site shows into `folder`/pages, and its settings beside them."""
    pages = folder / "pages"
    shutil.copytree(ROOT / "docs", pages / "docs", ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copytree(ROOT / "benchmarks" / "results", pages / "benchmarks" / "results")
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, pages / name)
    shutil.copy(HERE / "api.md", pages / "docs" / "api.md")
    settings = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    (folder / "mkdocs.yml").write_text(settings.replace("{root}", str(ROOT)), encoding="utf-8")


def build(out: Path, *, strict: bool) -> int:
    """Build into `out`; returns zensical's exit code, not 0 where strict and anything is warned of."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder)
        command = [sys.executable, "-m", "zensical", "build", "-f", str(folder / "mkdocs.yml")]
        code = subprocess.run([*command, *(["--strict"] if strict else [])], cwd=folder).returncode
        if code == 0:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder / "site", out)
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--strict", action="store_true", help="fail where a link leads nowhere")
    given = parser.parse_args()
    sys.exit(build(given.out, strict=given.strict))
