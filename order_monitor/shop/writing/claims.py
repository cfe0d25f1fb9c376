"""Take over claims from our events, for codes given out before there were claims."""

from __future__ import annotations

from typing import Any, Final

from order_monitor.core.order import CONFIGURED
from order_monitor.core.pin import NoPin, Unreadable, read_pin
from order_monitor.shop.accounts.logins import KEPT_DAYS
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.table_config import events_of
from order_monitor.shop.writing.pins import Claim

FILLED: Final = "claims_filled"
"""The name of the mark that stores up to which event claims were taken over."""

_SLICE: Final = 10_000


class Claims:
    """Takes over codes older than the table of codes, a slice of events at a time."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Work on the tables that ``schema_cache`` knows."""
        self._schema_cache = schema_cache

    async def fill(self) -> int:
        """Claim the code of each order for which an event records a PIN.

        Return of how many orders it was not claimed already.

        Raises:
            SettingsError: the table is not as required.
            ShopError: the database could not be asked, or one of our tables is missing.
        """
        schema = self._schema_cache.table_config.schema
        async with self._schema_cache.opened() as (_, connection):
            done = int(await read_mark(connection, schema, FILLED) or 0)
            newest = await connection.fetchval(
                f"SELECT COALESCE(max(id), 0) FROM {events_of(schema)}"
            )
        count = 0
        for first in range(done + 1, newest + 1, _SLICE):
            count += await self._slice(first, min(newest, first + _SLICE - 1))
        return count

    async def _slice(self, first: int, last: int) -> int:
        row_writer = self._schema_cache.row_writer
        async with self._schema_cache.transaction() as connection:
            rows = await connection.fetch(self.sql(), first, last)
            claims = [claim for row in rows if (claim := self._claim(row)) is not None]
            count = await row_writer.codes.take_over(connection, claims)
            await set_mark(connection, row_writer.table.schema, FILLED, str(last))
        return count

    def _claim(self, row: Any) -> Claim | None:  # noqa: ANN401 - asyncpg's record
        row_writer = self._schema_cache.row_writer
        pin = read_pin(row["pin"] or "", row_writer.rules.no_pin)
        if isinstance(pin, (NoPin, Unreadable)):
            return None
        digest = row_writer.codes.digest(pin, row["own_words"] or "")
        logins = row_writer.logins.of(row["account"] or row["integration"] or CONFIGURED)
        return None if digest is None else Claim(row["id"], row["root"], logins, digest)

    def sql(self) -> str:
        """SQL for orders, with accounts, that got PINs in the events from ``$1`` to ``$2``."""
        table, accounts = self._schema_cache.table, self._schema_cache.shop_tables.accounts
        route, join = (
            accounts.route_sql(table, "o") if accounts else ("NULL::text AS integration", "")
        )
        return (
            f"SELECT o.{table['id'].sql}::text AS id, o.{table['pin_code'].sql}::text AS pin, e.account, {route}, "
            f"{self._schema_cache.row_writer.statements.dispatch_sql()} FROM {table.sql} o {join} "
            "JOIN (SELECT DISTINCT ON (order_id) order_id, account "
            f"FROM {events_of(table.schema)} WHERE id BETWEEN $1 AND $2 AND has_pin "
            f"AND decided_at > now() - interval '{KEPT_DAYS} days' ORDER BY order_id, id DESC) e "
            f"ON e.order_id = o.{table['id'].sql} ORDER BY 1"
        )
