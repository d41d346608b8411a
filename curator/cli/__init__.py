"""The command line; importing this package registers every command."""

from curator.cli import admin, stages, samples, versions, loop, remove, review, example  # isort: skip  # the order of --help
from curator.cli.app import app, main

__all__ = ["admin", "app", "example", "loop", "main", "remove", "review", "samples", "stages", "versions"]
