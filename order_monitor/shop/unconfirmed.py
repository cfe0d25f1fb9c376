"""Cancellations that wait for a second answer, kept in the table of reviews, so that they outlive a restart.

They are no matter for a person: `order_monitor.shop.reviews.Reviews` neither counts nor lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.columns import literal
from order_monitor.shop.layout import dispatches_of
from order_monitor.shop.reviews import UNCONFIRMED


class Unconfirmed:
    """The table's part that is about cancellations."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Work on the table that ``catalogue`` knows."""
        self._catalogue = catalogue

    async def read(self) -> dict[str, float]:
        """Return when each was first read (epoch seconds), by the order's id; of orders sent elsewhere since then none.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        holdings = await self._catalogue.complete()
        async with self._catalogue.transaction() as connection:
            rows = await connection.fetch(
                "SELECT order_id::text AS id, extract(epoch FROM opened_at)::float8 AS since "
                f"FROM {holdings.reviews.sql} r WHERE closed_at IS NULL AND kind = {literal(UNCONFIRMED)} AND NOT EXISTS "
                f"(SELECT FROM {dispatches_of(holdings.ledger.table.schema)} d WHERE d.order_id = r.order_id "
                "HAVING count(*) > 1 AND max(d.found_at) > r.opened_at)"
            )
        return {row["id"]: row["since"] for row in rows}

    async def keep(self, fresh: Mapping[str, str], settled: Sequence[str]) -> None:
        """Keep what is ``fresh`` (each order's account by its id), and close what is ``settled``.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        holdings = await self._catalogue.complete()
        reviews, table = holdings.reviews, holdings.ledger.table
        async with self._catalogue.transaction() as connection:
            await reviews.note_all(connection, table, UNCONFIRMED, fresh)
            await reviews.mend(connection, table, ((i, UNCONFIRMED) for i in settled), "confirmed, or withdrawn")
