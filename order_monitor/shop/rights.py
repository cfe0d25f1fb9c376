"""What this role must be allowed in the shop's database, and what of that it is not: all of it in one go, as SQL to paste.

Only the catalogue is read, which every role may: a table that a role may not see is told from one that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from order_monitor.shop.accounts import USED, USED_BY_SOME
from order_monitor.shop.columns import REQUIRED, quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import Layout
from order_monitor.shop.own_tables import as_script, grants_on_own
from order_monitor.shop.table_search import WRITTEN, match_columns

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
    """The SQL of what is missing: ``needed`` is in the way of all work, without ``further`` something is left out of it.

    ``is_beside_own`` tells that something is needed on other tables than ours.
    """

    needed: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    is_beside_own: bool = False

    @property
    def sql(self) -> str:
        """What to paste, empty where nothing that is needed is missing; what is left out goes with it."""
        return as_script((*self.needed, *self.further)) if self.needed else ""


async def missing_rights(connection: Connection, layout: Layout) -> Rights:
    """Return which rights this role lacks: on the schema, the orders table, the shop's accounts and our own tables.

    A table or a column that is not there asks for no right: that it is missing is told elsewhere.

    Raises:
        asyncpg.PostgresError: the database could not be asked.
    """
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    schema, needed = layout.schema, []
    is_shut = "SELECT NOT has_schema_privilege(oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = $1"
    if await connection.fetchval(is_shut, schema):
        needed.append(f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role}")
    of_orders, optional = await _on_orders(connection, layout)
    needed += [f"{grant} TO {role}" for grant in of_orders]
    if layout.accounts_from_shop:
        for table, used in USED.items():
            there = await _standing(connection, schema, table)
            hidden = [one.name for one in there.values() if one.name in used and not one.is_read]
            some = [n for n in USED_BY_SOME.get(table, ()) if n in there and not there[n].is_read]
            optional += _grants("SELECT", some, f"{quoted(schema)}.{quoted(table)}")
            needed += [f"{grant} TO {role}" for grant in _grants("SELECT", hidden, f"{quoted(schema)}.{quoted(table)}")]
    is_beside = bool(needed)
    needed += await grants_on_own(connection, schema)
    further = [f"{grant} TO {role}" for grant in optional]
    further += await grants_on_own(connection, schema, layout.further_rights)
    return Rights(tuple(needed), tuple(further), is_beside)


async def _on_orders(connection: Connection, layout: Layout) -> tuple[list[str], list[str]]:
    """Return the grants that are needed on the orders table, and those that only further columns need."""
    there = await _standing(connection, layout.schema, layout.table)
    found, _ = match_columns(there, layout.overrides, "", layout.wanted)
    full = f"{quoted(layout.schema)}.{quoted(layout.table)}"
    route = ("tenant_id", "package_id", "provider_id") if layout.accounts_from_shop else ()
    wanted = (*REQUIRED, *route, *layout.wanted)
    unread = {logical: one.name for logical, one in found.items() if not one.is_read}
    unwritten = {
        n: one.name for n in WRITTEN if (one := found.get(n)) and not one.is_updated and _is_written(n, one, layout)
    }
    needed, optional = [], []
    for privilege, lacking in (("SELECT", unread), ("UPDATE", unwritten)):
        # A column that may be used in some other way is used by the work; one that may not be seen at all is left out of it.
        first = [name for n, name in lacking.items() if n in wanted or there[name].is_read or there[name].is_updated]
        needed += _grants(privilege, first, full)
        optional += _grants(privilege, [name for name in lacking.values() if name not in first], full)
    by_people = [
        name for name in layout.lookup if name in there and not there[name].is_read and name not in unread.values()
    ]
    optional += _grants("SELECT", by_people, full)
    return needed, optional


def _is_written(logical: str, one: _Standing, layout: Layout) -> bool:
    """Whether the work writes a column, as far as it is not a matter of the row."""
    if logical == "notes":
        return one.is_plain and one.type == "jsonb"
    return one.is_plain and (logical != "last_sync_at" or layout.record_sync)


def _grants(privilege: str, columns: Sequence[str], full: str) -> list[str]:
    names = ", ".join(quoted(name) for name in columns)
    return [f"GRANT {privilege} ({names}) ON {full}"] if names else []


async def _standing(connection: Connection, schema: str, table: str) -> dict[str, _Standing]:
    return {row["name"]: _Standing(*row.values()) for row in await connection.fetch(_COLUMNS, schema, table)}
