"""The user's own detector: `python:package.module:factory?option=value`.

In: an importable factory; the spec's options become its keyword arguments (text). Out: what it returns,
checked to be a `Detector` before any stage relies on it. One without a network to look into (its `modules()`
is None) is taken as a `BlackBox`; `BlackBox` also makes a detector of a plain function of images.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any, cast

from curator.detect.base import Detector
from curator.detect.black_box import BlackBox
from curator.errors import InputError, RegistryError
from curator.registry import Spec

_METHODS = ("to", "predict", "prepare", "candidates", "modules")
_ATTRIBUTES = ("classes", "fingerprint", "spec", "levels", "mean_color")


def build(spec: Spec) -> Detector:
    """Import the factory, call it, check its result.

    Raises:
        RegistryError: no such module or factory. InputError: the result is no `Detector`; all that is
            missing or wrong is named.
    """
    factory = named(spec, "factory")
    try:
        detector = factory(**spec.options)
    except TypeError as error:
        raise InputError(f"python: {spec.name} does not take the options {spec.options} ({error})") from error
    if not getattr(detector, "spec", None):
        with contextlib.suppress(AttributeError):  # named as missing below
            detector.spec = spec.text
    problems = conformance(detector)
    if problems:
        raise InputError(
            f"python: {spec.name} gave a {type(detector).__name__} that is no Detector "
            f"(curator.detect.base): {'; '.join(problems)}"
        )
    checked = cast(Detector, detector)
    if checked.modules() is None and not isinstance(checked, BlackBox):
        return BlackBox.of(checked, spec=spec.text)
    return checked


def named(spec: Spec, what: str) -> Any:
    """Import what `scheme:package.module:name` names.

    Raises:
        RegistryError: no such module or name.
    """
    module_name, colon, name = spec.name.partition(":")
    if not colon or not module_name or not name:
        raise RegistryError(
            f"{spec.scheme}: expected {spec.scheme}:package.module:{what}, got {spec.text!r}"
        )
    try:
        return getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"{spec.scheme}: found no module {error.name!r} for {spec.text!r}; is it installed, or "
            f"its folder on PYTHONPATH?"
        ) from error
    except AttributeError as error:
        raise RegistryError(f"{spec.scheme}: the module {module_name} has no {name!r}") from error


def conformance(detector: object) -> list[str]:
    """What keeps `detector` from being a `Detector`, one clause each; empty when it conforms."""
    problems = [
        f"lacks the method {name}" for name in _METHODS if not callable(getattr(detector, name, None))
    ]
    problems += [f"lacks the attribute {name}" for name in _ATTRIBUTES if not hasattr(detector, name)]
    classes = getattr(detector, "classes", ())
    if not isinstance(classes, tuple) or not classes or not all(isinstance(name, str) for name in classes):
        problems.append(f"classes must be a non-empty tuple of names, got {classes!r}")
    fingerprint = getattr(detector, "fingerprint", "")
    if not isinstance(fingerprint, str) or not fingerprint:
        problems.append(f"fingerprint must be a non-empty text, got {fingerprint!r}")
    color = getattr(detector, "mean_color", None)
    if color is not None and (len(color) != 3 or not all(0 <= value <= 1 for value in color)):
        problems.append(f"mean_color must be three numbers in [0, 1], got {color!r}")
    return problems
