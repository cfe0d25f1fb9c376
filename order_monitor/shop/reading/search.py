"""Find orders by what a person knows: an id, the beginning of an id, the reference, or a column
named in the settings.

The id is looked up first, by its index. All the rest is searched in one statement, which reads the
whole table unless the shop has an index on these columns. The beginning of a uuid is a range of the
primary key.
"""

from __future__ import annotations

import difflib
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from order_monitor.core.errors import RowRejectedError, SettingsError
from order_monitor.shop.database import Database
from order_monitor.shop.reading.history import OrderHistory, read_order_history
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.columns import Column, Table, columns_of, literal

SHOWN: Final = 10
"""Maximum number of hits that are shown."""

SHORTEST_PREFIX: Final = 4
"""Minimum length of the beginning of an id for a search."""

_NEAR: Final = 5
_NEAR_BY: Final = 6
_INTEGERS: Final = ("smallint", "integer", "bigint")
_LONGEST_INTEGER: Final = 18


class Parameters:
    """The values of one statement."""

    def __init__(self) -> None:
        """Start empty."""
        self.values: list[str] = []

    def mark(self, value: str) -> str:
        """Add a value as the next parameter, and return its SQL placeholder."""
        self.values.append(value)
        return f"${len(self.values)}::text"


@dataclass(frozen=True, slots=True)
class Hit:
    """An order that was found.

    ``sent_at`` is epoch seconds; ``by`` is the name of the column that matched.
    """

    order_id: str
    status: str
    sent_at: float | None
    reference: str
    by: str


@dataclass(frozen=True, slots=True)
class Hits:
    """The hits if there is not exactly one order: at most `SHOWN`, and whether there are more.

    ``near`` are ids with the same beginning.
    """

    hits: list[Hit]
    has_more: bool = False
    near: tuple[str, ...] = ()


async def look_up(database: Database, orders: Orders, typed: str) -> OrderHistory | Hits:
    """Return the one order that ``typed`` identifies, otherwise the possible ones.

    A complete id takes precedence over everything else.

    Raises:
        ShopError: the database could not be asked.
        SettingsError: the table is not as required, or ``database.lookup`` names a column that it
            does not have.
    """
    history = await read_order_history(database, orders, typed)
    columns = await lookup_columns(database, orders)
    if history is not None:
        return history
    found = await _search(database, orders.table, columns, typed.strip())
    if len(found.hits) != 1:
        return found
    history = await read_order_history(database, orders, found.hits[0].order_id)
    return history if history is not None else Hits([])


async def lookup_columns(database: Database, orders: Orders) -> list[Column]:
    """Return the columns in ``database.lookup``, given by their own names or as in
    ``database.columns``.

    Raises:
        ShopError: the database could not be asked.
        SettingsError: there is no such column (the text names similar ones), or it is the PIN's.
    """
    table, names = orders.table, orders.row_writer.table_config.lookup
    if not names:
        return []
    async with database.transaction() as connection:
        there = await columns_of(connection, table.schema, table.name)
    found = {name: there.get(name) or table.get(name) for name in names}
    problems = [_lacking(name, table, there) for name, column in found.items() if column is None]
    columns = [column for column in found.values() if column is not None]
    if table["pin_code"].name in (column.name for column in columns):
        problems.append(
            f"database.lookup: {table['pin_code'].name} holds PINs, which are not to be typed"
        )
    if problems:
        raise SettingsError(problems)
    return columns


def _lacking(name: str, table: Table, there: dict[str, Column]) -> str:
    close = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or sorted(there)[:5]
    return f"database.lookup: {table.schema}.{table.name} has no column {name}; near: {', '.join(close)}"


