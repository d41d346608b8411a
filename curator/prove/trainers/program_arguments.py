"""What curator's own training programs are told."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_GIVEN = {
    "data": Path,
    "spec": str,
    "out": Path,
    "steps": int,
    "epochs": int,
    "batch": int,
    "learning-rate": float,
    "seed": int,
    "device": str,
}


def program_arguments(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Read them; `set` holds NAME=VALUE pairs for the trainer behind."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind in _GIVEN.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args(arguments)


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; values are read as JSON where they are JSON, else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
