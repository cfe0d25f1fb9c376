"""What in the shop's database would refuse our writes, as far as its catalogue shows: found before
the first order is affected.

A trigger, a rule, and a constraint over several columns show only when a write is tried: see
`order_monitor.shop.check.dry_run`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg

from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.marks import read_mark
from order_monitor.shop.migration import Migration
from order_monitor.shop.schema.columns import Table, literal, qualified, quoted
from order_monitor.shop.schema.own_tables import NEEDED
from order_monitor.shop.schema.table_config import TableConfig, can_hold, words_of
from order_monitor.shop.writing.left_out import ENOUGH, PROCESSING, orders_of

CROWDED: Final = 0.5
"""Fill level of the notification queue from which `check` reports it."""

_TABLES: Final = """
WITH RECURSIVE about(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2
    UNION SELECT below.oid FROM about JOIN LATERAL (
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = about.oid UNION ALL
        SELECT d.refobjid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
            ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
           AND d.refclassid = 'pg_catalog.pg_class'::regclass WHERE r.ev_class = about.oid
    ) AS below(oid) ON true
)
"""
"""The orders table, the tables that inherit from it, and those behind it if it is a view."""

_CONSTRAINTS: Final = f"""
{_TABLES}
SELECT DISTINCT ON (k.conname, k.contype, 3) k.conname::text AS name, k.contype::text AS kind,
       pg_get_expr(k.conbin, k.conrelid) AS expression,
       quote_ident(n.nspname) || '.' || quote_ident(r.relname) AS target, f.attname::text AS target_column,
       has_table_privilege(k.confrelid, 'SELECT') AS is_readable, format_type(a.atttypid, a.atttypmod) AS type
  FROM about JOIN pg_catalog.pg_constraint k ON k.conrelid = about.oid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attname = $3 AND k.conkey = ARRAY[a.attnum]
  LEFT JOIN pg_catalog.pg_class r ON r.oid = k.confrelid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
  LEFT JOIN pg_catalog.pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]
 WHERE k.contype IN ('c', 'f') AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) ORDER BY k.conname, k.contype, 3
"""
"""The constraints on the status column alone; the partitions of a table repeat each of them."""

_TYPE: Final = f"""
{_TABLES}
SELECT format_type(a.atttypid, a.atttypmod) FROM about JOIN pg_catalog.pg_attribute a ON a.attrelid = about.oid AND a.attname = $3
 ORDER BY about.oid <> (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2) LIMIT 1
"""
_UNFILLED: Final = """
SELECT r.relname::text AS table, a.attname::text AS column
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class r ON r.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE n.nspname = $1 AND r.relname = ANY($2::text[]) AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef
   AND a.attidentity = '' AND a.attgenerated = '' AND (a.attnotnull OR t.typnotnull) AND t.typdefault IS NULL ORDER BY 1, 2
