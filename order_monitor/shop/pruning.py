"""Delete what no order needs any more: codes, dispatches, observations and logins older than
`KEPT_DAYS`, a slice at a time.

Events stay: they record what the shop was informed about.
"""

from __future__ import annotations

from typing import Final

from order_monitor.shop.accounts.logins import KEPT_DAYS
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import quoted
from order_monitor.shop.schema.table_config import DISPATCHES, OBSERVATIONS, PINS, is_open

SLICE: Final = 1000

_PRUNED: Final = (
    (PINS, "claimed_at"),
    (DISPATCHES, "found_at"),
    (OBSERVATIONS, "noted_at"),
)
"""The tables, each with the column that says how old a row is."""


class Pruning:
    """Deletes old rows, but none of an order that is still open."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Work on the tables that ``schema_cache`` knows."""
        self._schema_cache = schema_cache

    async def step(self) -> int:
        """Delete a slice of each table.

        Return how many rows were deleted, so that the caller can continue while there are more.

        Raises:
            SettingsError: the table is not as required.
            ShopError: the database could not be asked, or one of our tables is missing.
        """
        await self._schema_cache.complete()
        count = 0
        for table, since in _PRUNED:
            async with self._schema_cache.transaction() as connection:
                status = await connection.execute(self._sql(table, since))
            count += int(str(status).rpartition(" ")[2])
        return count

    def _sql(self, name: str, since: str) -> str:
        table, table_config = (
            self._schema_cache.shop_tables.row_writer.table,
            self._schema_cache.table_config,
        )
        full = f"{quoted(table_config.schema)}.{quoted(name)}"
        return (
            f"DELETE FROM {full} WHERE ctid = ANY(ARRAY(SELECT p.ctid FROM {full} p "
            f"WHERE p.{since} < now() - interval '{KEPT_DAYS} days' AND NOT EXISTS (SELECT FROM {table.sql} o "
            f"WHERE o.{table['id'].sql} = p.order_id AND o.{is_open(table, table_config)}) ORDER BY p.{since} LIMIT {SLICE}))"
        )
