"""Check whether our own tables exist and whether this role may use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import asyncpg

from order_monitor.core.errors import RightsError, TableError
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import literal, qualified
from order_monitor.shop.schema.table_config import (
    DELIVERIES,
    DISPATCHES,
    EVENTS,
    OBSERVATIONS,
    PAUSES,
    PINS,
    PRESENCE,
    REVIEW,
    SETTINGS,
)

NEEDED: Final = {
    EVENTS: ("SELECT", "INSERT", "UPDATE"),
    DELIVERIES: ("SELECT", "INSERT"),
    REVIEW: ("SELECT", "INSERT", "UPDATE"),
    PAUSES: ("SELECT",),
    DISPATCHES: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    PINS: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    SETTINGS: ("SELECT", "INSERT", "UPDATE"),
    PRESENCE: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    OBSERVATIONS: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""Our tables without which nothing is asked, and the privileges this role needs on them."""

_BY_PEOPLE: Final = {
    EVENTS: ("SELECT",),
    DELIVERIES: ("SELECT", "INSERT", "UPDATE"),
    PAUSES: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""The privileges that people's commands need, if different from what the daemon needs."""

_NEWEST_COLUMN: Final = {EVENTS: "uid"}
"""A column that the previous version's table lacks."""

_STANDING: Final = """
SELECT n.name, c.oid IS NOT NULL AS is_there, quote_ident(current_user) AS role,
       (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS columns,
       CASE WHEN c.oid IS NOT NULL THEN ARRAY(
           SELECT p FROM unnest(string_to_array(n.privileges, ' ')) AS p WHERE NOT has_table_privilege(c.oid, p)) END AS lacking
  FROM unnest($2::text[], $3::text[]) AS n(name, privileges)
  LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname = $1)
    ON c.relname = n.name ORDER BY n.name
"""


async def lacking(connection: Connection, schema: str) -> list[str]:
    """Return which of our tables and of the rights on them are missing, and what to do."""
    rows = await _standing(connection, schema, NEEDED)
    missing = [row["name"] for row in rows if not row["is_there"] or _is_old(row)]
    problems = [
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or out of date; run: order-monitor migrate"
    ]
    grants = _grants(schema, rows)
    return [
        *(problems if missing else []),
        *([str(RightsError(as_script(grants)))] if grants else []),
    ]


async def grants_on_own(
    connection: Connection, schema: str, needed: Mapping[str, Sequence[str]] = NEEDED
) -> list[str]:
    """Return the GRANTs that this role lacks on those of our tables that exist."""
    return _grants(schema, await _standing(connection, schema, needed))


async def grants_to_come(connection: Connection, schema: str, names: Iterable[str]) -> list[str]:
    """Return the GRANTs that this role will need on tables that another role is to create."""
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    made = [name for name in names if name in NEEDED]
    return [
        f"GRANT {', '.join(NEEDED[name])} ON {qualified(schema, name)} TO {role}" for name in made
    ]


async def _standing(
    connection: Connection, schema: str, needed: Mapping[str, Sequence[str]]
) -> list[asyncpg.Record]:
    rows = await connection.fetch(
        _STANDING, schema, list(needed), [" ".join(rights) for rights in needed.values()]
    )
    return list(rows)


def _grants(schema: str, rows: Iterable[asyncpg.Record]) -> list[str]:
    return [
        f"GRANT {', '.join(row['lacking'])} ON {qualified(schema, row['name'])} TO {row['role']}"
        for row in rows
        if row["lacking"]
    ]


def as_script(grants: Iterable[str]) -> str:
    """Return statements as one line to paste."""
    return " ".join(f"{grant};" for grant in grants)


def _is_old(row: asyncpg.Record) -> bool:
    newest = _NEWEST_COLUMN.get(row["name"])
    return newest is not None and newest not in row["columns"]


async def may_use(connection: Connection, schema: str, name: str, privilege: str) -> bool:
    """Whether one of our tables exists and this role may use it."""
    full = literal(qualified(schema, name))
    return bool(
        await connection.fetchval(
            f"SELECT to_regclass({full}) IS NOT NULL AND has_table_privilege(to_regclass({full}), {literal(privilege)})"
        )
    )


async def need_tables(connection: Connection, schema: str, *names: str) -> None:
    """Check that our tables exist, and that this role may do there what people's commands do.

    Raises:
        TableError: one does not exist; the text says what to run.
        RightsError: a right is missing; the text says what to run.
    """
    rows = await _standing(
        connection, schema, {name: _BY_PEOPLE.get(name, NEEDED.get(name, ())) for name in names}
    )
    missing = [row["name"] for row in rows if not row["is_there"]]
    if missing:
        raise TableError(
            [f"there is no table {schema}.{name}; run order-monitor migrate" for name in missing]
        )
    if grants := _grants(schema, rows):
        raise RightsError(as_script(grants))