"""


async def walls_of(
    database: Database, migration: Migration, table: Table, table_config: TableConfig
) -> list[CheckLine]:
    """Report what would refuse the status words from the settings, or the rows of our own tables.

    Nothing is written.

    Raises:
        ShopError: the database is not available.
    """
    async with database.transaction() as connection:
        # The expression of a constraint runs the shop's own code, so the transaction is read-only.
        await connection.execute("SET LOCAL transaction_read_only = on")
        lines = await _words(connection, table, table_config)
        return [*lines, *await _unfilled(connection, migration, table)]


async def _words(
    connection: Connection, table: Table, table_config: TableConfig
) -> list[CheckLine]:
    place = (table.schema, table.name, table["external_status"].name)
    constraints = await connection.fetch(_CONSTRAINTS, *place)
    column_type = await connection.fetchval(_TYPE, *place)
    lines = []
    for key, word in words_of(table_config).items():
        refused = [] if can_hold(table, word) else [f"the type of {place[2]}"]
        if not refused and not await _is_taken(
            connection, f"SELECT $1::text::{column_type} IS NOT NULL", word
        ):
            refused.append(f"the type {column_type} of {place[2]}")
        refused += [
            what
            for one in constraints
            if (what := await _refusing(connection, one, place[2], word))
        ]
        lines += [_line(key, word, what) for what in refused]
    return lines


async def _refusing(
    connection: Connection, constraint: asyncpg.Record, column: str, word: str
) -> str:
    """Name a constraint that refuses a word; empty if it takes the word or cannot be evaluated."""
    value = f"$1::text::{constraint['type']}"
    if constraint["kind"] == "c":
        sql = f"SELECT ({constraint['expression']}) FROM (SELECT {value} AS {quoted(column)}) AS v"
        is_taken = await _is_taken(connection, sql, word)
        return "" if is_taken else f"the constraint {constraint['name']}"
    if not constraint["is_readable"]:
        return ""
    target = f"{constraint['target']} AS t WHERE t.{quoted(constraint['target_column'])}"
    is_there = await _is_taken(connection, f"SELECT EXISTS (SELECT FROM {target} = {value})", word)
    what = f"the foreign key {constraint['name']}: {constraint['target']} has no such row"
    return "" if is_there else what


_REFUSING: Final = ("22", "23")


async def _is_taken(connection: Connection, sql: str, word: str) -> bool:
    """Whether a condition holds for a word. What is NULL, or cannot be evaluated, counts as true,
    as in a constraint.
    """
    await connection.execute("SAVEPOINT wall")
    try:
        return bool(await connection.fetchval(sql, word) is not False)
    except asyncpg.PostgresError as error:
        return not error.sqlstate.startswith(_REFUSING)
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT wall")


def _line(key: str, word: str, what: str) -> CheckLine:
    remedy = f"let it take {word!r}, or set statuses.{key} to a word that it takes"
    if key == "processing":
        text = f"{word!r} is refused by {what}: an order that waits keeps its status, and all else goes on"
        return CheckLine("warning", f"statuses.{key}", text, remedy)
    return CheckLine(
        "error", f"statuses.{key}", f"{word!r} is refused by {what}: no order can end so", remedy
    )


async def _unfilled(connection: Connection, migration: Migration, table: Table) -> list[CheckLine]:
    """Report columns added to our tables that our rows cannot fill."""
    made = {
        change.table: change.sql
        for change in migration.wanted(table)
        if change.table in NEEDED and not change.column
    }
    rows = await connection.fetch(_UNFILLED, table.schema, list(NEEDED))
    return [
        _must_be_given(table, row["table"], row["column"])
        for row in rows
        if not _is_ours(made, row)
    ]


def _is_ours(made: dict[Any, str], row: asyncpg.Record) -> bool:
    return bool(re.search(rf"\b{re.escape(row['column'])}\b", made.get(row["table"], "")))


def _must_be_given(table: Table, name: str, column: str) -> CheckLine:
    full = qualified(table.schema, name)
    text = f"{column} may not be empty, has no default, and is none of ours: each row that we add is refused"
    remedy = f"ALTER TABLE {full} ALTER COLUMN {quoted(column)} DROP NOT NULL (or SET DEFAULT)"
    return CheckLine("error", f"table {name}", text, remedy)


async def found_out(database: Database, table_config: TableConfig) -> list[CheckLine]:
    """Report what the processes of this shop have found out by writing: what they leave out, and
    how full the notification queue is.

    Raises:
        ShopError: the database is not available.
    """
    async with database.transaction() as connection:
        orders = orders_of(await read_mark(connection, table_config.schema, PROCESSING))
        full = await connection.fetchval("SELECT pg_notification_queue_usage()")
    return [*_left_out(len(orders)), *crowded(float(full))]


def _left_out(count: int) -> Iterable[CheckLine]:
    if not count:
        return []
    what = f"from {ENOUGH} on it is left out"
    if count >= ENOUGH:
        what = "it is left out, and an order that waits keeps its status"
    text = f"the column has refused this word for {count} order{'s' if count > 1 else ''}: {what}"
    remedy = "see which constraint or trigger refuses it (order-monitor check --rehearse), and correct that"
    return [CheckLine("warning", "statuses.processing", text, remedy)]


def crowded(full: float) -> Sequence[CheckLine]:
    """Return what is wrong with the server's queue of notifications, of which ``full`` is used."""
    if full < CROWDED:
        return []
    text = f"the server's queue of notifications is {full:.0%} full: full, whatever else gives one is refused too"
    remedy = f"end the session that listens and stays in a transaction (pg_stat_activity, state {literal('idle in transaction')})"
    return [CheckLine("warning", "notifications", text, remedy)]
