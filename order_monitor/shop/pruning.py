"""Forgetting what no order needs any more: codes, dispatches and logins older than `KEPT_DAYS`, a slice at a time.

What is told of in the events stays: they are the memory of what was told.
"""

from __future__ import annotations

from typing import Final

from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.columns import quoted
from order_monitor.shop.layout import DISPATCHES, PINS, is_open
from order_monitor.shop.logins import KEPT_DAYS

SLICE: Final = 1000


class Pruning:
    """Deletes what is old; nothing of an order that is still open."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Work on the tables that ``catalogue`` knows."""
        self._catalogue = catalogue

    async def step(self) -> int:
        """Delete a slice of each table; return how many rows those were, so that one may go on while there is more.

        Raises:
            SettingsError: the table is not as it must be.
            ShopError: the database could not be asked, or something of ours is missing.
        """
        await self._catalogue.complete()
        count = 0
        for table, since in ((PINS, "claimed_at"), (DISPATCHES, "found_at")):
            async with self._catalogue.transaction() as connection:
                status = await connection.execute(self._sql(table, since))
            count += int(str(status).rpartition(" ")[2])
        return count

    def _sql(self, name: str, since: str) -> str:
        table, layout = self._catalogue.holdings.ledger.table, self._catalogue.layout
        full = f"{quoted(layout.schema)}.{quoted(name)}"
        return (
            f"DELETE FROM {full} WHERE ctid = ANY(ARRAY(SELECT p.ctid FROM {full} p "
            f"WHERE p.{since} < now() - interval '{KEPT_DAYS} days' AND NOT EXISTS (SELECT FROM {table.sql} o "
            f"WHERE o.{table['id'].sql} = p.order_id AND o.{is_open(table, layout)}) ORDER BY p.{since} LIMIT {SLICE}))"
        )
