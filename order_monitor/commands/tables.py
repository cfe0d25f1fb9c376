"""Rows as a table for people, or as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import show

_WIDE = 240


def print_csv(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    show(*text.getvalue().rstrip("\n").split("\n"))


def print_table(
    names: Sequence[str], rows: Iterable[Mapping[str, object]], *, texts: Sequence[str]
) -> None:
    """Print rows as columns as wide as the terminal; the columns in ``texts`` are left-aligned."""
    table = Table(box=None)
    for name in names:
        table.add_column(
            name.replace("_", " "), justify="left" if name in texts else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(styled("-" if value is None else str(value)) for value in row.values()))
    Screen(elsewhere=_WIDE).print(table)


def _harmless(value: object) -> object:
    """Prevent a spreadsheet from reading a text as a formula."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if is_formula else value