async def _search(database: Database, table: Table, columns: list[Column], typed: str) -> Hits:
    given = Parameters()
    conditions = _conditions(table, columns, typed, given)
    try:
        rows = await _fetch(database, _search_sql(table, conditions), given) if conditions else []
        near = [] if rows else await _near(database, table, typed[:_NEAR_BY])
    except RowRejectedError:  # characters that PostgreSQL cannot compare
        return Hits([])
    hits = [
        Hit(r["id"], r["status"] or "", r["sent_at"], r["reference"] or "", r["by"])
        for r in rows[:SHOWN]
    ]
    return Hits(hits, len(rows) > SHOWN, tuple(row["id"] for row in near))


def _conditions(
    table: Table, columns: list[Column], typed: str, given: Parameters
) -> list[tuple[str, str]]:
    """Return the conditions to search for, each with the name of its column.

    None for an empty text, which would equal every empty value.
    """
    if not typed:
        return []
    reference = table["provider_referans"]
    exact = [
        (column.name, equals(column, typed, given))
        for column in dict.fromkeys([reference, *columns])
    ]
    if len(typed) >= SHORTEST_PREFIX:
        exact.append((table["id"].name, begins(table["id"], typed, given)))
    return [(name, condition) for name, condition in exact if condition is not None]


def equals(column: Column, typed: str, given: Parameters) -> str | None:
    """SQL condition that a column equals ``typed``, in a form that an index on it supports.

    None if the column cannot hold such a value.
    """
    if column.data_type in _INTEGERS:
        is_number = typed.isascii() and typed.isdigit() and len(typed) <= _LONGEST_INTEGER
        return f"o.{column.sql} = {given.mark(typed)}::bigint" if is_number else None
    if column.data_type == "uuid":
        ends = uuid_range(typed)
        return (
            f"o.{column.sql} = {given.mark(ends[0])}::uuid" if ends and ends[0] == ends[1] else None
        )
    return f"o.{column.sql}::text = {given.mark(typed)}"


def begins(column: Column, typed: str, given: Parameters) -> str | None:
    """SQL condition that a column begins with ``typed``, taken literally.

    None if that is impossible.
    """
    if column.data_type != "uuid":
        return f"starts_with(o.{column.sql}::text, {given.mark(typed)})"
    ends = uuid_range(typed)
    return (
        f"o.{column.sql} BETWEEN {given.mark(ends[0])}::uuid AND {given.mark(ends[1])}::uuid"
        if ends
        else None
    )


def uuid_range(typed: str) -> tuple[str, str] | None:
    """Return the first and the last uuid that begin with ``typed``, in any case and with or without
    hyphens; None if no uuid can.
    """
    text = typed.lower()
    digits = text.replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        return None
    low, high = (str(uuid.UUID(digits.ljust(32, end))) for end in "0f")
    return (low, high) if text in (digits, low[: len(text)]) else None


def _search_sql(table: Table, conditions: list[tuple[str, str]]) -> str:
    whens = " ".join(f"WHEN {condition} THEN {literal(name)}" for name, condition in conditions)
    return (
        f"SELECT * FROM (SELECT o.{table['id'].sql}::text AS id, o.{table['external_status'].sql}::text AS status, "
        f"{table.epoch('sent_at', 'o')} AS sent_at, o.{table['provider_referans'].sql}::text AS reference, "
        f"CASE {whens} END AS by FROM {table.sql} o WHERE {' OR '.join(f'({sql})' for _, sql in conditions)} "
        # Sorted outside: otherwise PostgreSQL might walk an index on the time through the whole
        # table to find a hit.
        f"LIMIT {SHOWN + 1}) found ORDER BY sent_at DESC NULLS LAST, id"
    )


async def _near(database: Database, table: Table, beginning: str) -> list[Any]:
    given = Parameters()
    condition = begins(table["id"], beginning, given) if beginning else None
    sql = (
        f"SELECT o.{table['id'].sql}::text AS id FROM {table.sql} o WHERE {condition} LIMIT {_NEAR}"
    )
    return await _fetch(database, sql, given) if condition else []


async def _fetch(database: Database, sql: str, given: Parameters) -> list[Any]:
    async with database.transaction() as connection:
        return list(await connection.fetch(sql, *given.values))
