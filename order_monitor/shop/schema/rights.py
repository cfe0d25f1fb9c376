"""The privileges this role needs in the shop's database, and those it lacks: all at once, as SQL to
paste.

Only the catalogue is read, which every role may do, so that a table this role cannot see is
distinguished from one that does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from order_monitor.shop.accounts.tables import USED, USED_BY_SOME
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import REQUIRED, qualified, quoted
from order_monitor.shop.schema.own_tables import as_script, grants_on_own
from order_monitor.shop.schema.search import WRITTEN, match_columns
from order_monitor.shop.schema.table_config import TableConfig

_COLUMNS: Final = """
SELECT a.attname::text AS name, has_column_privilege(c.oid, a.attnum, 'SELECT') AS is_read,
       has_column_privilege(c.oid, a.attnum, 'UPDATE') AS is_updated, a.attgenerated = '' AND a.attidentity <> 'a' AS is_plain,
       format_type(a.atttypid, NULL) AS type
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What this role may do with a column."""

    name: str
    is_read: bool
    is_updated: bool
    is_plain: bool
    type: str


@dataclass(frozen=True, slots=True)
class Rights:
    """The SQL for missing rights: without those in ``needed`` nothing works; without those in
    ``further`` some parts are left out.

    ``is_beside_own``: a needed right is on a table other than ours.
    """

    needed: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    is_beside_own: bool = False

    @property
    def sql(self) -> str:
        """The SQL to paste, with the optional rights; empty if no needed one is missing."""
        return as_script((*self.needed, *self.further)) if self.needed else ""


async def missing_rights(connection: Connection, table_config: TableConfig) -> Rights:
    """Return the rights this role lacks: on the schema, the orders table, the shop's accounts and
    our own tables.

    A table or column that does not exist needs no right; that it is missing is reported elsewhere.

    Raises:
        asyncpg.PostgresError: the database could not be asked.
    """
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    schema = table_config.schema
    needed, optional = await _on_orders(connection, table_config)
    is_shut = "SELECT NOT has_schema_privilege(oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = $1"
    if await connection.fetchval(is_shut, schema):
        needed.insert(0, f"GRANT USAGE ON SCHEMA {quoted(schema)}")
    for table, used in USED.items() if table_config.accounts_from_shop else ():
        there, full = await _standing(connection, schema, table), qualified(schema, table)
        hidden = [one.name for one in there.values() if one.name in used and not one.is_read]
        some = [n for n in USED_BY_SOME.get(table, ()) if n in there and not there[n].is_read]
        needed += _grants("SELECT", hidden, full)
        optional += _grants("SELECT", some, full)
    on_own = await grants_on_own(connection, schema)
    further = await grants_on_own(connection, schema, table_config.further_rights)
    return Rights(
        (*(f"{grant} TO {role}" for grant in needed), *on_own),
        (*(f"{grant} TO {role}" for grant in optional), *further),
        is_beside_own=bool(needed),
    )


async def _on_orders(
    connection: Connection, table_config: TableConfig
) -> tuple[list[str], list[str]]:
    """Return the grants needed on the orders table, and those needed only for optional columns."""
    there = await _standing(connection, table_config.schema, table_config.table)
    looked_for = (*table_config.wanted, *table_config.welcome)
    found, _ = match_columns(there, table_config.overrides, "", looked_for)
    full = qualified(table_config.schema, table_config.table)
    route = ("tenant_id", "package_id", "provider_id") if table_config.accounts_from_shop else ()
    wanted = (*REQUIRED, *route, *table_config.wanted)
    unread = {logical: one.name for logical, one in found.items() if not one.is_read}
    unwritten = {
        n: one.name
        for n in (() if table_config.observes else WRITTEN)
        if (one := found.get(n)) and not one.is_updated and _is_written(n, one, table_config)
    }
    needed, optional = [], []
    for privilege, lacking in (("SELECT", unread), ("UPDATE", unwritten)):
        # The daemon uses a column that this role may use in some other way; a column that it cannot
        # see at all is left out.
        first = [
            name
            for n, name in lacking.items()
            if n in wanted or there[name].is_read or there[name].is_updated
        ]
        needed += _grants(privilege, first, full)
        optional += _grants(
            privilege, [name for name in lacking.values() if name not in first], full
        )
    by_people = [
        name
        for name in table_config.lookup
        if name in there and not there[name].is_read and name not in unread.values()
    ]
    optional += _grants("SELECT", by_people, full)
    return needed, optional


def _is_written(logical: str, one: _Standing, table_config: TableConfig) -> bool:
    """Whether the daemon writes a column, as far as that does not depend on the row."""
    if logical == "notes":
        return one.is_plain and one.type == "jsonb"
    if logical == "manual_note" and not table_config.has_customer_notes:
        return False
    return one.is_plain and (logical != "last_sync_at" or table_config.record_sync)


def _grants(privilege: str, columns: Sequence[str], full: str) -> list[str]:
    names = ", ".join(quoted(name) for name in columns)
    return [f"GRANT {privilege} ({names}) ON {full}"] if names else []


async def _standing(connection: Connection, schema: str, table: str) -> dict[str, _Standing]:
    return {
        row["name"]: _Standing(*row.values())
        for row in await connection.fetch(_COLUMNS, schema, table)
    }
