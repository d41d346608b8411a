"""`curator --help` starts without any heavy package."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "diffusers", "faiss", "ray", "transformers", "sqlalchemy", "alembic", "skimage", "numpy"),
    *("sklearn", "scipy", "jinja2", "fastapi", "uvicorn", "starlette"),
)

SCRIPT = """
import json, sys
sys.argv = ["curator", *sys.argv[1:]]
from curator.cli import main
try:
    main()
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["detect", "--help"],
        ["example", "train-detector", "--help"],
        ["db", "upgrade", "--help"],
        ["--version"],
    ],
)
def test_help_loads_no_heavy_package(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], text=True, capture_output=True, check=True, timeout=120
    )
    code, modules = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0
    assert "typer" in modules
    assert [name for name in HEAVY if name in modules] == []
