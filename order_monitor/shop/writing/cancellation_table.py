"""Cancellations that wait for a second answer, kept in the reviews table so that they survive a
restart.

They are not for a person: `order_monitor.shop.reviews.Reviews` neither counts nor lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from order_monitor.shop.reviews import UNCONFIRMED
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.schema.table_config import dispatches_of


class Unconfirmed(NamedTuple):
    """A cancellation that waits: the key of the account that answered it, and when that was (epoch
    seconds).
    """

    account: str
    since: float


class CancellationTable:
    """The rows of the reviews table that are about cancellations."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Work on the table that ``schema_cache`` knows."""
        self._schema_cache = schema_cache

    async def read(self) -> dict[str, Unconfirmed]:
        """Return the cancellations that wait, by order id.

        Without orders that were sent again since then.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        shop_tables = await self._schema_cache.complete()
        async with self._schema_cache.transaction() as connection:
            rows = await connection.fetch(
                "SELECT order_id::text AS id, extract(epoch FROM opened_at)::float8 AS since, account "
                f"FROM {shop_tables.reviews.sql} r WHERE closed_at IS NULL AND kind = {literal(UNCONFIRMED)} AND NOT EXISTS "
                f"(SELECT FROM {dispatches_of(shop_tables.row_writer.table.schema)} d WHERE d.order_id = r.order_id "
                "HAVING count(*) > 1 AND max(d.found_at) > r.opened_at)"
            )
        return {row["id"]: Unconfirmed(row["account"], row["since"]) for row in rows}

    async def keep(self, fresh: Mapping[str, str], settled: Sequence[str]) -> None:
        """Close the ``settled`` ones, and store the ``fresh`` ones (account by order id): one that
        is both has begun anew.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        shop_tables = await self._schema_cache.complete()
        reviews, table = shop_tables.reviews, shop_tables.row_writer.table
        async with self._schema_cache.transaction() as connection:
            await reviews.mend(
                connection, table, ((i, UNCONFIRMED) for i in settled), "confirmed, or withdrawn"
            )
            await reviews.note_all(connection, table, UNCONFIRMED, fresh)
