"""Delete what no order needs any more: codes, dispatches, observations and logins older than
`KEPT_DAYS`, a slice at a time.

Events stay: they record what the shop was informed about.
"""

from __future__ import annotations

from typing import Final

from order_monitor.shop.accounts.logins import KEPT_DAYS
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import qualified
from order_monitor.shop.schema.table_config import DISPATCHES, OBSERVATIONS, PINS, is_open

SLICE: Final = 1000

_PRUNED: Final = ((PINS, "claimed_at"), (DISPATCHES, "found_at"), (OBSERVATIONS, "noted_at"))
"""The tables, each with the column that says how old a row is."""


async def prune(schema_cache: SchemaCache) -> int:
    """Delete a slice of each table, but no row of an order that is still open.

    Return how many rows were deleted, so that the caller can continue while there are more.

    Raises:
        SettingsError: the table is not as required.
        ShopError: the database could not be asked, or one of our tables is missing.
    """
    table, count = (await schema_cache.complete()).row_writer.table, 0
    is_of_an_open = (
        f"o.{table['id'].sql} = p.order_id AND o.{is_open(table, schema_cache.table_config)}"
    )
    for name, since in _PRUNED:
        full = qualified(table.schema, name)
        async with schema_cache.transaction() as connection:
            status = await connection.execute(
                f"DELETE FROM {full} WHERE ctid = ANY(ARRAY(SELECT p.ctid FROM {full} p "
                f"WHERE p.{since} < now() - interval '{KEPT_DAYS} days' AND NOT EXISTS (SELECT FROM {table.sql} o "
                f"WHERE {is_of_an_open}) ORDER BY p.{since} LIMIT {SLICE}))"
            )
        count += int(str(status).rpartition(" ")[2])
    return count
