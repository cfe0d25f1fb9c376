"""Claims for codes that were given out before there were claims, or by a version that knew none: taken over from our own events."""

from __future__ import annotations

from typing import Any, Final

from order_monitor.core.order import CONFIGURED
from order_monitor.core.pin import NoPin, Unreadable, read_pin
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.layout import events_of
from order_monitor.shop.logins import KEPT_DAYS
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.pins import Claim

FILLED: Final = "claims_filled"
"""The name of the mark that says up to which event claims were taken over."""

_SLICE: Final = 10_000


class Claims:
    """Takes over what is older than the table of codes; a slice of the events at a time, by their primary key."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Work on the tables that ``catalogue`` knows."""
        self._catalogue = catalogue

    async def fill(self) -> int:
        """Claim the code of each order whose event says that it was given a PIN; return how many those were.

        Raises:
            SettingsError: the table is not as it must be.
            ShopError: the database could not be asked, or something of ours is missing.
        """
        schema = (await self._catalogue.complete()).ledger.table.schema
        async with self._catalogue.transaction() as connection:
            done = int(await read_mark(connection, schema, FILLED) or 0)
            newest = await connection.fetchval(f"SELECT COALESCE(max(id), 0) FROM {events_of(schema)}")
        count = 0
        for first in range(done + 1, newest + 1, _SLICE):
            count += await self._slice(first, min(newest, first + _SLICE - 1))
        return count

    async def _slice(self, first: int, last: int) -> int:
        ledger = self._catalogue.holdings.ledger
        async with self._catalogue.transaction() as connection:
            rows = await connection.fetch(self._sql(), first, last)
            claims = [claim for row in rows if (claim := self._claim(row)) is not None]
            await ledger.codes.claim(connection, claims)
            await set_mark(connection, ledger.table.schema, FILLED, str(last))
        return len(claims)

    def _claim(self, row: Any) -> Claim | None:  # noqa: ANN401 - asyncpg's record
        ledger = self._catalogue.holdings.ledger
        pin = read_pin(row["pin"] or "", ledger.rules.no_pin)
        if isinstance(pin, (NoPin, Unreadable)):
            return None
        digest = ledger.codes.digest(pin, row["own_words"] or "")
        logins = ledger.logins.of(row["account"] or row["integration"] or CONFIGURED)
        return None if digest is None else Claim(row["id"], row["root"], logins, digest)

    def _sql(self) -> str:
        """SQL of the orders that were given PINs by the events from ``$1`` to ``$2``, each once, with its account."""
        ledger, accounts = self._catalogue.holdings.ledger, self._catalogue.holdings.accounts
        table = ledger.table
        route, join = accounts.route_sql(table, "o") if accounts else ("NULL::text AS integration", "")
        return (
            f"SELECT o.{table['id'].sql}::text AS id, o.{table['pin_code'].sql}::text AS pin, e.account, {route}, "
            f"{ledger.statements.dispatch_sql()} FROM {table.sql} o {join} JOIN (SELECT DISTINCT ON (order_id) order_id, account "
            f"FROM {events_of(table.schema)} WHERE id BETWEEN $1 AND $2 AND has_pin "
            f"AND decided_at > now() - interval '{KEPT_DAYS} days' ORDER BY order_id, id DESC) e "
            f"ON e.order_id = o.{table['id'].sql} ORDER BY 1"
        )
