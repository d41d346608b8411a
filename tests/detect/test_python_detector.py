"""`python:` specs: clear errors."""

from __future__ import annotations

import pytest

from curator.detect.python import build
from curator.errors import InputError, RegistryError
from curator.registry import Spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python:nothing", "expected python:package.module:factory"),
        ("python:no_such_package.mine:build", "no module 'no_such_package'"),
        ("python:own_detector:missing", "has no 'missing'"),
    ],
)
def test_unknown_factories(text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        build(Spec.parse(text))


def test_all_problems_are_named() -> None:
    with pytest.raises(
        InputError, match=r"lacks the method predict.*lacks the method modules.*fingerprint.*mean_color"
    ):
        build(Spec.parse("python:own_detector:incomplete"))


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="does not take the options"):
        build(Spec.parse("python:own_detector:build?colour=red"))
