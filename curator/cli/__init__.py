"""The command line; importing this package registers every command."""

from curator.cli import admin, data, example, fix, loop, mine, prove
from curator.cli.app import app, main

__all__ = ["admin", "app", "data", "example", "fix", "loop", "main", "mine", "prove"]
