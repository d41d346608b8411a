"""Tables for people: rows of text as lines, drawn by Rich."""

from __future__ import annotations

from collections.abc import Sequence


def table_lines(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Draw a table; the first column is left-aligned, the others right.

    Args:
        rows: cells as text, one per column.
    """
    from io import StringIO

    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=SIMPLE, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = StringIO()
    Console(file=out, width=200, color_system=None).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def share(value: float | None) -> str:
    """A rate with three decimals; "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"
