"""`curator groups` on a small rendered workspace with the shipped detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator import pipeline
from curator.cli.fix import groups_lines
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError
from curator.example.dataset import write_dataset
from curator.query.settings import GroupsConfig, IndexConfig
from store.records import Role
from store.store import Store

SIZES: dict[Role, int] = {"mine": 60, "pool": 4}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    write_dataset(folder / "data", sizes=SIZES, seed=5)
    with Store.create(folder / "workspace") as store:
        for role in SIZES:
            pipeline.add(store, AddConfig(format="coco", path=folder / "data" / role, role=role))
        pipeline.detect(store, DetectConfig(detector="builtin:", device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig())
        with pytest.raises(InputError, match="curator index"):
            pipeline.groups(store, GroupsConfig())
        pipeline.index(store, IndexConfig(device="cpu"))
    return folder / "workspace"


def test_every_failure_is_in_one_named_group(workspace: Path) -> None:
    with Store.open(workspace) as store:
        summary = pipeline.groups(store, GroupsConfig(condition="gap")).summary
        again = pipeline.groups(store, GroupsConfig(condition="gap")).summary
        failing = {o.id for o in store.outcomes() if o.kind != "TP"}
        kinds = {o.id: o.kind for o in store.outcomes()}
    assert summary == again
    members = [i for group in summary["groups"] for i in group["outcomes"]]
    assert len(members) == len(set(members))
    assert set(members) == failing
    for group in summary["groups"]:
        assert {kinds[i] for i in group["outcomes"]} == {group["kind"]}
        assert group["name"].startswith("missed " if group["kind"] == "FN" else "false ")
        assert all(Path(shown["uri"]).exists() for shown in group["exemplars"])
    assert len({group["name"] for group in summary["groups"]}) == len(summary["groups"])
    assert groups_lines(summary)[0].startswith(f"{len(failing)} failures in ")


def test_what_cannot_be_is_told(workspace: Path) -> None:
    with Store.open(workspace) as store:
        with pytest.raises(InputError, match="'frob'"):
            pipeline.groups(store, GroupsConfig(condition="frob"))
        with pytest.raises(InputError, match="no-such-class"):
            pipeline.groups(store, GroupsConfig(failures="FN,class=no-such-class"))
    with pytest.raises(ConfigError, match="apart"):
        GroupsConfig(apart=("colour",))
