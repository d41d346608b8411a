"""Imports go one way (DESIGN.md, Layout): read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = ["__init__", "bootstrap", "boxes", "config", "errors", "matching", "page", "precision", "progress"]
GROUND += ["registry", "tensors"]
ROOMS = [
    {"jobs"},
    {"data", "detect", "inpaint"},
    {"represent"},
    {"diagnose"},
    {"explain", "query", "synthesize", "prove"},
    {"report"},
    {"example"},
    {"pipeline"},
    {"review"},
    {"cli"},
]
LEVEL = {**dict.fromkeys(GROUND, 0), **{room: i for i, peers in enumerate(ROOMS, 1) for room in peers}}
OPEN = {"report", "pipeline", "cli", "review"}  # besides run*.py: they may use the Store and jobs
NOUNS = ("store.records", "store.images", "store.blobs", "store.errors", "store.keys", "store.image_cache")


def imported(path: Path, module: str, *, top: bool = False) -> Iterator[str]:
    """Dotted names of what a module imports; `from a import b` gives a.b. `top`: at import time only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            yield from (".".join([*parts, *filter(None, [node.module]), alias.name]) for alias in node.names)


def room(module: str) -> str:
    """The room of a module: curator.detect.ssd -> detect; curator -> __init__."""
    return module.split(".")[1] if "." in module else "__init__"


def drives(module: str) -> bool:
    """True for the files that talk to the Store and start jobs."""
    name = module.rpartition(".")[2]
    return name.startswith("run") or module == "curator.jobs.stage" or room(module) in OPEN


def offence(module: str, target: str) -> str | None:
    """Why `module` must not import `target`; None when it may."""
    top = target.split(".")[0]
    if module.startswith("store"):
        return "the store imports neither curator nor torch" if top in ("curator", "torch") else None
    if top == "store":
        nouns = any(target == name or target.startswith(f"{name}.") for name in NOUNS)
        return None if nouns or drives(module) or room(module) == "example" else "only run*.py use the Store"
    if top != "curator" or target.split(".")[1:2] == ["__version__"]:
        return None
    own, aim = room(module), room(target)
    if own == aim:
        return None
    if LEVEL[aim] > 0 and LEVEL[aim] >= LEVEL[own]:
        return f"{own} lies not above {aim}"
    if aim == "jobs" and not drives(module):
        return "only run*.py start jobs"
    file = target.split(".")[2:3]
    if file and file[0].startswith("run") and not drives(module) and own != "example":
        return "science imports no driver"
    return None


def modules() -> dict[str, Path]:
    """Every module of curator and the store with its file."""
    found = {}
    for path in sorted([*(ROOT / "curator").rglob("*.py"), *(ROOT / "store").rglob("*.py")]):
        found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def test_imports_go_one_way() -> None:
    assert [
        f"{path.relative_to(ROOT)} imports {target}: {reason}"
        for module, path in modules().items()
        for target in imported(path, module)
        if (reason := offence(module, target))
    ] == []


def test_no_import_circle() -> None:
    known = modules()
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        aims = {t if t in known else t.rpartition(".")[0] for t in imported(path, module, top=True)}
        graph[module] = (aims & set(known)) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_files_are_short() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules().values()
    }
    most = {name: 200 if name.startswith("curator/pipeline/") else 400 for name in lines}
    assert {name: count for name, count in lines.items() if count > most[name]} == {}


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("curator.detect.ssd", "curator.explain.segments.slic", False),
        ("curator.explain.methods.e2x", "curator.detect.base.Detector", True),
        ("curator.query.selection", "store.store.Store", False),
        ("curator.query.run", "store.store.Store", True),
        ("curator.query.selection", "store.records.Hit", True),
        ("curator.query.run", "curator.explain.regions.find_regions", False),
        ("curator.prove.trials", "curator.detect.run.detect", False),
        ("curator.prove.run_verify", "curator.data.run_additions.gather", True),
        ("curator.prove.arms.random", "store.store.Store", False),
        ("curator.query.selection", "curator.jobs.local.LocalExecutor", False),
        ("curator.boxes", "curator.detect.base.Detector", False),
        ("curator.boxes", "curator.errors.InputError", True),
        ("curator.pipeline.loop", "curator.cli.app.app", False),
        ("curator.cli.mine", "curator.pipeline.query", True),
        ("store.session", "curator.errors.CuratorError", False),
        ("store.vectors", "torch.nn", False),
    ],
)
def test_the_rule_itself(module: str, target: str, allowed: bool) -> None:
    assert (offence(module, target) is None) == allowed
