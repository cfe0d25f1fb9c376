"""Whether the tables of our own are there, and whether this role may use them."""

from __future__ import annotations

from typing import Any, Final

from order_monitor.core.errors import TableError
from order_monitor.shop.columns import columns_of, literal, quoted
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.layout import (
    DELIVERIES,
    DISPATCHES,
    EVENTS,
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
}
"""The tables of ours without which nothing is asked, and what this role must be allowed there."""

_NEWEST_COLUMN: Final = {EVENTS: "uid"}
"""A column that a table of the version before lacks."""

_STANDING: Final = """
SELECT n.name, c.oid IS NOT NULL AS is_there,
       (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS columns,
       CASE WHEN c.oid IS NOT NULL THEN ARRAY(
           SELECT p FROM unnest(string_to_array(n.privileges, ' ')) AS p WHERE NOT has_table_privilege(c.oid, p)) END AS lacking
  FROM unnest($2::text[], $3::text[]) AS n(name, privileges)
  LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname = $1)
    ON c.relname = n.name ORDER BY n.name
"""


async def lacking(connection: Connection, schema: str) -> list[str]:
    """Say which tables of ours are missing or out of date, and which rights on them, each with what to do about it."""
    rows = await connection.fetch(_STANDING, schema, list(NEEDED), [" ".join(rights) for rights in NEEDED.values()])
    missing = [row["name"] for row in rows if not row["is_there"] or _is_old(row)]
    problems = [
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or out of date; run: order-monitor migrate"
    ]
    grants = [
        f"GRANT {', '.join(row['lacking'])} ON {quoted(schema)}.{quoted(row['name'])} TO your_role"
        for row in rows
        if row["lacking"]
    ]
    return [*(problems if missing else []), *([f"this role lacks rights; run: {'; '.join(grants)}"] if grants else [])]


def _is_old(row: Any) -> bool:  # noqa: ANN401 - asyncpg's record
    newest = _NEWEST_COLUMN.get(row["name"])
    return newest is not None and newest not in row["columns"]


async def may_use(connection: Connection, schema: str, name: str, privilege: str) -> bool:
    """Whether a table of ours is there and this role may use it."""
    full = literal(f"{quoted(schema)}.{quoted(name)}")
    return bool(
        await connection.fetchval(
            f"SELECT to_regclass({full}) IS NOT NULL AND has_table_privilege(to_regclass({full}), {literal(privilege)})"
        )
    )


async def need_tables(connection: Connection, schema: str, *names: str) -> None:
    """See that tables of ours are there.

    Raises:
        TableError: one is not, and what to run.
    """
    missing = [name for name in names if not await columns_of(connection, schema, name)]
    if missing:
        raise TableError([f"there is no table {schema}.{name}; run order-monitor migrate" for name in missing])


async def people_tables(database: Database, schema: str) -> None:
    """See that what people's commands need is there.

    Raises:
        TableError: something is not, and what to run.
    """
    async with database.transaction() as connection:
        await need_tables(connection, schema, EVENTS, PAUSES, REVIEW)
