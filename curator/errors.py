"""Errors of curator's stages.

    CuratorError                                                            (exit code 1)
    ├── InputError            wrong usage, configuration or input           (exit code 2)
    │   ├── ConfigError       a configuration value outside its range
    │   ├── RegistryError     a name that no plug-in answers to
    │   └── FormatError       a data set that cannot be read as said
    └── StageError            a stage could not do its work

The store has a tree of its own (`store.errors`); both carry `exit_code`, and the command line prints
both as one line.
"""

from __future__ import annotations


class CuratorError(Exception):
    """Base of all errors that curator raises on purpose.

    The message says what was expected, what came, and what to do next, on one line.
    """

    exit_code = 1


class InputError(CuratorError):
    """Wrong usage or wrong input."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration value is missing, unknown or outside its range."""


class RegistryError(InputError):
    """No plug-in is registered under the name."""


class FormatError(InputError):
    """A data set on disk does not follow its format."""


class StageError(CuratorError):
    """A stage could not do its work."""


def one_line(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return text if getattr(error, "exit_code", None) is not None else f"{type(error).__name__}: {text}"
