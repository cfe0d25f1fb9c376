"""Whether the tables of our own are there, and whether this role may use them."""

from __future__ import annotations

from order_monitor.core.errors import SettingsError
from order_monitor.shop.columns import columns_of, literal, quoted
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.layout import EVENTS, PAUSES, REVIEW


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
        SettingsError: one is not, and what to run.
    """
    missing = [name for name in names if not await columns_of(connection, schema, name)]
    if missing:
        raise SettingsError([f"there is no table {schema}.{name}; run order-monitor migrate" for name in missing])


async def people_tables(database: Database, schema: str) -> None:
    """See that what people's commands need is there.

    Raises:
        SettingsError: something is not, and what to run.
    """
    async with database.transaction() as connection:
        await need_tables(connection, schema, EVENTS, PAUSES, REVIEW)
