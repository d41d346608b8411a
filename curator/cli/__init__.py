"""The command line; importing this package registers every command."""

from curator.cli import admin, data, evaluate, example, fix, interpret, loop, mine, patches, prove
from curator.cli.app import app, main

__all__ = [
    "admin",
    "app",
    "data",
    "evaluate",
    "example",
    "fix",
    "interpret",
    "loop",
    "main",
    "mine",
    "patches",
    "prove",
]
