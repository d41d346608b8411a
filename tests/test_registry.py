"""A plug-in whose package is missing names the command that installs it."""

from __future__ import annotations

from importlib import import_module

import pytest

from curator.errors import RegistryError
from curator.registry import Registry, Spec


@pytest.mark.parametrize(
    ("package", "install"),
    [
        ("onnx", 'pip install "curator[onnx]"'),
        ("onnx2pytorch.convert", 'pip install "curator[onnx]"'),
        ("transformers", 'pip install "curator[hub]"'),
        ("psycopg", 'pip install "curator[postgresql]"'),
        ("spgl1", "pip install spgl1"),
    ],
)
def test_a_missing_package_comes_with_its_extra(
    package: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(module: str) -> object:
        if module == "curator.made":
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return import_module(module)

    monkeypatch.setattr("curator.registry.import_module", absent)
    with pytest.raises(RegistryError, match="which is not installed") as error:
        Registry("detectors", {"made": "curator.made:build"}).load("made")
    assert f"run `{install}`" in str(error.value)


def test_a_broken_module_of_our_own_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"curator\.absent"):
        Registry("detectors", {"made": "curator.absent:build"}).load("made")


def test_options_that_are_longer_than_a_file_name_lead_to_no_file() -> None:
    names = ",".join(f"class{number}" for number in range(80))
    assert Spec.parse(f"python:module:build?names={names}").files() == ()
