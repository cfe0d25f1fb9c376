"""Rows as a table for people or as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from order_monitor.commands.exits import say

_WIDE = 240


def plain(text: str) -> str:
    """Return a text of the shop's without characters that would do something to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_csv(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows as CSV, with their names above."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    say(text.getvalue().rstrip("\n"), to_stdout=True)


def print_table(names: Sequence[str], rows: Iterable[Mapping[str, object]], *, texts: Sequence[str]) -> None:
    """Print rows as columns, those of ``texts`` to the left; as wide as the terminal."""
    table = Table(box=None)
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None else plain(str(value)) for value in row.values()))
    Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def _harmless(value: object) -> object:
    """Keep a text that begins like a formula from being one in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
