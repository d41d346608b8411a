"""Imports go one way (DESIGN.md, rule 1); read from the source, imports inside functions included.

cli -> pipeline -> stages -> ARITHMETIC, FOUNDATION, *.base, store.records / images / blobs / errors / keys
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARITHMETIC = {"boxes", "matching", "whiten"}  # shared by stages, as boxes are; they know no stage
FOUNDATION = {"config", "errors", "progress", "registry", "tensors", *ARITHMETIC}
DRIVERS = {"cli", "pipeline", "review"}  # they alone touch store.Store and jobs
STORE_FOR_STAGES = {"store.records", "store.images", "store.blobs", "store.errors", "store.keys"}


def imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Dotted names of what a module imports; `from a import b` gives a.b as well as a."""
    package = module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def owner(module: str) -> str:
    """The part of curator that a module belongs to: curator.detect.ssd -> detect, curator.query -> query."""
    return module.split(".")[1] if "." in module else ""


def offence(module: str, target: str) -> str | None:
    """Why `module` must not import `target`; None when it may."""
    top = target.split(".")[0]
    if module.startswith("store"):
        if top == "curator" or top == "torch":
            return "the store imports neither curator nor torch"
        return None
    if top not in ("curator", "store"):
        return None
    part = owner(module)
    if part in DRIVERS or part in ("", "__main__"):
        lower = {"pipeline": ("cli", "review"), "review": ("cli",)}.get(part, ())
        return f"{part} must not import upwards" if top == "curator" and owner(target) in lower else None
    if top == "store":
        return (
            None
            if any(target == name or target.startswith(f"{name}.") for name in STORE_FOR_STAGES)
            else ("stages import only the nouns of the store")
        )
    aim = owner(target)
    if part in FOUNDATION:
        return None if aim in FOUNDATION or aim == "__version__" else "the foundation imports no stage"
    if aim in FOUNDATION or aim == part or aim == "__version__":
        return None
    if "base" in target.split(".")[2:3]:
        return None
    if part == "jobs":
        return "jobs import only the foundation"
    return f"stage {part} imports stage {aim}"


def modules() -> list[tuple[str, Path]]:
    """Every module of curator and the store with its file."""
    found = []
    for folder in ("curator", "store"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts), path))
    return found


def test_imports_go_one_way() -> None:
    bad = []
    for module, path in modules():
        for target in imported(ast.parse(path.read_text(encoding="utf-8")), module):
            reason = offence(module, target)
            if reason:
                bad.append(f"{path.relative_to(ROOT)} imports {target}: {reason}")
    assert bad == []


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("curator.detect.ssd", "curator.explain.segments.slic", False),
        ("curator.detect.ssd", "curator.explain.base.Attribution", True),
        ("curator.query", "store.store.Store", False),
        ("curator.query", "store.records.Hit", True),
        ("curator.query", "curator.select.choose", False),
        ("curator.query", "curator.jobs.local.LocalExecutor", False),
        ("curator.boxes", "curator.detect.base.Detector", False),
        ("curator.pipeline.queries", "curator.cli.app.app", False),
        ("curator.pipeline.queries", "store.store.Store", True),
        ("curator.cli.mine", "curator.pipeline.query", True),
        ("curator.detect.weights", "curator.detect.ssd.build", True),
        ("store.session", "curator.errors.CuratorError", False),
        ("store.vectors", "torch.nn", False),
    ],
)
def test_the_rule_itself(module: str, target: str, allowed: bool) -> None:
    assert (offence(module, target) is None) == allowed


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from . import ssd\nfrom ..explain import slic\nfrom .base import Detector")
    names = list(imported(tree, "curator.detect.weights"))
    assert names == ["curator.detect.ssd", "curator.explain.slic", "curator.detect.base.Detector"]
